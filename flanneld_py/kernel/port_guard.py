"""A guard on a device: what comes in over it may bear a certain MAC and certain addresses only.

It is a base chain of nftables in the family netdev, hooked to the device's ingress (include/uapi/linux/netfilter/
nf_tables.h), named after the device. The few messages that it takes are written here: no nft, and no library for it,
need be installed.
"""

from __future__ import annotations

import _socket
import os
import struct

from flanneld_py.core.errors import KernelError
from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel.families import encode_address
from flanneld_py.kernel.netlink import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "flannel-pods"

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 16, 17
_SUBSYSTEM = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE = (
    _SUBSYSTEM << 8 | number for number in (0, 2, 3, 4, 5, 6)
)
_NFPROTO_NETDEV = 5
_NF_DROP, _NF_ACCEPT = 0, 1
_PRIORITY = -300
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_META_L4PROTO = 16
_REGISTER = 1

_ETHERTYPES = {IPV4: b"\x08\x00", IPV6: b"\x86\xdd"}
_ARP = b"\x08\x06"
_SOURCE_OFFSETS = {IPV4: 12, IPV6: 8}
_ARP_SENDER_OFFSET = 8
_LINK_LOCAL = b"\xfe\x80" + bytes(6)
_UNSPECIFIED = bytes(16)
_NO_ADDRESS_YET = bytes(4)
_ICMPV6 = b"\x3a"
_ROUTER_ADVERTISEMENT = b"\x86"

_GENERIC = struct.Struct(">BBH")
_SIZE = 1 << 16
_PATIENCE = struct.pack("@ll", 10, 0)


def ensure_guard(device: str, mac: bytes, addresses: Iterable[tuple[int, int]] | None) -> None:
    """Drop what comes in over a device with another MAC, and unless `addresses` is None, with another source address.

    Beside the addresses, as (family, value), the unspecified and link-local ones that IPv6 and ARP need to find them
    may be used; router advertisements and everything that is neither IP nor ARP is dropped. Raises KernelError.
    """
    rules = [_rule(device, _load(_LINK, 6, 6), _compare(mac, equal=False), verdict=_NF_DROP)]
    if addresses is not None:
        rules += _address_rules(device, mac, addresses)
        rules.append(_rule(device, verdict=_NF_DROP))
    _execute(
        [
            _message(_NEWTABLE, netlink.encode_text(1, TABLE)),
            _message(_NEWCHAIN, *_chain_name(device), _hook(device), _number(5, _NF_ACCEPT), _text(7, "filter")),
            *rules,
        ],
        f"guard {device}",
    )


def has_guard(device: str) -> bool:
    """Say whether a device is guarded. Raises KernelError."""
    request = Request(_GETCHAIN, 0, _GENERIC.pack(_NFPROTO_NETDEV, 0, 0) + b"".join(_chain_name(device)))
    with _Opened() as opened:
        opened.send(netlink.encode_request(request, 1))
        for message in netlink.decode_messages(memoryview(opened.recv(_SIZE))):
            if message.kind == netlink.NLMSG_ERROR:
                return False
    return True


def read_guarded() -> frozenset[str]:
    """Return the names of all devices that are guarded, or were until they went. Raises KernelError."""
    request = Request(_GETCHAIN, 0, _GENERIC.pack(_NFPROTO_NETDEV, 0, 0))
    found: set[str] = set()
    with _Opened() as opened:
        opened.send(netlink.encode_request(request, 1, netlink.NLM_F_DUMP))
        while True:
            for message in netlink.decode_messages(memoryview(opened.recv(_SIZE))):
                if message.kind in {netlink.NLMSG_DONE, netlink.NLMSG_ERROR}:
                    return frozenset(found)
                attributes = netlink.decode_attributes(message.payload, _GENERIC.size)
                if netlink.decode_text(attributes[1]) == TABLE:
                    found.add(netlink.decode_text(attributes[3]))


def drop_guard(device: str) -> None:
    """Take the guard of a device away; having none is no error. Raises KernelError."""
    try:
        _execute([_message(_DELCHAIN, *_chain_name(device))], f"take the guard of {device} away")
    except KernelError as error:
        if not errnos.is_absent(error):
            raise


def drop_all_guards() -> None:
    """Take the guards of all devices away; having none is no error. Raises KernelError."""
    try:
        _execute([_message(_DELTABLE, netlink.encode_text(1, TABLE))], "take all guards away")
    except KernelError as error:
        if not errnos.is_absent(error):
            raise


