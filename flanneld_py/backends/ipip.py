"""ipip: packets go through the kernel's IP-in-IP device (RFC 2003), or straight where both nodes share a layer 2.

IPv4 only. Per peer a route to its subnet whose gateway is its public address, on that device.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.backends.backend import Backend
from flanneld_py.backends.direct import NO_VNI, RouteMaker, read_families, read_other_peers
from flanneld_py.core.errors import ConfigError, KernelError
from flanneld_py.core.network_config import boolean
from flanneld_py.core.nexthop_id import nexthop_ids
from flanneld_py.core.peer import Peer
from flanneld_py.core.prefix import IPV4, host_prefix
from flanneld_py.core.tunnel_mtu import tunnel_mtu
from flanneld_py.core.underlay import public_attrs
from flanneld_py.kernel.device import Device
from flanneld_py.kernel.forwarding import tunnel_settings
from flanneld_py.kernel.ipip import OVERHEAD, has_ipip, ipip_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

_TYPE = "ipip"
KEYS = ("DirectRouting",)
"""What its configuration has beside Type."""
_DEVICE = "flannel.ipip"


def parse_ipip(config: NetworkConfig) -> Callable[[Uplink], IpipBackend]:
    """Read the Backend part of the configuration. Raises ConfigError."""
    if config.ipv6 is not None:
        raise ConfigError("EnableIPv6", "ipip carries IPv4 only; expected it off, or another Backend, as vxlan")
    return partial(IpipBackend, config, boolean(config.backend, "DirectRouting", default=False))


class IpipBackend(Backend):
    """ipip for one network and one uplink."""

    claim_name = _DEVICE
    nexthop_ids = nexthop_ids(NO_VNI)
    overhead = OVERHEAD

    def __init__(self, config: NetworkConfig, direct_routing: bool, uplink: Uplink) -> None:
        self._networks = {part.network.family: part.network for part in config.ranges}
        self._direct_routing = direct_routing
        self._uplink = uplink
        self._routes = RouteMaker(self._networks)
        self.mtu = tunnel_mtu(uplink.interface.mtu, OVERHEAD, self._networks)
        self.follows_underlay = direct_routing

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return the attributes to publish. Raises KernelError where this kernel has no ipip."""
        del earlier, random_bytes
        if not has_ipip(sock):
            raise KernelError(95, "ipip", "this kernel has no ipip: modprobe ipip, or choose vxlan")
        return public_attrs(self._uplink, _TYPE)

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return flannel.ipip with the base address of our subnet."""
        source = self._uplink.source
        if lease.subnet is None or source is None:
            return {}
        addresses = (host_prefix(lease.subnet.base),)
        settings = tunnel_settings(IPV4, _DEVICE)
        return {IPV4: Device(_DEVICE, "ipip", b"", self.mtu, addresses, ipip_options(source), settings)}

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as peers; raise ValueError saying why it is none."""
        if lease.attrs.backend_type != _TYPE:
            self.follows_underlay = True
            return tuple(read_other_peers(lease, _TYPE, self._networks))
        return tuple(Peer(subnet, public_ip) for subnet, public_ip, _ in read_families(lease, self._networks))

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the route to a peer: through the tunnel, or straight over the uplink. Raises UnreachableError."""
        if peer.direct_only:
            return self._routes.direct_only(peer, ground)
        direct = self._routes.direct(peer, ground) if self._direct_routing else None
        if direct is not None:
            return direct
        return self._routes.route(peer.subnet, peer.public_ip, ground.devices[IPV4], ground, onlink=True)
