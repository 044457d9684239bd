"""WireGuard in the kernel, since Linux 5.6 (include/uapi/linux/wireguard.h), by generic netlink (genetlink.h)."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, Prefix, bits
from flanneld_py.core.wireguard import NO_KEY, Endpoint, WireguardPeer, WireguardState
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel.families import AF_OF, FAMILY_OF, encode_address
from flanneld_py.kernel.netlink import Message, Request
from flanneld_py.kernel.netlink_socket import NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flanneld_py.core.wireguard import DeviceChange, PeerChange

KIND = "wireguard"
NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

WG_CMD_GET_DEVICE = 0
WG_CMD_SET_DEVICE = 1
WGDEVICE_A_IFNAME = 2
WGDEVICE_A_PRIVATE_KEY = 3
WGDEVICE_A_LISTEN_PORT = 6
WGDEVICE_A_PEERS = 8
WGPEER_A_PUBLIC_KEY = 1
WGPEER_A_PRESHARED_KEY = 2
WGPEER_A_FLAGS = 3
WGPEER_A_ENDPOINT = 4
WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL = 5
WGPEER_A_RX_BYTES = 7
WGPEER_A_TX_BYTES = 8
WGPEER_A_ALLOWEDIPS = 9
WGPEER_F_REMOVE_ME = 1
WGPEER_F_REPLACE_ALLOWEDIPS = 2
WGALLOWEDIP_A_FAMILY = 1
WGALLOWEDIP_A_IPADDR = 2
WGALLOWEDIP_A_CIDR_MASK = 3

_GENL_HEADER = struct.Struct("=BBxx")
_VERSION = 1
_EMPTY = memoryview(b"")


def has_wireguard() -> bool:
    """Say whether this kernel has WireGuard; asking loads the module."""
    with NetlinkSocket(NETLINK_GENERIC) as sock:
        return _find_family(sock) is not None


def _find_family(sock: NetlinkSocket) -> int | None:
    payload = _GENL_HEADER.pack(CTRL_CMD_GETFAMILY, _VERSION) + netlink.encode_text(CTRL_ATTR_FAMILY_NAME, KIND)
    try:
        found = sock.query(Request(GENL_ID_CTRL, 0, payload), "find WireGuard")
    except KernelError as error:
        if errnos.is_absent(error) or errnos.is_unsupported(error):
            return None
        raise
    return netlink.decode_u16(netlink.decode_attributes(found.payload, _GENL_HEADER.size)[CTRL_ATTR_FAMILY_ID])


class NetlinkControl:
    """Reads and changes one device of the kernel's."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self) -> WireguardState:
        """Return what the device holds. Raises KernelError."""
        with NetlinkSocket(NETLINK_GENERIC) as sock:
            request = encode_read(self._family(sock), self._name)
            return decode_state(sock.dump(request, lambda message: message, f"read {self._name}"))

    def change(self, change: DeviceChange) -> None:
        """Change the device; it may be half done when this raises KernelError."""
        with NetlinkSocket(NETLINK_GENERIC) as sock:
            sock.execute(encode_change(self._family(sock), self._name, change), f"change {self._name}")

    def _family(self, sock: NetlinkSocket) -> int:
        family = _find_family(sock)
        if family is None:
            raise KernelError(95, f"change {self._name}", "this kernel has no WireGuard any more")
        return family


def encode_read(family: int, name: str) -> Request:
    """Write the request for all of a device."""
    payload = _GENL_HEADER.pack(WG_CMD_GET_DEVICE, _VERSION) + netlink.encode_text(WGDEVICE_A_IFNAME, name)
    return Request(family, 0, payload)


def encode_change(family: int, name: str, change: DeviceChange) -> Request:
    """Write the request that changes a device."""
    parts = [_GENL_HEADER.pack(WG_CMD_SET_DEVICE, _VERSION), netlink.encode_text(WGDEVICE_A_IFNAME, name)]
    if change.private_key is not None:
        parts.append(netlink.encode_attribute(WGDEVICE_A_PRIVATE_KEY, change.private_key))
    if change.port is not None:
        parts.append(netlink.encode_u16(WGDEVICE_A_LISTEN_PORT, change.port))
    if change.peers:
        peers = (netlink.encode_nested(0, *_encode_peer(peer)) for peer in change.peers)
        parts.append(netlink.encode_nested(WGDEVICE_A_PEERS, *peers))
    return Request(family, 0, b"".join(parts))


