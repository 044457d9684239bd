"""gRPC as bytes: as much of HTTP/2 (RFC 9113) and HPACK (RFC 7541) as a client of etcd needs. Pure.

A library would cost threads, which forbid entering namespaces, and a millisecond that would drown what is measured. No
request's answer is larger than the windows granted here, and requests stay far under what the server grants, so there
is no flow control. Headers of answers are not decoded: an answer without a message is a refusal.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = struct.Struct("!BHBBI")  # length (24 bits as 8 + 16), type, flags, stream
MESSAGE = struct.Struct("!?I")  # compressed, length (gRPC over HTTP/2, "Length-Prefixed-Message")
SETTING = struct.Struct("!HI")
WINDOW = struct.Struct("!I")
END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 0x4
LARGEST_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = (1 << 16) - 1
LARGEST_FRAME = 1 << 14


class Kind(IntEnum):
    """Frame types, RFC 9113 section 6."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it came; a type that we do not know stays a number."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        """Tell whether nothing more comes on its stream."""
        closes = self.kind in {Kind.DATA, Kind.HEADERS} and bool(self.flags & END_STREAM)
        return closes or self.kind in {Kind.RST_STREAM, Kind.GOAWAY}


def encode_frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    return FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def encode_opening() -> bytes:
    """Write what a client says first; with windows so large that they need no care."""
    return (
        PREFACE
        + encode_frame(Kind.SETTINGS, 0, 0, SETTING.pack(INITIAL_WINDOW_SIZE, LARGEST_WINDOW))
        + encode_frame(Kind.WINDOW_UPDATE, 0, 0, WINDOW.pack(LARGEST_WINDOW - DEFAULT_WINDOW))
    )


def encode_call(stream: int, path: str, message: bytes, *, last: bool) -> bytes:
    """Write a call with its first message; `last` if it is the only one."""
    return encode_frame(Kind.HEADERS, END_HEADERS, stream, encode_headers(path)) + encode_message(
        stream, message, last=last
    )


def encode_headers(path: str) -> bytes:
    """Write a call's headers with the static table's entries, and no compression of what is not in it."""
    return (
        b"\x83\x86"  # :method POST, :scheme http
        b"\x04"  # :path
        + _encode_text(path)
        + b"\x01"  # :authority
        + _encode_text("etcd")
        + b"\x00"
        + _encode_text("content-type")
        + _encode_text("application/grpc")
        + b"\x00"
        + _encode_text("te")
        + _encode_text("trailers")
    )


def _encode_text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")  # shorter than 127 always, so the length is one byte


def encode_message(stream: int, message: bytes, *, last: bool) -> bytes:
    """Write a message as frames of the size that every server takes."""
    data = MESSAGE.pack(False, len(message)) + message
    starts = range(0, len(data), LARGEST_FRAME)
    frames = [
        encode_frame(
            Kind.DATA,
            END_STREAM if last and start == starts[-1] else 0,
            stream,
            data[start : start + LARGEST_FRAME],
        )
        for start in starts
    ]
    return b"".join(frames)


def answer_to(frame: Frame) -> bytes:
    """Return what the connection itself must answer; mostly nothing."""
    if frame.kind in {Kind.SETTINGS, Kind.PING} and not frame.flags & ACK:
        return encode_frame(Kind(frame.kind), ACK, 0, frame.payload if frame.kind == Kind.PING else b"")
    return b""


class FrameReader:
    """Cuts what a connection brings into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in bytes and yield the frames that are complete with them."""
        self._buffer += data
        while len(self._buffer) >= FRAME.size:
            high, low, kind, flags, stream = FRAME.unpack_from(self._buffer)
            end = FRAME.size + (high << 16 | low)
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[FRAME.size : end])
            del self._buffer[:end]
            yield Frame(kind, flags, stream, payload)


class MessageReader:
    """Cuts the data of one stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take in a DATA frame's payload and yield the messages that are complete with it."""
        self._buffer += data
        while len(self._buffer) >= MESSAGE.size:
            _, length = MESSAGE.unpack_from(self._buffer)
            end = MESSAGE.size + length
            if len(self._buffer) < end:
                return
            yield bytes(self._buffer[MESSAGE.size : end])
            del self._buffer[: MESSAGE.size + length]
