"""vxlan: packets go through the kernel's VXLAN device (RFC 7348), or straight where both nodes share a layer 2.

Per peer: a forwarding entry (its VTEP's MAC lies behind its public address), a neighbour (its subnet's base address
has that MAC), and a route to its subnet by way of that address.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.backends.backend import Backend
from flanneld_py.backends.direct import RouteMaker, read_families, read_other_peers
from flanneld_py.core.entries import FdbEntry, Neighbour
from flanneld_py.core.errors import KernelError
from flanneld_py.core.lease import fold_keys
from flanneld_py.core.network_config import boolean, integer
from flanneld_py.core.nexthop_id import nexthop_ids
from flanneld_py.core.peer import OWN_MAC, Peer, RefusedError
from flanneld_py.core.prefix import IPV4, IPV6, host_prefix
from flanneld_py.core.tunnel_mtu import read_underlay_mtu, tunnel_mtu
from flanneld_py.core.underlay import public_attrs
from flanneld_py.kernel.device import Device
from flanneld_py.kernel.forwarding import tunnel_settings
from flanneld_py.kernel.link import read_link
from flanneld_py.kernel.vxlan import OVERHEAD, has_vxlan, vxlan_options, vxlan_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.backends.backend import Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

log = logging.getLogger(__name__)

_TYPE = "vxlan"
KEYS = ("VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting", "MacPrefix")
"""What its configuration has beside Type."""
_DEFAULT_VNI = 1
_LARGEST_VNI = (1 << 24) - 1
_PUBLISHED_VNI = 0xFFFF
"""What Go flannel publishes, and can read, of a VNI."""
_DEFAULT_PORT = 8472
"""What the kernel took before VXLAN had a number of its own (4789); Go flannel keeps it."""
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_CANONICAL_VTEP = re.compile(r'\{"VNI":(0|[1-9][0-9]{0,8}),"VtepMAC":"([^"\\]*)"\}')
"""What flannel daemons write: read so, it takes a third of the time that JSON does."""
_LINK_LOCAL = 0xFE80 << 112
_DEVICE_NAMES = {IPV4: "flannel", IPV6: "flannel-v6"}


@dataclass(frozen=True, slots=True)
class VxlanConfig:
    """The keys of Backend for vxlan; `mtu` is that of the underlay in bytes, None for the uplink's."""

    vni: int
    port: int
    mtu: int | None
    group_policy: bool
    learning: bool
    direct_routing: bool


def parse_vxlan(config: NetworkConfig) -> Callable[[Uplink], VxlanBackend]:
    """Read the Backend part of the configuration; MacPrefix, which is for Windows, has no effect.

    Raises ConfigError.
    """
    fields = config.backend
    settings = VxlanConfig(
        vni=integer(fields, "VNI", default=_DEFAULT_VNI, low=0, high=_LARGEST_VNI),
        port=integer(fields, "Port", default=0, high=65535) or _DEFAULT_PORT,
        mtu=read_underlay_mtu(config, _overhead(config)),
        group_policy=boolean(fields, "GBP", default=False),
        learning=boolean(fields, "Learning", default=False),
        direct_routing=boolean(fields, "DirectRouting", default=False),
    )
    return partial(VxlanBackend, config, settings)


def _overhead(config: NetworkConfig) -> int:
    return max(OVERHEAD[part.network.family] for part in config.ranges)


