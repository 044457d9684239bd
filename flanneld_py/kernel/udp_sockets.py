"""The sockets of the udp backend's data path: what carries packets, and what tells senders of trouble."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.kernel.udp_ways import Way

_UDP_GRO = 104
_IP_MTU_DISCOVER = 10
_IP_MTU = 14
_IP_FREEBIND = 15
_PMTUDISC_DONT = 0
_PMTUDISC_DO = 2
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32
_SOCKET_BUFFER = 1 << 22


def open_udp(address: str, port: int) -> socket.socket:
    """Return a socket for a tunnel, bound to our own address. Raises OSError."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
        for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            # Beyond the host's limit only root may go.
            with suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        # Kernels before 5.0 give each datagram by itself.
        with suppress(OSError):
            opened.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
        opened.bind((address, port))
    except OSError:
        opened.close()
        raise
    return opened


@contextmanager
def fragmenting(opened: socket.socket) -> Iterator[None]:
    """Let the kernel take what is sent meanwhile apart where the path is too narrow. Raises OSError."""
    opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    try:
        yield
    finally:
        opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)


def open_icmp(address: str) -> socket.socket:
    """Return a socket for ICMP messages from our address on the device, whether it is there yet or not. Raises OSError.

    Written to the device, they would seem to come from outside with an address of ours, and be dropped as martian.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    opened.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    # What comes in is others' business; it is not even kept.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    opened.bind((address, 0))
    return opened


def read_path_mtu(way: Way) -> int:
    """Return what the kernel knows to be the largest packet that gets to a node, in bytes. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(way)
        return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
