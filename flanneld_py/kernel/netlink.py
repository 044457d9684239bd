"""The netlink codec: messages and attributes as bytes, both ways.

Owns the framing (include/uapi/linux/netlink.h) and nothing about what a message means; the modules named after kernel
objects (link, route, neighbour …) own that. It imports next to nothing, because the CNI plugin pays for every import.
"""

from __future__ import annotations

import struct

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP_FILTERED = 0x20
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")

HEADER_SIZE = 16
"""Bytes of a message before its payload."""
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Request(NamedTuple):
    """A message to the kernel without length, sequence and port, which the socket fills in.

    `payload` is the family's fixed header and the attributes.
    """

    kind: int
    flags: int
    payload: bytes


class Message(NamedTuple):
    """A message from the kernel."""

    kind: int
    flags: int
    sequence: int
    port: int
    payload: memoryview


def encode_request(request: Request, sequence: int, extra_flags: int = 0) -> bytes:
    """Write the message; every payload is a multiple of 4 bytes long already."""
    kind, flags, payload = request
    header = _HEADER.pack(HEADER_SIZE + len(payload), kind, flags | extra_flags | NLM_F_REQUEST, sequence, 0)
    return header + payload


def encode_batch(requests: Iterable[Request], first: int, acknowledged: int) -> bytes:
    """Write messages in one piece, numbered from `first`; the kernel is to acknowledge the one of this index."""
    size, pack = HEADER_SIZE, _HEADER.pack
    parts: list[bytes] = []
    for sequence, (kind, flags, payload) in enumerate(requests, first):
        ack = NLM_F_ACK if sequence == first + acknowledged else 0
        parts += (pack(size + len(payload), kind, flags | ack | NLM_F_REQUEST, sequence, 0), payload)
    return b"".join(parts)


def walk(data: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Go through what one read returned: offset, type, flags and sequence number of each message."""
    offset, end = 0, len(data)
    while offset + HEADER_SIZE <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < HEADER_SIZE or offset + length > end:
            return
        yield offset, kind, flags, sequence
        offset += length + (-length & 3)


def columns_alike(
    data: memoryview, layout: struct.Struct, kind: int, sequence: int, alike: Sequence[bytes | None]
) -> list[tuple[Any, ...]] | None:
    """Return the fields in which the messages of one read of a dump differ, each from all messages; None if others do.

    `layout` cuts a whole message: how it begins, up to the port, then its fields. `alike` has for each field what it is
    in all messages, None for those that may differ.
    """
    size = layout.size
    count, rest = divmod(len(data), size)
    if rest:
        return None
    flags = _HEADER.unpack_from(data)[2] & NLM_F_DUMP_FILTERED | NLM_F_MULTI
    heads, *columns = zip(*layout.iter_unpack(data), strict=True)
    if heads.count(_HEADER.pack(size, kind, flags, sequence, 0)[:12]) != count:
        return None
    pairs = list(zip(columns, alike, strict=True))
    if any(same is not None and column.count(same) != count for column, same in pairs):
        return None
    return [column for column, same in pairs if same is None]


def message_at(data: memoryview, offset: int) -> Message:
    """Return the message at an offset that `walk` gave."""
    length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
    return Message(kind, flags, sequence, port, data[offset + HEADER_SIZE : offset + length])


def decode_messages(data: memoryview) -> Iterator[Message]:
    """Split what one read returned into messages."""
    for offset, *_ in walk(data):
        yield message_at(data, offset)


def decode_error(message: Message) -> tuple[int, str]:
    """Read an NLMSG_ERROR: the errno (0 for an acknowledgement) and the kernel's own words, if it has any."""
    errno = -_ERRNO.unpack_from(message.payload)[0]
    if not errno or not message.flags & NLM_F_ACK_TLVS:
        return errno, ""
    # struct nlmsgerr: errno, then the header of the request, then its payload unless the answer is capped.
    request_size = HEADER_SIZE
    if not message.flags & NLM_F_CAPPED:
        request_size = _U32.unpack_from(message.payload, 4)[0]
    text = decode_attributes(message.payload, 4 + request_size + (-request_size & 3)).get(NLMSGERR_ATTR_MSG)
    return errno, "" if text is None else decode_text(text)


def encode_attribute(kind: int, payload: bytes) -> bytes:
    """Write one attribute, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + _PADDING[len(payload) & 3]


def encode_nested(kind: int, *attributes: bytes) -> bytes:
    """Write an attribute that holds attributes."""
    return encode_attribute(kind | NLA_F_NESTED, b"".join(attributes))


def encode_text(kind: int, text: str) -> bytes:
    """Write a string attribute, ended by a NUL."""
    return encode_attribute(kind, text.encode() + b"\0")


def encode_u8(kind: int, value: int) -> bytes:
    """Write an 8-bit attribute."""
    return encode_attribute(kind, bytes((value,)))


def encode_u16(kind: int, value: int) -> bytes:
    """Write a 16-bit attribute in the machine's byte order."""
    return encode_attribute(kind, _U16.pack(value))


def encode_u32(kind: int, value: int) -> bytes:
    """Write a 32-bit attribute in the machine's byte order."""
    return encode_attribute(kind, _U32.pack(value))


def decode_attributes(data: memoryview, offset: int = 0) -> dict[int, memoryview]:
    """Read the attributes from `offset` on; a broken rest is left out."""
    found: dict[int, memoryview] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def walk_attributes(data: memoryview) -> Iterator[tuple[int, bool, memoryview]]:
    """Go through attributes of which several may be of one kind: kind, whether it is marked as nested, and payload."""
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & _NLA_TYPE_MASK, bool(kind & NLA_F_NESTED), data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def decode_text(value: memoryview) -> str:
    """Read a string attribute."""
    return bytes(value).rstrip(b"\0").decode(errors="replace")


def decode_u16(value: memoryview) -> int:
    """Read a 16-bit attribute in the machine's byte order."""
    return int(_U16.unpack_from(value)[0])


def decode_u32(value: memoryview) -> int:
    """Read a 32-bit attribute in the machine's byte order."""
    return int(_U32.unpack_from(value)[0])
