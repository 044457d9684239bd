"""Times how long it takes to program N peers by our netlink codec and by pyroute2, in turn, in one run.

Run in a network namespace of its own: `make bench-codec`. A peer is a forwarding entry, a neighbour and a route (ours
also with a nexthop object, as the daemon does).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from typing import TYPE_CHECKING

from pyroute2 import IPRoute

from flanneld_py.core.entries import FdbEntry, Kind, Neighbour, Nexthop, Route
from flanneld_py.core.plan import Operation, order
from flanneld_py.core.prefix import IPV4, Prefix
from flanneld_py.kernel.dataplane import apply_batch
from flanneld_py.kernel.link import create_link, delete_link, read_link, set_link
from flanneld_py.kernel.netlink import encode_attribute
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.kernel.vxlan import IFLA_VXLAN_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NETWORK = 10 << 24
_UNDERLAY = 172 << 24 | 16 << 16
_BATCH = 40
_FIRST_NEXTHOP = 0x46100000


def _peers(count: int) -> Iterator[tuple[int, bytes, int]]:
    for number in range(count):
        yield _NETWORK + (number << 8), (0x020000000000 + number).to_bytes(6, "big"), _UNDERLAY + number


def _by_codec(sock: NetlinkSocket, device: int, count: int, *, nexthops: bool) -> None:
    operations: list[Operation] = []
    for number, (subnet, mac, remote) in enumerate(_peers(count)):
        ident = _FIRST_NEXTHOP + number
        operations += [
            Operation(Kind.FDB, False, FdbEntry(device, mac, IPV4, remote)),
            Operation(Kind.NEIGHBOUR, False, Neighbour(device, IPV4, subnet, mac)),
        ]
        if nexthops:
            operations.append(Operation(Kind.NEXTHOP, False, Nexthop(ident, IPV4, subnet, device, True)))
            route = Route(Prefix(IPV4, subnet, 24), 0, ident, 0, 0, False)
        else:
            route = Route(Prefix(IPV4, subnet, 24), 0, 0, subnet, device, True)
        operations.append(Operation(Kind.ROUTE, False, route))
    ordered = order(operations)
    for start in range(0, len(ordered), _BATCH):
        failed = apply_batch(sock, ordered[start : start + _BATCH])
        if failed:
            raise SystemExit(f"the kernel refused: {failed}")


def _by_pyroute2(ipr: IPRoute, device: int, count: int) -> None:
    for subnet, mac, remote in _peers(count):
        base = ".".join(str(byte) for byte in subnet.to_bytes(4, "big"))
        outer = ".".join(str(byte) for byte in remote.to_bytes(4, "big"))
        ipr.fdb("replace", ifindex=device, lladdr=mac.hex(":"), dst=outer, flags=2, state=128)
        ipr.neigh("replace", ifindex=device, dst=base, lladdr=mac.hex(":"), state=128)
        ipr.route("replace", dst=f"{base}/24", gateway=base, oif=device, flags=4)


def _time(sock: NetlinkSocket, program: Callable[[int], None]) -> tuple[float, float]:
    create_link(sock, "bench.1", "vxlan", encode_attribute(IFLA_VXLAN_ID, (7).to_bytes(4, "little")))
    link = read_link(sock, "bench.1")
    assert link is not None
    set_link(sock, link.ifindex, up=True)
    began, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    program(link.ifindex)
    took, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    delete_link(sock, link.ifindex)
    return took, used.ru_utime + used.ru_stime - spent.ru_utime - spent.ru_stime


def main() -> None:
    """Print median, smallest and largest time of each way."""
    parser = argparse.ArgumentParser(description="time our netlink codec beside pyroute2")
    parser.add_argument("--peers", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with NetlinkSocket() as sock, IPRoute() as ipr:
        # Without one local address the kernel takes no gateway at all.
        ipr.link("set", index=1, state="up")
        for count in chosen.peers:
            ways: dict[str, Callable[[int], None]] = {
                "codec, nexthop objects": lambda device, n=count: _by_codec(sock, device, n, nexthops=True),
                "codec, plain routes": lambda device, n=count: _by_codec(sock, device, n, nexthops=False),
                "pyroute2, plain routes": lambda device, n=count: _by_pyroute2(ipr, device, n),
            }
            rounds = [{name: _time(sock, way) for name, way in ways.items()} for _ in range(chosen.rounds)]
            for name in ways:
                took = [entry[name][0] for entry in rounds]
                used = statistics.median(entry[name][1] for entry in rounds)
                print(
                    f"{count:6} peers  {name:24} median {statistics.median(took):7.3f} s"
                    f"  ({min(took):.3f} to {max(took):.3f}), cpu {used:.3f} s"
                )


if __name__ == "__main__":
    main()
