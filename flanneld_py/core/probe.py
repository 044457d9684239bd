"""The messages that daemons measure the ways between nodes by, as bytes in UDP.

A request is a header and padding, as long as the packet that is to be tried; its answer is the header alone, and so
never larger. A request for a row asks for what the other node has measured itself; the answer has as many peers of the
row as fit into the length of the request. A token is random: nobody answers a request who has not seen it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6, Prefix, bits, host_mask
from flanneld_py.core.probe_results import PeerResult, WayResult

PORT = 8475
"""Where daemons answer, unless they are told another (`--probe-port`)."""

REQUEST, ANSWER, ROW_REQUEST, ROW = 1, 2, 3, 4

TOKEN_SIZE = 8
_HEADER = struct.Struct(f"!4sB3x{TOKEN_SIZE}s")
_MAGIC = b"flp1"
_OFFSET = struct.Struct("!I")
_PLACE = struct.Struct("!II")
_WAY = struct.Struct("!BBBxIHH")
_PEER = struct.Struct(f"!BB16s{_WAY.size}s{_WAY.size}s")
_ROW_REQUEST_SIZE = 1200
"""Bytes: fits into the smallest packet that IPv6 has to carry whole."""

HEADERS = {IPV4: 20 + 8, IPV6: 40 + 8}
"""Bytes before the message in a packet: IP and UDP."""
SMALLEST = _HEADER.size


class Message(NamedTuple):
    """A message of one of the kinds above; `size` is its length in bytes, `body` what comes behind the header."""

    kind: int
    token: bytes
    size: int
    body: bytes


class RowPart(NamedTuple):
    """Some peers of a row that has `total`, beginning with the one at `offset`."""

    total: int
    offset: int
    peers: tuple[PeerResult, ...]


def encode_request(token: bytes, size: int = SMALLEST) -> bytes:
    """Return a request of so many bytes."""
    return _HEADER.pack(_MAGIC, REQUEST, token).ljust(size, b"\0")


def encode_answer(token: bytes) -> bytes:
    """Return the answer to the request with this token."""
    return _HEADER.pack(_MAGIC, ANSWER, token)


def encode_row_request(token: bytes, offset: int) -> bytes:
    """Return a request for the peers of a row from an offset on."""
    return (_HEADER.pack(_MAGIC, ROW_REQUEST, token) + _OFFSET.pack(offset)).ljust(_ROW_REQUEST_SIZE, b"\0")


def decode_message(data: bytes) -> Message | None:
    """Read a message; None if it is none of ours."""
    if len(data) < _HEADER.size:
        return None
    magic, kind, token = _HEADER.unpack_from(data)
    if magic != _MAGIC or not REQUEST <= kind <= ROW:
        return None
    return Message(kind, token, len(data), data[_HEADER.size :])


def read_row_request(message: Message) -> tuple[int, int]:
    """Return from which peer on a row is asked for, and how many have room in an answer of the request's length."""
    room = (message.size - _HEADER.size - _PLACE.size) // _PEER.size
    if room < 1:
        return 0, 0
    return _OFFSET.unpack_from(message.body)[0], room


def encode_row(token: bytes, part: RowPart) -> bytes:
    """Return the answer to a request for a row."""
    peers = b"".join(map(_encode_peer, part.peers))
    return _HEADER.pack(_MAGIC, ROW, token) + _PLACE.pack(part.total, part.offset) + peers


def decode_row(message: Message) -> RowPart:
    """Read a part of a row. Raises ValueError."""
    try:
        total, offset = _PLACE.unpack_from(message.body)
        peers = tuple(_decode_peer(*fields) for fields in _PEER.iter_unpack(message.body[_PLACE.size :]))
    except struct.error as error:
        raise ValueError(f"a row that cannot be read: {error}") from error
    return RowPart(total, offset, peers)


def _encode_peer(peer: PeerResult) -> bytes:
    family, address, length = peer.subnet
    return _PEER.pack(family, length, address.to_bytes(16, "big"), *(_WAY.pack(*way) for way in peer[1:]))


def _decode_peer(family: int, length: int, address: bytes, underlay: bytes, overlay: bytes) -> PeerResult:
    value = int.from_bytes(address, "big")
    if family not in HEADERS or length > bits(family) or value >> bits(family) or value & host_mask(family, length):
        raise ValueError("a row that names no subnet")
    ways = (WayResult._make(_WAY.unpack(way)) for way in (underlay, overlay))
    return PeerResult(Prefix(family, value, length), *ways)
