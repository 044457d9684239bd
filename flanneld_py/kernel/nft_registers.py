"""The registers that expressions of nf_tables work in, for a packet that is only thought of, and sets of elements.

Source: include/uapi/linux/netfilter/nf_tables.h. What a sample packet has not, such as a route back to its sender, ends
a rule without effect, in favour of neither side.
"""

from __future__ import annotations

import operator
import socket
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import netlink, nf_expressions, nf_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld_py.core.sample_packet import SamplePacket
    from flanneld_py.kernel.netlink import Message
    from flanneld_py.kernel.nf_tables_socket import NfTables

_ETHERTYPES = {IPV4: b"\x08\x00", IPV6: b"\x86\xdd"}
_PROTOCOLS = {IPV4: nf_tables.NFPROTO_IPV4, IPV6: nf_tables.NFPROTO_IPV6}
_COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
"""By NFT_CMP_…."""
_WITHOUT_EFFECT = {"counter", "log", "limit", "quota", "notrack", "objref", "dynset", "last"}
_XTABLES_WITHOUT_EFFECT = {"comment", "LOG"}
_IFNAME = 16
_NFT_CT_STATE, _NEW = 0, 8
_SET_INTERVAL = 0x4
_INTERVAL_END, _CATCHALL = 0x1, 0x2


class Registers:
    """What a packet's expressions load and compare; numbered by 16 bytes (1 to 4) or by 4 (from 8 on)."""

    def __init__(self, packet: SamplePacket) -> None:
        self._bytes = bytearray(80)
        self._headers = {
            nf_expressions.NETWORK: packet.network_header(),
            nf_expressions.TRANSPORT: packet.transport_header(),
        }
        self._meta = _describe(packet)

    def at(self, register: int) -> bytes:
        """Return all from a register on."""
        return bytes(self._bytes[_start(register) :])

    def apply(self, name: str, attributes: Mapping[int, memoryview]) -> bool:
        """Carry out an expression; return whether the rule goes on."""
        match name:
            case "payload" if 1 in attributes:
                return self._load_payload(attributes)
            case "meta" if 1 in attributes:
                return self._put(attributes, self._meta.get(read_number(attributes, 2)))
            case "ct" if 1 in attributes:
                # Nothing is known of a connection but that it is new: no mark, no status.
                state = _NEW if read_number(attributes, 2) == _NFT_CT_STATE else 0
                return self._put(attributes, _own_order(state))
            case "immediate":
                return self._put(attributes, _value(attributes, 2))
            case "bitwise" if read_number(attributes, 6) == 0:
                return self._mask(attributes)
            case "cmp":
                value = _value(attributes, 3)
                compare = _COMPARISONS[read_number(attributes, 2)]
                return bool(compare(self.at(read_number(attributes, 1))[: len(value)], value))
            case "range":
                low, high = _value(attributes, 3), _value(attributes, 4)
                inside = low <= self.at(read_number(attributes, 1))[: len(low)] <= high
                return inside == (read_number(attributes, 2) == 0)
            case "match" | "target":
                return netlink.decode_text(attributes[1]) in _XTABLES_WITHOUT_EFFECT
        return name in _WITHOUT_EFFECT

    def _load_payload(self, attributes: Mapping[int, memoryview]) -> bool:
        header = self._headers.get(read_number(attributes, 2), b"")
        offset, length = read_number(attributes, 3), read_number(attributes, 4)
        return self._put(attributes, header[offset : offset + length] if offset + length <= len(header) else None)

    def _put(self, attributes: Mapping[int, memoryview], value: bytes | None) -> bool:
        if value is None:
            return False
        start = _start(read_number(attributes, 1))
        # A register is written by whole words.
        padded = value + bytes(-len(value) % 4)
        self._bytes[start : start + len(padded)] = padded
        return True

    def _mask(self, attributes: Mapping[int, memoryview]) -> bool:
        have = self.at(read_number(attributes, 1))
        bits = zip(have, _value(attributes, 4), _value(attributes, 5), strict=False)
        return self._put({1: attributes[2]}, bytes(one & taken ^ flipped for one, taken, flipped in bits))


