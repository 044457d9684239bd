"""The sets of the guard's table: who is admitted, by family and length of prefix, and how much came from whom.

Owns how the sets are named and made, and how their elements are laid out: a key of outer source and inner source's
prefix, and since Linux 5.7 a counter of what was looked up by it; older kernels pass over the wish for one.

The prefix of an IPv4 subnet lies in the key in two pieces, each of up to two bytes at the beginning of a word of four.
From an even place of a packet, where all addresses in tunnels are, the kernel loads one or two bytes by its fast way,
but not four (nft_payload_fast_eval in net/netfilter/nf_tables_core.c); and what is not loaded need not be masked. A
whole address is one piece, and so is an IPv6 prefix, which would be many.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from flanneld_py.core.peer_traffic import PeerTraffic
from flanneld_py.core.prefix import IPV4, IPV6, bits
from flanneld_py.kernel import netlink, nf_expressions, nf_tables
from flanneld_py.kernel.nf_tables_socket import NfTables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld_py.kernel.netlink import Message, Request

INET = nf_tables.NFPROTO_INET
TABLE_PREFIX = "flannel-guard-"
SIZES = {IPV4: 4, IPV6: 16}
"""Bytes of an address."""
_NFT_TYPES = {IPV4: 7, IPV6: 8}
"""What nft shows each part of a key as: an address, or one that begins with it."""
_COUNTER_SIZE = 44
"""Bytes of an element's counter: an expression of a name, and data of two numbers of 64 bits."""
_NAME = "members"
_EMPTY = memoryview(b"")


def set_name(family: int, length: int) -> str:
    """Return the name of the set of those whose prefix has this length."""
    return f"{_NAME}{family}-{length}"


def pieces(family: int, length: int) -> tuple[int, ...]:
    """Return the sizes in bytes of the pieces that a prefix of this length lies in a key in."""
    if family == IPV6 or length == bits(family):
        return (SIZES[family],)
    return 2, 1 if length <= 24 else 2


def new_members(table: str, family: int, length: int) -> Request:
    """Have a set of members, whose elements count."""
    key_type = _NFT_TYPES[family]
    for _ in pieces(family, length):
        key_type = key_type << 6 | _NFT_TYPES[family]
    key_size = _layout(family, length).key.size
    return nf_tables.new_set(INET, table, set_name(family, length), key_size, key_type, counted=True)


def encode_members(family: int, length: int, members: Iterable[tuple[int, int]]) -> list[bytes]:
    """Write elements of outer source and inner prefix's address."""
    encode = _layout(family, length).encode
    return [encode(outer, inner) for outer, inner in members]


def read_sets(opened: NfTables, table: str) -> set[tuple[int, int]]:
    """Return family and length of the sets that there are. Raises KernelError."""
    request = nf_tables.message(nf_tables.GETSET, INET, nf_tables.text(nf_tables.SET_TABLE, table))
    names = opened.dump(request, _decode_set_name)
    parts = [name.removeprefix(_NAME).partition("-") for name in names if name.startswith(_NAME)]
    return {(int(family), int(length)) for family, _, length in parts}


def read_members(opened: NfTables, table: str, family: int, length: int) -> Iterator[tuple[int, int]]:
    """Return outer source and inner prefix's address of all elements of a set. Raises KernelError."""
    for members in opened.dump(_encode_read(table, family, length), _layout(family, length).decode):
        yield from members


def read_received(name: str) -> dict[tuple[int, int], PeerTraffic]:
    """Return what a tunnel's guard has let in, by family and address of the member that sent it. Raises KernelError.

    Counted since the member was admitted, while the guard was armed: with the tunnel's headers, and as packets are when
    the kernel has put together what belongs together. Empty where nothing counts.
    """
    table = TABLE_PREFIX + name
    totals: dict[tuple[int, int], tuple[int, int]] = {}
    with NfTables() as opened:
        for family, length in read_sets(opened, table):
            for elements in opened.dump(_encode_read(table, family, length), _decode_received):
                for key, packets, size in elements:
                    member = family, int.from_bytes(key[: SIZES[family]], "big")
                    before = totals.get(member, (0, 0))
                    totals[member] = before[0] + size, before[1] + packets
    return {member: PeerTraffic(*total) for member, total in totals.items()}


