"""udp: packets go through a TUN device and this daemon's own UDP socket, for hosts whose kernel has nothing better.

Per peer: one entry in the data path's table. One route leads the whole network to the device.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.backends.backend import Backend
from flanneld_py.backends.direct import NO_VNI, RouteMaker, read_families, read_other_peers
from flanneld_py.core.driver import driven_entry
from flanneld_py.core.entries import DrivenEntry, Route
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.network_config import integer
from flanneld_py.core.nexthop_id import nexthop_ids
from flanneld_py.core.peer import Peer
from flanneld_py.core.prefix import IPV4, host_prefix
from flanneld_py.core.tunnel_mtu import tunnel_mtu
from flanneld_py.core.tunnel_port import TunnelPort
from flanneld_py.core.underlay import public_attrs
from flanneld_py.kernel.device import Device
from flanneld_py.kernel.forwarding import tunnel_settings
from flanneld_py.kernel.route import default_metric
from flanneld_py.kernel.tun import KIND, check_tun, make_tun, tun_options
from flanneld_py.kernel.udp_sockets import open_icmp, open_udp
from flanneld_py.kernel.udp_tunnel import OVERHEAD, UdpTunnel
from flanneld_py.kernel.udp_ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.driver import Feedback
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.peer_traffic import PeerTraffic
    from flanneld_py.core.plan import Operation
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

KEYS = ("Port",)
"""What its configuration has beside Type."""
_TABLE = "udp"
_DEVICE = "flannel0"
_DEFAULT_PORT = 8285
_NO_TYPE = ""
"""As with Go flannel, a lease says nothing of this backend."""


def parse_udp(config: NetworkConfig) -> Callable[[Uplink], UdpBackend]:
    """Read the Backend part of the configuration. Raises ConfigError."""
    if config.ipv4 is None or config.ipv6 is not None:
        raise ConfigError("Backend.Type", "udp carries IPv4 only; expected EnableIPv6 off, or vxlan")
    port = integer(config.backend, "Port", default=0, high=65535) or _DEFAULT_PORT
    return partial(UdpBackend, config.ipv4.network, port)


class UdpBackend(Backend):
    """udp for one network and one uplink."""

    claim_name = _DEVICE
    nexthop_ids = nexthop_ids(NO_VNI)
    overhead = OVERHEAD

    def __init__(self, network: Prefix, port: int, uplink: Uplink) -> None:
        self._network = network
        self._routes = RouteMaker({IPV4: network})
        self._port = port
        self._uplink = uplink
        self._ways = Ways(port)
        self._tunnel: UdpTunnel | None = None
        self.mtu = tunnel_mtu(uplink.interface.mtu, OVERHEAD, (IPV4,))
        self.drivers = (_WaysDriver(self._ways),)
        # Behind UDP's header lies the pod's packet as it is.
        self.tunnel_port = TunnelPort(port, 8)

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return our public address, and nothing else."""
        del sock, earlier, random_bytes
        check_tun()
        return public_attrs(self._uplink, _NO_TYPE)

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return flannel0, with the base address of our subnet."""
        assert lease.subnet is not None  # noqa: S101 - the network has IPv4 alone
        addresses, settings = (host_prefix(lease.subnet.base),), tunnel_settings(IPV4, _DEVICE)
        return {IPV4: Device(_DEVICE, KIND, b"", self.mtu, addresses, tun_options(), settings, self._make_device)}

    def _make_device(self) -> None:
        make_tun(_DEVICE)
        if self._tunnel is not None:
            self._tunnel.look_again()

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as a peer; raise ValueError saying why it is none."""
        networks = {IPV4: self._network}
        if lease.attrs.backend_type != _NO_TYPE:
            self.follows_underlay = True
            return tuple(read_other_peers(lease, "udp", networks))
        return tuple(Peer(subnet, public_ip) for subnet, public_ip, _ in read_families(lease, networks))

    def read_traffic(self, peer: Peer) -> PeerTraffic | None:
        """Return what the data path has carried, without the tunnel's headers; None for a peer that needs no tunnel."""
        return None if peer.direct_only else self._ways.read_traffic(peer.public_ip)

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the entry of the data path's table that leads to a peer. Raises UnreachableError."""
        if peer.direct_only:
            return self._routes.direct_only(peer, ground)
        return (DrivenEntry(_TABLE, (peer.subnet,), peer.public_ip),)

    def standing(self, ground: Ground) -> Sequence[Entry]:
        """Return the route that leads the whole network to the data path."""
        return (Route(self._network, default_metric(IPV4), 0, 0, ground.devices[IPV4], onlink=False),)

    async def run(self, lease: Lease, feedback: Feedback) -> None:
        """Have the data path carry packets until cancelled. Raises OSError."""
        del feedback
        assert lease.subnet is not None  # noqa: S101 - as above
        bound = open_udp(str(self._uplink.source), self._port)
        self._tunnel = UdpTunnel(_DEVICE, bound, open_icmp(str(lease.subnet.base)), self._ways, self.mtu)
        self._tunnel.start()
        try:
            await asyncio.Event().wait()
        finally:
            tunnel, self._tunnel = self._tunnel, None
            tunnel.stop()


class _WaysDriver:
    """The data path's table, in this process's own memory."""

    table = _TABLE
    batch = 500

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    def read(self) -> list[DrivenEntry]:
        return [DrivenEntry(_TABLE, (subnet,), public_ip) for subnet, public_ip in self._ways.peers.items()]

    def apply(self, operations: Sequence[Operation]) -> Mapping[int, tuple[int, str]]:
        for operation in operations:
            _, (subnet,), public_ip = driven_entry(operation)
            if operation.delete:
                self._ways.remove(subnet)
            else:
                self._ways.put(subnet, public_ip)
        return {}
