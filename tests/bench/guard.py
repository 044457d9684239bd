"""Times one TCP stream through a vxlan tunnel between two namespaces, with and without the guard, in turn, in one run.

Run in namespaces of its own: `make bench-guard`. The guard holds as many members as `--members` says.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import threading
import time

from flanneld_py.core.entries import Kind
from flanneld_py.core.plan import Operation
from flanneld_py.core.prefix import IPV4, Prefix
from flanneld_py.core.tunnel_port import admission
from flanneld_py.kernel.guard_table import GuardPlan, GuardTable
from flanneld_py.kernel.vxlan import vxlan_port
from tests.conftest import Namespace

_PORT = 7000
_UNDERLAY = 172 << 24 | 30 << 16
_NETWORK = 10 << 24
_SETUP = """
link set lo up
addr add 172.30.0.{own}/16 dev eth0
link set eth0 up
link add flannel.1 mtu 1450 type vxlan id 1 dev eth0 local 172.30.0.{own} dstport 8472 nolearning
link set flannel.1 address 02:00:00:00:00:0{own}
addr add 10.0.{own}.0/32 dev flannel.1
link set flannel.1 up
neigh add 10.0.{other}.0 lladdr 02:00:00:00:00:0{other} dev flannel.1 nud permanent
route add 10.0.{other}.0/24 via 10.0.{other}.0 dev flannel.1 onlink
"""


def _run(place: Namespace, *words: str) -> None:
    place.run(lambda: subprocess.run(words, check=True))


def _wire(near: Namespace, far: Namespace) -> None:
    holder = far.run(subprocess.Popen, ["sleep", "60"])
    _run(near, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
    holder.kill()
    holder.wait()
    for own, place in ((1, near), (2, far)):
        for line in _SETUP.format(own=own, other=3 - own).strip().splitlines():
            _run(place, "ip", *line.split())
        entry = f"fdb replace 02:00:00:00:00:0{3 - own} dev flannel.1 dst 172.30.0.{3 - own} self permanent"
        _run(place, "bridge", *entry.split())


class _Guards:
    """The guards of both ends; their members stay while the chains that ask for them come and go."""

    def __init__(self, places: tuple[Namespace, ...], members: int) -> None:
        plan = GuardPlan(vxlan_port(8472, 1), (IPV4,), (), drop=True)
        self._tables = [place.run(GuardTable, "flannel.1", plan, [(IPV4, 24)]) for place in places]
        operations = [
            Operation(Kind.DRIVEN, False, admission(IPV4, _UNDERLAY + number, prefix))
            for number in range(1, members + 1)
            for prefix in (Prefix(IPV4, _NETWORK + (number << 8), 24), Prefix(IPV4, _UNDERLAY + number, 32))
        ]
        for table in self._tables:
            table.read()
            for start in range(0, len(operations), table.batch):
                table.apply(operations[start : start + table.batch])

    def switch(self, *, on: bool) -> None:
        for table in self._tables:
            if on:
                table.arm()
            else:
                table.disarm()


class _Stream:
    """A TCP stream through the tunnel that never ends."""

    def __init__(self, near: Namespace, far: Namespace) -> None:
        with far.run(socket.create_server, ("10.0.2.0", _PORT)) as server:
            self._sending = near.run(socket.create_connection, ("10.0.2.0", _PORT))
            self._receiving, _ = server.accept()
        self._buffer = bytearray(1 << 20)
        threading.Thread(target=self._send, daemon=True).start()

    def _send(self) -> None:
        data = bytes(1 << 17)
        while True:
            self._sending.send(data)

    def receive(self, seconds: float) -> tuple[int, float]:
        """Return the bits that came in so many seconds, and the seconds of CPU that both ends took for them."""
        size, spent, until = 0, time.process_time(), time.monotonic() + seconds
        while time.monotonic() < until:
            size += self._receiving.recv_into(self._buffer)
        return size * 8, time.process_time() - spent


def main() -> None:
    """Print what goes through with the guard as a share of what goes through without, slice by slice in turn."""
    parser = argparse.ArgumentParser(description="time a tunnel with and without the guard")
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.1)
    chosen = parser.parse_args()
    near, far = Namespace(), Namespace()
    _wire(near, far)
    guards, stream = _Guards((near, far), chosen.members), _Stream(near, far)
    found: dict[bool, list[tuple[int, float]]] = {False: [], True: []}
    for index in range(chosen.slices):
        # In the order of with, without, without, with: what changes slowly bears on both alike.
        on = index % 4 in {0, 3}
        guards.switch(on=on)
        stream.receive(chosen.seconds / 5)
        found[on].append(stream.receive(chosen.seconds))
    rates, costs = {}, {}
    for on, slices in found.items():
        bits, spent = sum(size for size, _ in slices), sum(cpu for _, cpu in slices)
        rates[on], costs[on] = bits / chosen.seconds / len(slices) / 1e6, spent / bits * 1e9
        name = f"guard of {chosen.members} members" if on else "no guard"
        print(f"{name:24} {rates[on]:8.0f} Mbit/s, {costs[on]:.3f} s of CPU a Gbit")
    print(f"with ÷ without: throughput {rates[True] / rates[False]:.3f}, CPU a bit {costs[True] / costs[False]:.3f}")


if __name__ == "__main__":
    main()