def _address_rules(device: str, mac: bytes, addresses: Iterable[tuple[int, int]]) -> list[Request]:
    advertises = (
        _load_meta(_META_L4PROTO),
        _compare(_ICMPV6),
        _load(_TRANSPORT, 0, 1),
        _compare(_ROUTER_ADVERTISEMENT),
    )
    is_ipv6 = _is_ethertype(_ETHERTYPES[IPV6])
    rules = [
        _rule(device, *is_ipv6, *advertises, verdict=_NF_DROP),
        _rule(device, *is_ipv6, _load(_NETWORK, 8, 8), _compare(_LINK_LOCAL)),
        _rule(device, *is_ipv6, _load(_NETWORK, 8, 16), _compare(_UNSPECIFIED)),
        _rule(device, *_is_arp_from(mac, _NO_ADDRESS_YET)),
    ]
    for family, value in addresses:
        source = encode_address(family, value)
        load = _load(_NETWORK, _SOURCE_OFFSETS[family], len(source))
        rules.append(_rule(device, *_is_ethertype(_ETHERTYPES[family]), load, _compare(source)))
        if family == IPV4:
            rules.append(_rule(device, *_is_arp_from(mac, source)))
    return rules


def _is_ethertype(value: bytes) -> tuple[bytes, bytes]:
    # A frame with a VLAN tag reads as 0x8100 here, whether the tag is in it or beside it.
    return _load(_LINK, 12, 2), _compare(value)


def _is_arp_from(mac: bytes, address: bytes) -> tuple[bytes, ...]:
    return *_is_ethertype(_ARP), _load(_NETWORK, _ARP_SENDER_OFFSET, 10), _compare(mac + address)


def _rule(device: str, *expressions: bytes, verdict: int = _NF_ACCEPT) -> Request:
    code = netlink.encode_nested(2, netlink.encode_nested(2, _number(1, verdict)))
    listed = netlink.encode_nested(4, *expressions, _expression("immediate", _number(1, 0), code))
    return _message(_NEWRULE, _text(1, TABLE), _text(2, device), listed, flags=netlink.NLM_F_APPEND)


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, length))


def _load_meta(key: int) -> bytes:
    return _expression("meta", _number(1, _REGISTER), _number(2, key))


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    data = netlink.encode_nested(3, netlink.encode_attribute(1, value))
    return _expression("cmp", _number(1, _REGISTER), _number(2, 0 if equal else 1), data)


def _expression(name: str, *attributes: bytes) -> bytes:
    return netlink.encode_nested(1, _text(1, name), netlink.encode_nested(2, *attributes))


def _chain_name(device: str) -> tuple[bytes, bytes]:
    return _text(1, TABLE), _text(3, device)


def _hook(device: str) -> bytes:
    return netlink.encode_nested(4, _number(1, 0), _number(2, _PRIORITY & 0xFFFFFFFF), _text(3, device))


def _text(kind: int, text: str) -> bytes:
    return netlink.encode_text(kind, text)


def _number(kind: int, value: int) -> bytes:
    return netlink.encode_attribute(kind, value.to_bytes(4, "big"))


def _message(kind: int, *attributes: bytes, flags: int = 0) -> Request:
    payload = _GENERIC.pack(_NFPROTO_NETDEV, 0, 0) + b"".join(attributes)
    return Request(kind, netlink.NLM_F_CREATE | flags, payload)


def _execute(requests: list[Request], operation: str) -> None:
    """Carry out all requests or none, as nftables does with a batch; the answer to the last tells how it went."""
    mark = _GENERIC.pack(0, 0, _SUBSYSTEM)
    batch = [Request(_BATCH_BEGIN, 0, mark), *requests, Request(_BATCH_END, 0, mark)]
    last = len(batch) - 2
    data = b"".join(
        netlink.encode_request(request, index, netlink.NLM_F_ACK if index == last else 0)
        for index, request in enumerate(batch)
    )
    with _Opened() as opened:
        opened.send(data)
        for message in netlink.decode_messages(memoryview(opened.recv(_SIZE))):
            errno, text = netlink.decode_error(message)
            if errno:
                raise KernelError(errno, operation, text or os.strerror(errno))


class _Opened:
    """A socket for the time of one request."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)

    def __enter__(self) -> _socket.socket:
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _PATIENCE)
        self._socket.bind((0, 0))
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()