class Element(NamedTuple):
    """An element of a set: a key, or the first of a range, whose end is `last` or the next element with that flag."""

    key: bytes
    last: bytes
    flags: int
    verdict: memoryview | None


class Elements:
    """What is in a set."""

    def __init__(self, opened: NfTables, family: int, table: str, name: str) -> None:
        """Read it. Raises KernelError."""
        named = (nf_tables.text(nf_tables.SET_TABLE, table), nf_tables.text(nf_tables.SET_NAME, name))
        answer = opened.read(nf_tables.message(nf_tables.GETSET, family, *named))
        told = {} if answer is None else netlink.decode_attributes(answer.payload, nf_tables.GENERIC.size)
        self._has_intervals = bool(read_number(told, 3) & _SET_INTERVAL)
        # ELEMENTS_TABLE and ELEMENTS_SET are numbered the same.
        parts = opened.dump(nf_tables.message(nf_tables.GETSETELEM, family, *named), _decode_elements)
        self._elements = sorted((one for part in parts for one in part), key=lambda one: (one.key, -one.flags))

    def find(self, found: bytes) -> Element | None:
        """Return the element that holds what is found in registers; of these the key is the beginning."""
        below = None
        for element in self._elements:
            key = found[: len(element.key)]
            if element.flags & _CATCHALL:
                continue
            if element.last:
                if _lies_between(element, key):
                    return element
            elif element.key == key and not self._has_intervals:
                return element
            elif element.key <= key and self._has_intervals:
                below = element
        if below is not None and not below.flags & _INTERVAL_END:
            return below
        return next((element for element in self._elements if element.flags & _CATCHALL), None)


def read_number(attributes: Mapping[int, memoryview], kind: int) -> int:
    """Read a number, 0 where there is none."""
    return int.from_bytes(attributes.get(kind, b""), "big")


def _lies_between(element: Element, key: bytes) -> bool:
    """Say so of each 4 bytes for itself, as of the fields of a concatenation; ranges of longer ones are prefixes."""
    parts = (slice(start, start + 4) for start in range(0, len(key), 4))
    return all(element.key[part] <= key[part] <= element.last[part] for part in parts)


def _value(attributes: Mapping[int, memoryview], kind: int) -> bytes:
    return bytes(netlink.decode_attributes(attributes[kind]).get(1, b"")) if kind in attributes else b""


def _decode_elements(message: Message) -> list[Element]:
    listed = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size).get(nf_tables.ELEMENTS_LIST)
    found = []
    for _, _, value in netlink.walk_attributes(listed or memoryview(b"")):
        element = netlink.decode_attributes(value)
        # NFTA_SET_ELEM_: KEY 1, DATA 2, FLAGS 3, KEY_END 10.
        found.append(Element(_value(element, 1), _value(element, 10), read_number(element, 3), element.get(2)))
    return found


def _start(register: int) -> int:
    return 16 * register if register < 8 else 16 + 4 * (register - 8)


def _own_order(value: int) -> bytes:
    return netlink.encode_u32(0, value)[4:]


def _describe(packet: SamplePacket) -> dict[int, bytes]:
    """Return what `meta` knows, by NFT_META_…."""
    return {
        1: _ETHERTYPES[packet.family],
        nf_expressions.META_MARK: bytes(4),
        4: _index_of(packet.incoming),
        5: _index_of(packet.outgoing),
        6: packet.incoming.encode().ljust(_IFNAME, b"\0"),
        7: packet.outgoing.encode().ljust(_IFNAME, b"\0"),
        nf_expressions.META_NFPROTO: bytes((_PROTOCOLS[packet.family],)),
        nf_expressions.META_L4PROTO: bytes((packet.protocol,)),
        19: b"\0",
    }


def _index_of(device: str) -> bytes:
    try:
        return _own_order(socket.if_nametoindex(device))
    except OSError:
        return bytes(4)
