"""The way of a packet through this node, hop by hop, by the kernel's own answers.

Sends nothing. What only a real packet can tell (connection tracking, filters beside nf_tables) is not seen.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import format_address
from flanneld_py.core.sample_packet import TCP, SamplePacket
from flanneld_py.kernel import neighbour
from flanneld_py.kernel.barriers import read_barriers
from flanneld_py.kernel.link import IFF_RUNNING
from flanneld_py.kernel.own_devices import is_own_device
from flanneld_py.kernel.route_lookup import LOCAL, look_up_route
from flanneld_py.kernel.vxlan import OVERHEAD, parent_index, udp_port, vni

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from flanneld_py.ctl.node_view import NodeView
    from flanneld_py.kernel.link import Link
    from flanneld_py.kernel.neighbour import Resolution
    from flanneld_py.kernel.netlink_socket import NetlinkSocket
    from flanneld_py.kernel.route_lookup import Lookup

_LOSSES = {
    errno.ENETUNREACH: "no route leads there",
    errno.EHOSTUNREACH: "a route says unreachable, or the host does not forward what comes in by that device",
    errno.EINVAL: "a blackhole route, or a source that cannot come in by that device",
    errno.EACCES: "a route prohibits it",
    errno.EXDEV: "its source would be answered by another device (rp_filter)",
}
_TABLES = {253: "default", 254: "main", 255: "local"}


class Hop(NamedTuple):
    """A place on the way, what happens there, and why the packet goes no further, if it does not."""

    place: str
    what: str
    lost: str = ""


class Walk:
    """Follows one packet; `family` of both addresses."""

    def __init__(self, sock: NetlinkSocket, view: NodeView, family: int) -> None:
        self._sock = sock
        self._view = view
        self._family = family
        self._links = {link.ifindex: link for link in view.links}

    def follow(self, source: int, destination: int, incoming: str) -> Iterator[Hop]:
        """Yield the hops of a packet that comes in by a device, or is sent here where that is empty."""
        link = self._view.link(incoming) if incoming else None
        if incoming and link is None:
            yield Hop(incoming, "the packet would come in here", f"there is no device {incoming}")
            return
        begins = f"comes in by {link.name}" if link else "is sent by this host"
        yield Hop("source", f"{self._text(source)} {begins}")
        found = yield from self._look_up(destination, source=source, incoming=link.ifindex if link else 0)
        if found is None:
            return
        if found.type == LOCAL:
            yield Hop("this host", f"{self._text(destination)} is an address of this host: delivered")
            return
        outgoing = self._links[found.ifindex]
        if link:
            yield from self._filter(SamplePacket(self._family, link.name, outgoing.name, source, destination, TCP, 80))
        yield from self._send(outgoing, found.gateway, destination)

    def _filter(self, packet: SamplePacket) -> Iterator[Hop]:
        """Yield what the packet filter does with what is forwarded, where it lets itself be asked."""
        with suppress(KernelError):
            barriers = read_barriers([packet], (), beside_iptables=True)
            told = "a new TCP connection to port 80"
            yield from (Hop("rules", f"{told}, in {one.chain}", one.reason) for one in barriers)
            if not barriers:
                yield Hop("rules", f"{told} is let through")

    def _look_up(
        self, destination: int, *, source: int = 0, incoming: int = 0, outgoing: int = 0
    ) -> Generator[Hop, None, Lookup | None]:
        try:
            found = look_up_route(
                self._sock, self._family, destination, source=source, incoming=incoming, outgoing=outgoing
            )
        except KernelError as error:
            lost = _LOSSES.get(error.errno or 0, str(error))
            yield Hop("route", f"to {self._text(destination)}", lost)
            return None
        yield Hop("route", self._describe(destination, found))
        return found

    def _describe(self, destination: int, found: Lookup) -> str:
        gateway = f" via {self._text(found.gateway)}" if found.gateway else ""
        device = self._links[found.ifindex].name if found.ifindex in self._links else str(found.ifindex)
        return f"{self._text(destination)}{gateway} dev {device} (table {_TABLES.get(found.table, found.table)})"

    def _send(self, link: Link, gateway: int, destination: int) -> Iterator[Hop]:
        nexthop = gateway or destination
        if not link.is_up or not link.flags & IFF_RUNNING:
            yield Hop(link.name, "sends it", "it is down" if not link.is_up else "it has no carrier")
        elif link.kind == "vxlan":
            yield from self._encapsulate(link, nexthop, is_destination=not gateway)
        elif is_own_device(link):
            yield Hop(link.name, f"hands it to the tunnel{f', to {self._text(gateway)}' if gateway else ''}")
        else:
            yield self._resolve(link, nexthop)

    def _resolve(self, link: Link, nexthop: int) -> Hop:
        known = self._find_neighbour(link, nexthop)
        if known is None:
            return Hop(link.name, f"asks for {self._text(nexthop)} first: it is not known there yet")
        if known.failed:
            return Hop(link.name, f"asks for {self._text(nexthop)}", "nobody there has answered")
        return Hop(link.name, f"sends it to {self._text(nexthop)} at {known.lladdr.hex(':')}")

    def _find_neighbour(self, link: Link, address: int) -> Resolution | None:
        request = neighbour.encode_dump_neighbours(self._family, link.ifindex)
        found = self._sock.dump(request, neighbour.decode_resolution, "read neighbours")
        return next((entry for entry in found if entry.address == address), None)

    def _encapsulate(self, link: Link, nexthop: int, *, is_destination: bool) -> Iterator[Hop]:
        known = self._find_neighbour(link, nexthop)
        if known is None and is_destination:
            yield Hop(
                "on demand", f"the kernel asks the daemon for {self._text(nexthop)}, and keeps the packet meanwhile"
            )
            return
        if known is None or not known.lladdr:
            yield Hop(
                "neighbour", f"{self._text(nexthop)} on {link.name}", "it has no entry: flannelctl peers tells more"
            )
            return
        yield Hop("neighbour", f"{self._text(nexthop)} is {known.lladdr.hex(':')} on {link.name}")
        entry = next((one for one in self._view.fdb if one[:2] == (link.ifindex, known.lladdr)), None)
        if entry is None:
            yield Hop(
                "forwarding entry",
                f"{known.lladdr.hex(':')} on {link.name}",
                "it has none: to which node it goes is unknown",
            )
            return
        remote = format_address(entry.family, entry.remote)
        yield Hop("forwarding entry", f"{known.lladdr.hex(':')} is behind {remote}")
        overhead = OVERHEAD[entry.family]
        yield Hop(
            "encapsulation",
            f"VXLAN {vni(link)} in UDP to {remote} port {udp_port(link)}: {overhead} bytes around up to {link.mtu}",
        )
        outer = Walk(self._sock, self._view, entry.family)
        yield from outer.leave(entry.remote, parent_index(link), link.mtu + overhead)

    def leave(self, remote: int, outgoing: int, size: int) -> Iterator[Hop]:
        """Yield the hops of a packet on the underlay, sent here by one device; it has up to `size` bytes."""
        found = yield from self._look_up(remote, outgoing=outgoing)
        if found is None:
            return
        link = self._links[found.ifindex]
        if size > link.mtu:
            yield Hop(link.name, f"carries {link.mtu} bytes", f"packets of {size} bytes do not fit")
            return
        yield from self._send(link, found.gateway, remote)

    def _text(self, address: int) -> str:
        return format_address(self._family, address)
