"""Direct: a peer on this node's layer 2 is reached without a tunnel. What the backends share about that.

So are nodes of another backend, while a network changes from one to another: what they forward to their pods does
not depend on how it came to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.backends.backend import UnreachableError
from flanneld_py.core.entries import Nexthop, Route
from flanneld_py.core.nexthop_id import nexthop_id
from flanneld_py.core.peer import Peer, RefusedError
from flanneld_py.core.prefix import format_address
from flanneld_py.core.underlay import find_direct_device
from flanneld_py.kernel.route import default_metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease
    from flanneld_py.core.prefix import Prefix

_BARE = frozenset({"vxlan", "host-gw", "ipip", "udp", ""})
"""Backends whose packets may travel bare; udp and alloc publish no type. wireguard's may not: they are secret."""

NO_VNI = 0
"""What stands for the VNI, in ids of nexthops, of a backend that has none."""


class RouteMaker:
    """Writes the routes to peers of one network: by nexthop object where the kernel has them, else plain."""

    def __init__(self, networks: Mapping[int, Prefix], vni: int = NO_VNI) -> None:
        """Write routes in these networks, by family; the ids of nexthops are of this VNI's range."""
        self._networks = networks
        self._vni = vni

    def route(
        self, subnet: Prefix, gateway: int, device: int, ground: Ground, *, onlink: bool = False
    ) -> tuple[Entry, ...]:
        """Return what leads to a subnet by way of a gateway on a device."""
        metric = default_metric(subnet.family)
        network = self._networks[subnet.family]
        ident = nexthop_id(self._vni, network, subnet) if ground.has_nexthops else None
        if ident is None:
            return (Route(subnet, metric, 0, gateway, device, onlink),)
        nexthop = Nexthop(ident, subnet.family, gateway, device, onlink)
        return nexthop, Route(subnet, metric, ident, 0, 0, onlink=False)

    def direct(self, peer: Peer, ground: Ground) -> tuple[Entry, ...] | None:
        """Return what leads to a peer without a tunnel; None if it is not on this node's layer 2."""
        device = find_direct_device(ground.routes, peer.subnet.family, peer.public_ip)
        return self.route(peer.subnet, peer.public_ip, device, ground) if device else None

    def direct_only(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return what leads to a peer without a tunnel. Raises UnreachableError."""
        entries = self.direct(peer, ground)
        if entries is None:
            address = format_address(peer.subnet.family, peer.public_ip)
            raise UnreachableError(f"{address} is not on this node's layer 2, and there is no tunnel to it")
        return entries


def read_other_peers(lease: Lease, own_type: str, families: Mapping[int, Prefix]) -> Iterator[Peer]:
    """Yield the peers of a lease of another backend; raise ValueError if they must not be reached without a tunnel."""
    kind = lease.attrs.backend_type
    if kind not in _BARE:
        reason = f"its backend is {kind!r}, this node's is {own_type!r}: they have no way in common"
        raise RefusedError("other backend", reason)
    for subnet, public_ip, _ in read_families(lease, families):
        yield Peer(subnet, public_ip, direct_only=True)


def read_families(lease: Lease, families: Mapping[int, Prefix]) -> Iterator[tuple[Prefix, int, str | None]]:
    """Yield subnet, public address and backend data of a lease in each of these families it has.

    Raises ValueError if an address is missing.
    """
    attrs = lease.attrs
    for subnet, public_ip, data, name in (
        (lease.subnet, attrs.public_ip, attrs.backend_data, "PublicIP"),
        (lease.ipv6_subnet, attrs.public_ipv6, attrs.backend_v6_data, "PublicIPv6"),
    ):
        if subnet is None or subnet.family not in families:
            continue
        if public_ip is None:
            raise ValueError(f"it has no {name}")
        yield subnet, public_ip, data