class VxlanBackend(Backend):
    """vxlan for one network and one uplink."""

    answers_misses = True

    def __init__(self, config: NetworkConfig, settings: VxlanConfig, uplink: Uplink) -> None:
        self._settings = settings
        self._uplink = uplink
        self._networks = {part.network.family: part.network for part in config.ranges}
        self._routes = RouteMaker(self._networks, settings.vni)
        self._macs: dict[int, bytes] = {}
        # The kernel gives no vxlan device more than its parent can carry.
        underlay = min(settings.mtu or uplink.interface.mtu, uplink.interface.mtu)
        self.overhead = _overhead(config)
        self.mtu = tunnel_mtu(underlay, self.overhead, self._networks)
        if settings.mtu and settings.mtu > uplink.interface.mtu:
            log.warning("Backend.MTU %d is over that of %s", settings.mtu, uplink.interface.name)
        self.claim_name = self.device_name(config.ranges[0].network.family)
        self.follows_underlay = settings.direct_routing
        self.nexthop_ids = nexthop_ids(settings.vni)
        self.tunnel_port = vxlan_port(settings.port, settings.vni)

    def device_name(self, family: int) -> str:
        """Return the name of the device that carries a family."""
        return f"{_DEVICE_NAMES[family]}.{self._settings.vni}"

    def publish(
        self, sock: NetlinkSocket, earlier: LeaseAttrs | None, random_bytes: Callable[[int], bytes]
    ) -> LeaseAttrs:
        """Return the attributes to publish: the VTEP keeps its MAC, by lease or by device, wherever it has one."""
        if not has_vxlan(sock):
            raise KernelError(95, "vxlan", "this kernel has none: modprobe vxlan, or choose another backend")
        data = {IPV4: earlier and earlier.backend_data, IPV6: earlier and earlier.backend_v6_data}
        for family in self._networks:
            there = read_link(sock, self.device_name(family))
            self._macs[family] = pick_mac(data[family], there.mac if there else None, random_bytes)
        return public_attrs(self._uplink, _TYPE)._replace(
            backend_data=self._encode_data(IPV4), backend_v6_data=self._encode_data(IPV6)
        )

    def renew_identity(self, attrs: LeaseAttrs, random_bytes: Callable[[int], bytes]) -> LeaseAttrs:
        """Return our attributes with MACs that no node has had."""
        self._macs = {family: make_mac(random_bytes) for family in self._networks}
        return attrs._replace(backend_data=self._encode_data(IPV4), backend_v6_data=self._encode_data(IPV6))

    def _encode_data(self, family: int) -> str | None:
        if family not in self._macs:
            return None
        return f'{{"VNI":{self._settings.vni & _PUBLISHED_VNI},"VtepMAC":"{self._macs[family].hex(":")}"}}'

    def devices(self, lease: Lease) -> dict[int, Device]:
        """Return flannel.<VNI>, and flannel-v6.<VNI> for IPv6, each with the base address of our subnet."""
        subnets = {IPV4: lease.subnet, IPV6: lease.ipv6_subnet}
        sources = {IPV4: self._uplink.source, IPV6: self._uplink.source_ipv6}
        devices: dict[int, Device] = {}
        for family in self._networks:
            subnet, source = subnets[family], sources[family]
            if subnet is None or source is None:
                continue
            options = vxlan_options(
                vni=self._settings.vni,
                port=self._settings.port,
                learning=self._settings.learning,
                group_policy=self._settings.group_policy,
                parent=self._uplink.interface.ifindex,
                source=source,
            )
            name, mac = self.device_name(family), self._macs[family]
            devices[family] = Device(
                name, "vxlan", mac, self.mtu, (host_prefix(subnet.base),), options, tunnel_settings(family, name)
            )
        return devices

    def read_peers(self, lease: Lease) -> tuple[Peer, ...]:
        """Return another node's lease as peers; raise ValueError saying why it is none."""
        if lease.attrs.backend_type != _TYPE:
            others = tuple(read_other_peers(lease, _TYPE, self._networks))
            self.follows_underlay |= bool(others)
            return others
        return tuple(
            Peer(subnet, public_ip, self._read_mac(data))
            for subnet, public_ip, data in read_families(lease, self._networks)
        )

    def _read_mac(self, data: str | None) -> bytes:
        vni, mac = read_vtep(data)
        if vni not in {self._settings.vni, self._settings.vni & _PUBLISHED_VNI}:
            raise RefusedError("other VNI", f"its VNI is {vni}, the network's is {self._settings.vni}")
        if mac in self._macs.values():
            raise RefusedError(OWN_MAC, f"its VtepMAC {mac.hex(':')} is this node's own")
        return mac

    def desired(self, peer: Peer, ground: Ground) -> tuple[Entry, ...]:
        """Return the kernel objects that lead to a peer: through the tunnel, or straight over the uplink.

        Raises UnreachableError.
        """
        if peer.direct_only:
            return self._routes.direct_only(peer, ground)
        direct = self._routes.direct(peer, ground) if self._settings.direct_routing else None
        if direct is not None:
            return direct
        subnet, public_ip, mac = peer[:3]
        family = subnet.family
        device = ground.devices[family]
        # IPv6 refuses a gateway that a route over another device covers, onlink or not, unless it is link-local
        # (net/ipv6/route.c, ip6_route_check_nh_onlink): the peer's own direct route, when it moves off our layer 2.
        gateway = subnet.address if family == IPV4 else link_local(mac)
        return (
            FdbEntry(device, mac, family, public_ip),
            Neighbour(device, family, gateway, mac),
            *self._routes.route(subnet, gateway, device, ground, onlink=family == IPV4),
        )


def read_vtep(data: str | None) -> tuple[int, bytes]:
    """Read `{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}` into VNI and MAC; raise ValueError saying what is wrong."""
    match = None if data is None else _CANONICAL_VTEP.fullmatch(data)
    if match is not None:
        return int(match[1]), parse_mac(match[2])
    try:
        value = None if data is None else json.loads(data)
    except RecursionError as error:
        raise ValueError("its BackendData is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it has no BackendData")  # noqa: TRY004 - bad data, not a caller's wrong type
    fields = fold_keys(value)
    vni, text = fields.get("vni"), fields.get("vtepmac")
    if not isinstance(vni, int) or isinstance(vni, bool):
        raise ValueError("its BackendData has no VNI")  # noqa: TRY004 - as above
    if not isinstance(text, str):
        raise ValueError("its BackendData has no VtepMAC")  # noqa: TRY004 - as above
    mac = parse_mac(text)
    return vni, mac


def parse_mac(text: str) -> bytes:
    """Read a unicast Ethernet address; raise ValueError if it is none, all zero or for many."""
    if _MAC.fullmatch(text) is None:
        raise ValueError(f"VtepMAC {text[:40]!r} is no Ethernet address")
    mac = bytes.fromhex(text.replace(":", ""))
    if not any(mac):
        raise ValueError("its VtepMAC is zero")
    if mac[0] & 1:
        raise ValueError(f"its VtepMAC {text} is a multicast address")
    return mac


def pick_mac(earlier: str | None, device: bytes | None, random_bytes: Callable[[int], bytes]) -> bytes:
    """Choose our VTEP's MAC: our earlier lease's, which the others know, else the device's, else a new one."""
    try:
        return read_vtep(earlier)[1]
    except ValueError:
        # Our earlier lease was another backend's, or is broken: it has no MAC that anyone could know.
        return device or make_mac(random_bytes)


def make_mac(random_bytes: Callable[[int], bytes]) -> bytes:
    """Return a new MAC for a VTEP."""
    first, *rest = random_bytes(6)
    # A locally administered unicast address (IEEE 802).
    return bytes((first & 0xFC | 0x02, *rest))


def link_local(mac: bytes) -> int:
    """Return the link-local address that an interface with this MAC gives itself (RFC 4291, appendix A)."""
    identifier = bytes((mac[0] ^ 0x02, mac[1], mac[2], 0xFF, 0xFE, *mac[3:]))
    return _LINK_LOCAL | int.from_bytes(identifier, "big")
