"""host-gw: each peer is the gateway to its own subnet, over a layer 2 that all nodes share; no tunnel, no overhead.

A peer that is not on that layer 2 cannot be reached, and is named.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.backends.backend import Backend
from flanneld_py.backends.direct import NO_VNI, RouteMaker, read_families, read_other_peers
from flanneld_py.core.nexthop_id import nexthop_ids
from flanneld_py.core.peer import Peer
from flanneld_py.core.underlay import public_attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.device import Device
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_TYPE = "host-gw"
KEYS = ()
"""What its configuration has beside Type."""


def parse_host_gw(config: NetworkConfig) -> Callable[[Uplink], HostGwBackend]:
    """Read the Backend part of the configuration."""
    return partial(HostGwBackend, config)


class HostGwBackend(Backend):
    """host-gw for one network and one uplink."""

    claim_name = _TYPE
    follows_underlay = True
    nexthop_ids = nexthop_ids(NO_VNI)

    def __init__(self, config: NetworkConfig, uplink: Uplink) -> None:
        self._uplink = uplink
        self._networks = {part.network.family: part.network for part in config.ranges}
        self._routes = RouteMaker(self._networks)
        self.mtu = uplink.interface.mtu

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return the attributes to publish; any kernel has routes."""
        del sock, earlier, random_bytes
        return public_attrs(self._uplink, _TYPE)

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return nothing: the uplink is all that is needed."""
        del lease
        return {}

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as peers; raise ValueError saying why it is none."""
        if lease.attrs.backend_type != _TYPE:
            return tuple(read_other_peers(lease, _TYPE, self._networks))
        return tuple(
            Peer(subnet, public_ip, direct_only=True) for subnet, public_ip, _ in read_families(lease, self._networks)
        )

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the route by way of the peer itself. Raises UnreachableError."""
        return self._routes.direct_only(peer, ground)
