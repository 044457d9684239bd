"""Capturing in several network namespaces at once, with the kernel's time on every frame.

Owns the packet sockets and the pcap format (https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html). Which
frames are of interest is the caller's to say.
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from netns_lab.dissect import ip_kind
from netns_lab.namespaces import in_network

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_RECEIVE_SIZE = 1 << 16
_NANOSECONDS = 1_000_000_000

_PCAP_NANOSECONDS = 0xA1B23C4D
_LINKTYPE_ETHERNET = 1


class Frame(NamedTuple):
    """A frame as a device saw it; `at` is the kernel's time in nanoseconds, `place` the namespace's name.

    `data` begins with an Ethernet header, a made-up one where the device has none.
    """

    at: int
    place: str
    device: str
    outgoing: bool
    data: bytes


class Capture:
    """Sees all frames on all devices of some namespaces, from when it is entered on."""

    def __init__(self, networks: Mapping[str, Path]) -> None:
        """Prepare for network namespaces by their names."""
        self._networks = networks
        self._sockets: dict[socket.socket, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for name, network in self._networks.items():
            with in_network(network):
                opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            self._stack.enter_context(opened)
            opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            opened.setblocking(False)
            self._sockets[opened] = name
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def take(
        self, wanted: Callable[[bytes], bool], until: Callable[[list[Frame]], bool], seconds: float
    ) -> list[Frame]:
        """Return the wanted frames by their times, once `until` says that these are enough, or after a time."""
        frames: list[Frame] = []
        deadline = time.monotonic() + seconds
        while not until(frames) and (left := deadline - time.monotonic()) > 0:
            select.select(list(self._sockets), [], [], left)
            frames += self._drain(wanted)
        # What is enough may have been read before what had passed elsewhere.
        frames += self._drain(wanted)
        # A frame keeps its time from where it leaves one namespace into the next; within one they come in order.
        return sorted(frames, key=lambda frame: (frame.at, not frame.outgoing))

    def _drain(self, wanted: Callable[[bytes], bool]) -> Iterator[Frame]:
        for opened in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    frame = self._receive(opened)
                    if wanted(frame.data):
                        yield frame

    def _receive(self, opened: socket.socket) -> Frame:
        data, ancillary, _, address = opened.recvmsg(_RECEIVE_SIZE, socket.CMSG_SPACE(_TIMESPEC.size))
        seconds, nanoseconds = next(
            (_TIMESPEC.unpack(value) for level, kind, value in ancillary if kind == _SO_TIMESTAMPNS), (0, 0)
        )
        device, _, direction, hardware, *_ = address
        if hardware not in {_ARPHRD_ETHER, _ARPHRD_LOOPBACK}:
            data = bytes(12) + ip_kind(data).to_bytes(2, "big") + data
        at = seconds * _NANOSECONDS + nanoseconds
        return Frame(at, self._sockets[opened], device, direction == _PACKET_OUTGOING, data)


def write_pcap(file: Path, frames: Iterable[Frame]) -> None:
    """Write frames for Wireshark and tcpdump, with nanoseconds. Raises OSError."""
    parts = [struct.pack("=IHHiIII", _PCAP_NANOSECONDS, 2, 4, 0, 0, _RECEIVE_SIZE, _LINKTYPE_ETHERNET)]
    for frame in frames:
        size = len(frame.data)
        parts += (struct.pack("=IIII", *divmod(frame.at, _NANOSECONDS), size, size), frame.data)
    file.write_bytes(b"".join(parts))