def _encode_read(table: str, family: int, length: int) -> Request:
    named = nf_tables.text(nf_tables.ELEMENTS_TABLE, table)
    return nf_tables.message(
        nf_tables.GETSETELEM, INET, named, nf_tables.text(nf_tables.ELEMENTS_SET, set_name(family, length))
    )


def _decode_set_name(message: Message) -> str:
    attributes = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size)
    return netlink.decode_text(attributes[nf_tables.SET_NAME])


def _decode_received(message: Message) -> list[tuple[bytes, int, int]]:
    """Read the elements of a message that count as key, packets and bytes."""
    found = []
    for _, _, value in netlink.walk_attributes(_decode_list(message)):
        parts = netlink.decode_attributes(value)
        counter = parts.get(nf_tables.ELEMENT_EXPRESSION)
        counted = None if counter is None else nf_expressions.decode_counter(counter)
        if counted is not None:
            found.append((_decode_key(parts), *counted))
    return found


def _decode_list(message: Message) -> memoryview:
    return netlink.decode_attributes(message.payload, nf_tables.GENERIC.size).get(nf_tables.ELEMENTS_LIST, _EMPTY)


def _decode_key(element: dict[int, memoryview]) -> bytes:
    return bytes(netlink.decode_attributes(element[1])[1])


class _Layout:
    """How elements are laid out whose keys are two addresses; a list of such that are of one size is read at once."""

    _key_format = "II"

    def __init__(self) -> None:
        self.key = struct.Struct(f">{self._key_format}")
        self._element_head = nf_tables.element_head(self.key.size)
        self._layouts = {}
        for behind in (0, _COUNTER_SIZE):
            whole = 12 + self.key.size + behind
            # The kernel marks neither the element nor its key as nested.
            head = struct.pack("=HHHHHH", whole, nf_tables.LIST_ELEMENT, self.key.size + 8, 1, self.key.size + 4, 1)
            self._layouts[whole] = head, struct.Struct(f">12s{self._key_format}{behind}x")

    def encode(self, outer: int, inner: int) -> bytes:
        """Write an element."""
        return self._element_head + self.key.pack(outer, inner)

    def decode(self, message: Message) -> list[tuple[int, int]]:
        """Read the elements of a message as (outer, inner)."""
        listed = _decode_list(message)
        whole = netlink.decode_u16(listed) if listed else 0
        head, layout = self._layouts.get(whole, (b"", None))
        if layout is not None and len(listed) % whole == 0:
            rows = list(layout.iter_unpack(listed))
            if all(row[0] == head for row in rows):
                return self._join(rows)
        elements = netlink.walk_attributes(listed)
        keys = [_decode_key(netlink.decode_attributes(value)) for _, _, value in elements]
        return self._join([(b"", *self.key.unpack(key)) for key in keys])

    def _join(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, int]]:
        """Make addresses of what follows the head of each element."""
        return [(outer, inner) for _, outer, inner in rows]


class _PiecesLayout(_Layout):
    """Keys whose second address is one in two pieces."""

    _key_format = "IH2xH2x"

    def encode(self, outer: int, inner: int) -> bytes:
        return self._element_head + self.key.pack(outer, inner >> 16, inner & 0xFFFF)

    def _join(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, int]]:
        return [(outer, high << 16 | low) for _, outer, high, low in rows]


class _LongLayout(_Layout):
    """Keys whose addresses are longer than what is read as a number straight away."""

    _key_format = "16s16s"

    def encode(self, outer: int, inner: int) -> bytes:
        return self._element_head + outer.to_bytes(16, "big") + inner.to_bytes(16, "big")

    def _join(self, rows: list[tuple[Any, ...]]) -> list[tuple[int, int]]:
        return [(int.from_bytes(outer, "big"), int.from_bytes(inner, "big")) for _, outer, inner in rows]


_LAYOUTS = {IPV4: _Layout(), IPV6: _LongLayout()}
_PIECES_LAYOUT = _PiecesLayout()


def _layout(family: int, length: int) -> _Layout:
    return _LAYOUTS[family] if len(pieces(family, length)) == 1 else _PIECES_LAYOUT
