"""Carrying IPv4 packets between a TUN device and other nodes, each as the payload of one UDP datagram.

Owns the data path in user space: two threads, one a direction, that wait in the kernel and share nothing but the
table of peers. Many packets cross the UDP socket in one call (UDP_SEGMENT, UDP_GRO; udp(7)), since Linux 5.0.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from flanneld_py.core.ip_packet import (
    FRAGMENTATION_NEEDED,
    ICMP_TIME_EXCEEDED,
    ICMP_UNREACHABLE,
    IPV4_HEADER,
    NET_UNREACHABLE,
    TTL_EXCEEDED,
    decrement_ttl,
    make_icmp_error,
    may_fragment,
)
from flanneld_py.core.prefix import IPV4, format_address
from flanneld_py.kernel.tun import attach_tun
from flanneld_py.kernel.udp_sockets import fragmenting, read_path_mtu
from flanneld_py.kernel.udp_ways import UNKNOWN

if TYPE_CHECKING:
    from flanneld_py.kernel.udp_ways import Way, Ways

log = logging.getLogger(__name__)

OVERHEAD = 28
"""Bytes of the outer IPv4 and UDP headers."""
_UDP_SEGMENT = 103
_SEGMENT = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_ANCILLARY = socket.CMSG_SPACE(_GRO_SIZE.size)

_MOST_BYTES = 65000
"""What one call may send: the largest IPv4 packet, less headers."""
_MOST_SEGMENTS = 64
"""UDP_MAX_SEGMENTS of Linux 4.18; later kernels take more."""
_IPV4_FIRST = 0x40
_IPV4_LAST = 0x50
_ATTACH_PAUSE = 0.02
"""Seconds between two looks for the device, which the reconciler makes and makes again."""


class UdpTunnel:
    """Both directions between the device and one UDP socket."""

    def __init__(self, device: str, bound: socket.socket, icmp: socket.socket, ways: Ways, mtu: int) -> None:
        """Prepare; `bound` and `icmp` come from the functions below, `mtu` is the device's, in bytes."""
        self._device = device
        self._socket = bound
        self._ways = ways
        self._icmp = icmp
        self._mtu = mtu
        self._tun = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._can_segment = True
        self._called = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._carry_out, "udp-out"), (self._carry_in, "udp-in"))
        ]

    def start(self) -> None:
        """Carry packets from now on; the threads end with the process at the latest."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave the device and close the sockets, which another tunnel may open then; packets under way get lost."""
        self._stopped = True
        self.look_again()
        # The socket is not connected, which the call complains of, yet it wakes who waits to receive.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for opened in (self._socket, self._icmp):
            opened.close()
        for descriptor in (self._tun, self._called):
            os.close(descriptor)

    def look_again(self) -> None:
        """Take up the device that has its name now: the one before may go on under another, or elsewhere."""
        os.eventfd_write(self._called, 1)

    def _carry_out(self) -> None:
        while self._attach():
            try:
                self._send_all()
            except OSError as error:
                # The device has gone, and comes again; or we were stopped.
                log.info("device left: name=%s reason=%s", self._device, error.strerror)

    def _attach(self) -> bool:
        """Wait for the device, and take it up; return whether that was done before we were stopped."""
        said = ""
        # Nobody else can be attached while we are.
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, self._tun, inheritable=False)
        os.close(nowhere)
        with suppress(BlockingIOError):
            os.eventfd_read(self._called)
        while not self._stopped:
            try:
                # Attaching to a name that is not there would make a device that lasts no longer than we do.
                socket.if_nametoindex(self._device)
                fresh = attach_tun(self._device)
            except OSError as error:
                if error.errno not in {errno.ENODEV, errno.ENXIO} and str(error) != said:
                    said = str(error)
                    log.warning("waiting: for=device %s reason=%s", self._device, said)
                time.sleep(_ATTACH_PAUSE)
                continue
            # The number stays, which the other thread writes to.
            os.dup2(fresh, self._tun, inheritable=False)
            os.close(fresh)
            return True
        return False

    def _send_all(self) -> None:
        """Send what the device is given, as many packets at a time as are for one node and of one size.

        Raises OSError when the device can be read no more, or is to be looked for again.
        """
        tun, ways, mtu = self._tun, self._ways, self._mtu
        packets = bytearray(_MOST_BYTES + mtu)
        view = memoryview(packets)
        start = end = size = count = 0
        way = UNKNOWN
        readable = select.poll()
        readable.register(tun, select.POLLIN)
        readable.register(self._called, select.POLLIN)
        while True:
            # Packets from `start` to `end` have been read and not sent.
            try:
                length = os.readv(tun, (view[end : end + mtu],))
            except BlockingIOError:
                if count:
                    self._send(view[start:end], size, way)
                    start = end = count = 0
                else:
                    self._wait(readable)
                continue
            if not _IPV4_FIRST <= packets[end] < _IPV4_LAST or length < IPV4_HEADER:
                continue
            address = view[end + 16 : end + 20].tobytes()
            towards = ways.cache.get(address) or ways.find(address)
            if towards is UNKNOWN:
                self._answer(view[end : end + length], ICMP_UNREACHABLE, NET_UNREACHABLE)
                continue
            if not decrement_ttl(packets, end):
                self._answer(view[end : end + length], ICMP_TIME_EXCEEDED, TTL_EXCEEDED)
                continue
            if count and (length > size or towards is not way):
                self._send(view[start:end], size, way)
                start = end
                count = 0
            if not count:
                size, way = length, towards
            end += length
            count += 1
            # A shorter one can only be the last of its kind.
            if length < size or count == _MOST_SEGMENTS or end + mtu > _MOST_BYTES:
                self._send(view[start:end], size, way)
                start = end = count = 0

    def _wait(self, readable: select.poll) -> None:
        """Wait for a packet. Raises OSError when the device is to be looked for again."""
        if any(descriptor == self._called for descriptor, _ in readable.poll()):
            raise OSError(errno.ESTALE, "left for another")

    def _send(self, packets: memoryview, size: int, way: Way) -> None:
        """Send packets of one size, the last of which may be shorter."""
        length = len(packets)
        try:
            if length <= size:
                self._socket.sendto(packets, way)
            elif self._can_segment:
                self._socket.sendmsg((packets,), ((socket.SOL_UDP, _UDP_SEGMENT, _SEGMENT.pack(size)),), 0, way)
            else:
                self._send_each(packets, size, way)
                return
        except OSError as error:
            if length <= size:
                self._note_unsent(packets, way, error)
                return
            # EIO: the uplink leaves checksums to us; EINVAL: a segment does not fit the path, or no such option.
            if error.errno in {errno.EIO, errno.ENOPROTOOPT}:
                self._can_segment = False
            self._send_each(packets, size, way)
            return
        counted = self._ways.carried[way[0]]
        counted[2] += length
        counted[3] += -(-length // size)

    def _send_each(self, packets: memoryview, size: int, way: Way) -> None:
        for start in range(0, len(packets), size):
            self._send(packets[start : start + size], size, way)

    def _note_unsent(self, packet: memoryview, way: Way, error: OSError) -> None:
        if error.errno != errno.EMSGSIZE:
            # As from a peer that is just restarting, or an uplink that is down: packets get lost then.
            log.debug("packet not sent: to=%s reason=%s", way[0], error.strerror)
            return
        if not may_fragment(packet):
            self._answer(packet, ICMP_UNREACHABLE, FRAGMENTATION_NEEDED, read_path_mtu(way) - OVERHEAD)
            return
        with suppress(OSError), fragmenting(self._socket):
            self._socket.sendto(packet, way)

    def _carry_in(self) -> None:
        """Give the device what comes from other nodes."""
        packets = bytearray(1 << 16)
        view = memoryview(packets)
        carried = self._ways.carried
        while True:
            try:
                length, ancillary, _, source = self._socket.recvmsg_into((packets,), _ANCILLARY)
            except OSError as error:
                # An unconnected socket is told of what it could not send, too.
                log.debug("nothing received: reason=%s", error.strerror)
                continue
            if self._stopped:
                return
            size = _GRO_SIZE.unpack(ancillary[0][2])[0] if ancillary else length
            counted = carried.get(source[0])
            if counted is not None and size:
                counted[0] += length
                counted[1] += -(-length // size)
            for start in range(0, length, size or 1):
                end = min(start + size, length)
                if end - start < IPV4_HEADER or not _IPV4_FIRST <= packets[start] < _IPV4_LAST:
                    continue
                if not decrement_ttl(packets, start):
                    self._answer(view[start:end], ICMP_TIME_EXCEEDED, TTL_EXCEEDED)
                    continue
                try:
                    os.write(self._tun, view[start:end])
                except OSError as error:
                    log.debug("packet not taken: device=%s reason=%s", self._device, error.strerror)

    def _answer(self, packet: memoryview, kind: int, code: int, mtu: int = 0) -> None:
        answer = make_icmp_error(packet.tobytes(), kind, code, mtu)
        if answer is not None:
            with suppress(OSError):
                self._icmp.sendto(answer[1], (format_address(IPV4, answer[0]), 0))
