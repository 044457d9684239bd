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
_PATIENCE, _PAUSE = 1.0, 0.001
"""Seconds that the kernel is given to begin with stamping frames, and between two looks whether it does."""

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
        for network in list(self._networks.values())[:1]:
            _await_stamps(network)
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
        device, _, direction, hardware, *_ = address
        if hardware not in {_ARPHRD_ETHER, _ARPHRD_LOOPBACK}:
            data = bytes(12) + ip_kind(data).to_bytes(2, "big") + data
        return Frame(_stamp_of(ancillary), self._sockets[opened], device, direction == _PACKET_OUTGOING, data)


def _stamp_of(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """Return the kernel's time of a packet, in nanoseconds; 0 without one."""
    stamps = (_TIMESPEC.unpack(value) for _, kind, value in ancillary if kind == _SO_TIMESTAMPNS)
    seconds, nanoseconds = next(stamps, (0, 0))
    return int(seconds * _NANOSECONDS + nanoseconds)


def _await_stamps(network: Path) -> None:
    """Return once frames are stamped as they pass.

    The kernel begins with that a moment after the first socket has asked for it (net_enable_timestamp in
    net/core/dev.c); until then they are stamped as they are read, and come out in the order of the sockets.
    """
    deadline = time.monotonic() + _PATIENCE
    with in_network(network), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as looped:
        looped.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        looped.bind(("127.0.0.1", 0))
        looped.connect(looped.getsockname())
        looped.settimeout(_PATIENCE)
        while time.monotonic() < deadline:
            looped.send(b"")
            sent = time.time_ns()
            _, ancillary, _, _ = looped.recvmsg(0, socket.CMSG_SPACE(_TIMESPEC.size))
            if _stamp_of(ancillary) <= sent:
                return
            time.sleep(_PAUSE)


def write_pcap(file: Path, frames: Iterable[Frame]) -> None:
    """Write frames for Wireshark and tcpdump, with nanoseconds. Raises OSError."""
    parts = [struct.pack("=IHHiIII", _PCAP_NANOSECONDS, 2, 4, 0, 0, _RECEIVE_SIZE, _LINKTYPE_ETHERNET)]
    for frame in frames:
        size = len(frame.data)
        parts += (struct.pack("=IIII", *divmod(frame.at, _NANOSECONDS), size, size), frame.data)
    file.write_bytes(b"".join(parts))
