"""Who may ask by the probe's port: members of the network, each by the addresses that it has there as a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import IPV4, IPV6, Prefix
from flanneld_py.core.probe_results import OVERLAY, UNDERLAY

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from flanneld_py.core.peer import Peer


def node_addresses(subnet: Prefix) -> tuple[int, int]:
    """Return the addresses in a subnet that its node has itself: its device's, and its bridge's. No pod has them."""
    return subnet.address, subnet.address + 1


class ProbeMembers:
    """The members, by the addresses that their requests come from."""

    def __init__(self, peers: Iterable[Peer], own: Iterable[Prefix]) -> None:
        """Know these peers; `own` are the subnets of this node."""
        self._own = {subnet.family: subnet for subnet in own}
        self._outer: dict[int, set[int]] = {IPV4: set(), IPV6: set()}
        self._inner: dict[int, set[int]] = {IPV4: set(), IPV6: set()}
        for peer in peers:
            self._outer[peer.subnet.family].add(peer.public_ip)
            self._inner[peer.subnet.family].update(node_addresses(peer.subnet))

    def find_way(self, family: int, source: int, destination: int) -> str:
        """Return the way by which a member has asked, the empty text for whoever is no member there."""
        own = self._own.get(family)
        if own is not None and own.holds(destination):
            return OVERLAY if source in self._inner[family] else ""
        return UNDERLAY if source in self._outer[family] else ""


class RateLimit:
    """How many things of one kind may be done in a second; seconds begin with whole numbers of the clock."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._second = -1
        self._counts: dict[Hashable, int] = {}

    def allow(self, kind: Hashable, now: float) -> bool:
        """Count one, and say whether it may be done."""
        if int(now) != self._second:
            self._second, self._counts = int(now), {}
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return count <= self._most
