"""The UDP socket that probes are sent and answered by: it tells where a datagram was sent to and by which device it
came, picks the source of what it sends, and sends whole packets only, as large as the device takes (ip(7), ipv6(7)).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, IPV6, format_address, parse_address
from flanneld_py.kernel.families import AF_OF, encode_address

if TYPE_CHECKING:
    from collections.abc import Iterator

_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3
"""Do not fragment, and do not believe what is known of the path either (IP_PMTUDISC_PROBE)."""
_RECEIVE_BUFFER = 1 << 18
"""Bytes, of which the kernel counts some hundred for each small datagram: what comes faster is lost, not kept."""
_LARGEST = 1 << 16
_PKTINFO = {IPV4: struct.Struct("=i4s4s"), IPV6: struct.Struct("=16si")}
_LEVELS = {IPV4: socket.IPPROTO_IP, IPV6: socket.IPPROTO_IPV6}
_TYPES = {IPV4: _IP_PKTINFO, IPV6: socket.IPV6_PKTINFO}
_NOWHERE = bytes(4)


class Datagram(NamedTuple):
    """What came: from an address and port, to an address, by the device of this index; addresses as integers."""

    data: bytes
    source: int
    port: int
    destination: int
    ifindex: int


class ProbeSocket:
    """A socket of one address family, on all addresses of this host."""

    def __init__(self, family: int, port: int) -> None:
        """Open it on a port, 0 for any. Raises KernelError."""
        self.family = family
        self._socket = socket.socket(AF_OF[family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.fileno = self._socket.fileno
        self.close = self._socket.close
        try:
            if family == IPV6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self._socket.bind(("", port))
        except OSError as error:
            self.close()
            raise KernelError(error.errno or 0, f"open UDP port {port} for probes", error.strerror or "") from error

    def send(self, data: bytes, address: int, port: int, source: int) -> None:
        """Send from an address of this host. Raises OSError, EMSGSIZE where the device takes no such packet."""
        family = self.family
        raw = encode_address(family, source)
        info = _PKTINFO[family].pack(0, raw, _NOWHERE) if family == IPV4 else _PKTINFO[family].pack(raw, 0)
        target = (format_address(family, address), port)
        self._socket.sendmsg([data], [(_LEVELS[family], _TYPES[family], info)], 0, target)

    def receive(self, limit: int) -> Iterator[Datagram]:
        """Yield what has come, at most so many."""
        space = socket.CMSG_SPACE(_PKTINFO[self.family].size)
        for _ in range(limit):
            try:
                data, ancillary, _, sender = self._socket.recvmsg(_LARGEST, space)
            except BlockingIOError:
                return
            except OSError:
                continue  # what the kernel has to say of what was sent before; nothing was received
            info = next((told for _, kind, told in ancillary if kind == _TYPES[self.family]), None)
            if info is None:
                continue
            fields = _PKTINFO[self.family].unpack(info)
            ifindex, to = (fields[0], fields[2]) if self.family == IPV4 else (fields[1], fields[0])
            _, source = parse_address(sender[0].partition("%")[0])
            yield Datagram(data, source, sender[1], int.from_bytes(to, "big"), ifindex)