def _encode_peer(peer: PeerChange) -> Iterable[bytes]:
    yield netlink.encode_attribute(WGPEER_A_PUBLIC_KEY, peer.public_key)
    if peer.remove:
        yield netlink.encode_u32(WGPEER_A_FLAGS, WGPEER_F_REMOVE_ME)
        return
    if peer.replace_allowed:
        yield netlink.encode_u32(WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS)
    if peer.preshared_key is not None:
        yield netlink.encode_attribute(WGPEER_A_PRESHARED_KEY, peer.preshared_key)
    if peer.endpoint is not None:
        yield netlink.encode_attribute(WGPEER_A_ENDPOINT, encode_sockaddr(peer.endpoint))
    if peer.keepalive is not None:
        yield netlink.encode_u16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, peer.keepalive)
    allowed = (netlink.encode_nested(0, *_encode_prefix(prefix)) for prefix in peer.allowed)
    yield netlink.encode_nested(WGPEER_A_ALLOWEDIPS, *allowed)


def _encode_prefix(prefix: Prefix) -> Iterable[bytes]:
    yield netlink.encode_u16(WGALLOWEDIP_A_FAMILY, AF_OF[prefix.family])
    yield netlink.encode_attribute(WGALLOWEDIP_A_IPADDR, encode_address(prefix.family, prefix.address))
    yield netlink.encode_u8(WGALLOWEDIP_A_CIDR_MASK, prefix.length)


def encode_sockaddr(endpoint: Endpoint) -> bytes:
    """Write struct sockaddr_in or sockaddr_in6."""
    address = encode_address(endpoint.family, endpoint.address)
    head = struct.pack("=H", AF_OF[endpoint.family]) + endpoint.port.to_bytes(2, "big")
    return head + address + bytes(8) if endpoint.family == IPV4 else head + bytes(4) + address + bytes(4)


def decode_sockaddr(data: memoryview) -> Endpoint | None:
    """Read struct sockaddr_in or sockaddr_in6; None for another."""
    family = FAMILY_OF.get(struct.unpack_from("=H", data)[0])
    if family is None:
        return None
    start, size = (4, 4) if family == IPV4 else (8, 16)
    return Endpoint(family, int.from_bytes(data[start : start + size], "big"), int.from_bytes(data[2:4], "big"))


def decode_state(messages: Iterable[Message]) -> WireguardState:
    """Put together a device from the messages of a dump; a peer with many prefixes may go on in the next one."""
    private_key, port = NO_KEY, 0
    peers: dict[bytes, WireguardPeer] = {}
    for message in messages:
        found = netlink.decode_attributes(message.payload, _GENL_HEADER.size)
        private_key = bytes(found.get(WGDEVICE_A_PRIVATE_KEY, private_key))
        if WGDEVICE_A_LISTEN_PORT in found:
            port = netlink.decode_u16(found[WGDEVICE_A_LISTEN_PORT])
        for _, _, data in netlink.walk_attributes(found.get(WGDEVICE_A_PEERS, _EMPTY)):
            peer = _decode_peer(netlink.decode_attributes(data))
            before = peers.get(peer.public_key)
            peers[peer.public_key] = peer if before is None else before._replace(allowed=before.allowed + peer.allowed)
    return WireguardState(private_key, port, tuple(peers.values()))


def _decode_peer(found: dict[int, memoryview]) -> WireguardPeer:
    endpoint = found.get(WGPEER_A_ENDPOINT)
    keepalive = found.get(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL)
    allowed = netlink.walk_attributes(found.get(WGPEER_A_ALLOWEDIPS, _EMPTY))
    return WireguardPeer(
        bytes(found[WGPEER_A_PUBLIC_KEY]),
        bytes(found.get(WGPEER_A_PRESHARED_KEY, NO_KEY)),
        None if endpoint is None else decode_sockaddr(endpoint),
        0 if keepalive is None else netlink.decode_u16(keepalive),
        tuple(_decode_prefix(netlink.decode_attributes(data)) for _, _, data in allowed),
        *(_decode_bytes(found.get(kind, _EMPTY)) for kind in (WGPEER_A_RX_BYTES, WGPEER_A_TX_BYTES)),
    )


def _decode_bytes(value: memoryview) -> int:
    # 64 bits in the machine's byte order; no bytes are 0.
    return int.from_bytes(value, sys.byteorder)


def _decode_prefix(found: dict[int, memoryview]) -> Prefix:
    family = FAMILY_OF[netlink.decode_u16(found[WGALLOWEDIP_A_FAMILY])]
    address = int.from_bytes(found[WGALLOWEDIP_A_IPADDR][: bits(family) // 8], "big")
    return Prefix(family, address, found[WGALLOWEDIP_A_CIDR_MASK][0])
