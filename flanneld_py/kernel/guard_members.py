"""The sets of the guard's table: who is admitted, by family and length of prefix, and how much came from whom.

Owns how the sets are named and made, and how their elements are laid out: a key of outer source and inner source's
prefix, and since Linux 5.7 a counter of what was looked up by it; older kernels pass over the wish for one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from flanneld_py.core.peer_traffic import PeerTraffic
from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import netlink, nf_expressions, nf_tables
from flanneld_py.kernel.nf_tables_socket import NfTables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.kernel.netlink import Message, Request

INET = nf_tables.NFPROTO_INET
TABLE_PREFIX = "flannel-guard-"
SIZES = {IPV4: 4, IPV6: 16}
"""Bytes of an address."""
_NFT_TYPES = {IPV4: 7, IPV6: 8}
_HEADS = {family: nf_tables.element_head(2 * size) for family, size in SIZES.items()}
_COUNTER_SIZE = 44
"""Bytes of an element's counter: an expression of a name, and data of two numbers of 64 bits."""
_NAME = "members"
_EMPTY = memoryview(b"")


def set_name(family: int, length: int) -> str:
    """Return the name of the set of those whose prefix has this length."""
    return f"{_NAME}{family}-{length}"


def new_members(table: str, family: int, length: int) -> Request:
    """Have a set of members, whose elements count."""
    key_type = _NFT_TYPES[family] << 6 | _NFT_TYPES[family]
    return nf_tables.new_set(INET, table, set_name(family, length), 2 * SIZES[family], key_type, counted=True)


def encode_member(family: int, outer: int, inner: int) -> bytes:
    """Write an element."""
    size = SIZES[family]
    return _HEADS[family] + outer.to_bytes(size, "big") + inner.to_bytes(size, "big")


def read_sets(opened: NfTables, table: str) -> set[tuple[int, int]]:
    """Return family and length of the sets that there are. Raises KernelError."""
    request = nf_tables.message(nf_tables.GETSET, INET, nf_tables.text(nf_tables.SET_TABLE, table))
    names = opened.dump(request, _decode_set_name)
    parts = [name.removeprefix(_NAME).partition("-") for name in names if name.startswith(_NAME)]
    return {(int(family), int(length)) for family, _, length in parts}


def read_members(opened: NfTables, table: str, family: int, length: int) -> Iterator[tuple[int, int]]:
    """Return outer source and inner prefix's address of all elements of a set. Raises KernelError."""
    for members in opened.dump(_encode_read(table, family, length), _LAYOUTS[family].decode):
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
                    member = family, _number(key[: SIZES[family]])
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
    """How a family's keys lie in a list of elements, when all are of one size: read at once then."""

    def __init__(self, family: int) -> None:
        self._size = size = SIZES[family]
        # Addresses of 4 bytes are read as numbers straight away.
        address = "I" if size == 4 else f"{size}s"
        key = 4 + 2 * size
        self._layouts = {}
        for behind in (0, _COUNTER_SIZE):
            whole = 8 + key + behind
            # The kernel marks neither the element nor its key as nested.
            head = struct.pack("=HHHHHH", whole, nf_tables.LIST_ELEMENT, key + 4, 1, key, 1)
            self._layouts[whole] = head, struct.Struct(f">12s{address}{address}{behind}x")

    def decode(self, message: Message) -> list[tuple[int, int]]:
        """Read the elements of a message as (outer, inner)."""
        listed = _decode_list(message)
        whole = netlink.decode_u16(listed) if listed else 0
        head, layout = self._layouts.get(whole, (b"", None))
        if layout is not None and len(listed) % whole == 0:
            parts = list(layout.iter_unpack(listed))
            if all(one == head for one, _, _ in parts):
                return [(_number(outer), _number(inner)) for _, outer, inner in parts]
        elements = netlink.walk_attributes(listed)
        return [self._split(_decode_key(netlink.decode_attributes(value))) for _, _, value in elements]

    def _split(self, key: bytes) -> tuple[int, int]:
        return _number(key[: self._size]), _number(key[self._size :])


def _number(value: int | bytes) -> int:
    return value if isinstance(value, int) else int.from_bytes(value, "big")


_LAYOUTS = {family: _Layout(family) for family in SIZES}
