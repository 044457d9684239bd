"""Frames of HTTP/2 (RFC 9113) as bytes, both ways. Pure.

Knows what a frame looks like, not what follows from it.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
"""Bytes that either side may send before it is granted more, until it says otherwise."""
LARGEST_FRAME = 16_384
"""Bytes of payload that every peer takes, and sends at most as long as it is granted no more."""
LARGEST_WINDOW = 2**31 - 1

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

CANCEL = 0x8
"""The error code of a stream that is no longer wanted."""

_HEADER = struct.Struct("!HBBBI")  # length (24 bits as 16 + 8), type, flags, stream
_SETTING = struct.Struct("!HI")
_U32 = struct.Struct("!I")
_PRIORITY_SIZE = 5


class FrameKind(IntEnum):
    """Section 6; frames of other types are to be ignored."""

    DATA = 0x0
    HEADERS = 0x1
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


class Setting(IntEnum):
    """Section 6.5.2; those that concern us."""

    ENABLE_PUSH = 0x2
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5


class Frame(NamedTuple):
    """A frame as it came; a type that we do not know stays a number."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class FrameError(ValueError):
    """What came is not HTTP/2; nothing after it can be read."""


def encode_frame(kind: FrameKind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def encode_settings(settings: dict[Setting, int]) -> bytes:
    """Write a SETTINGS frame."""
    payload = b"".join(_SETTING.pack(setting, value) for setting, value in settings.items())
    return encode_frame(FrameKind.SETTINGS, 0, 0, payload)


def encode_window_update(stream: int, increment: int) -> bytes:
    """Write the frame that lets the peer send so many bytes more, on a stream or, with 0, on the connection."""
    return encode_frame(FrameKind.WINDOW_UPDATE, 0, stream, _U32.pack(increment))


def encode_reset(stream: int, code: int) -> bytes:
    """Write the frame that ends a stream."""
    return encode_frame(FrameKind.RST_STREAM, 0, stream, _U32.pack(code))


def decode_settings(payload: bytes) -> dict[int, int]:
    """Read a SETTINGS frame. Raises FrameError."""
    if len(payload) % _SETTING.size:
        raise FrameError("settings end within one")
    return dict(_SETTING.iter_unpack(payload))


def decode_number(payload: bytes) -> int:
    """Read a frame's first number: an increment or an error code; the highest bit is reserved. Raises FrameError."""
    if len(payload) < _U32.size:
        raise FrameError("a frame is too short")
    return int(_U32.unpack_from(payload)[0]) & LARGEST_WINDOW


def decode_going_away(payload: bytes) -> tuple[int, str]:
    """Read a GOAWAY frame: why, as a code and in words. Raises FrameError."""
    return decode_number(payload[_U32.size :]), payload[2 * _U32.size :].decode(errors="replace")


def strip_padding(frame: Frame) -> bytes:
    """Return what a DATA or HEADERS frame holds, without padding and priority. Raises FrameError."""
    start, end = 0, len(frame.payload)
    if frame.flags & PADDED:
        if not end:
            raise FrameError("a padded frame is empty")
        start, end = 1, end - frame.payload[0]
    if frame.kind == FrameKind.HEADERS and frame.flags & PRIORITY:
        start += _PRIORITY_SIZE
    if start > end:
        raise FrameError("a frame is padded beyond its size")
    return frame.payload[start:end]


class FrameReader:
    """Cuts what a connection brings into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in bytes and yield the frames that are complete with them. Raises FrameError."""
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        while position + _HEADER.size <= end:
            high, low, kind, flags, stream = _HEADER.unpack_from(data, position)
            length = high << 8 | low
            if length > LARGEST_FRAME:
                raise FrameError("a frame is larger than was granted")
            start = position + _HEADER.size
            if start + length > end:
                break
            position = start + length
            yield Frame(kind, flags, stream & LARGEST_WINDOW, data[start:position])
        self._rest = data[position:]
