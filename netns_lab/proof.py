"""The proof that a network carries what it says: datagrams, fragments, a TCP stream, and packets as large as its MTU.

From one end point to another in its own namespace, what arrives compared with what was sent. No fragments may be made
on the way: then the MTU that pods have leaves room for whatever the backend adds.
"""

import errno
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from netns_lab.matrix import EndPoint
from netns_lab.namespaces import in_network
from netns_lab.topology import IPV4

PORT = 7010
TRIES = 3
SECONDS = 1.0
STREAM_SECONDS = 60.0
BLOCK = 1 << 20
DATAGRAM = 1400
FRAGMENTED = 4000  # bytes, which no Ethernet of 1,500 carries whole

AF_OF = {IPV4: socket.AF_INET, 6: socket.AF_INET6}
UDP_HEADERS = {IPV4: 20 + 8, 6: 40 + 8}
# linux/in.h and linux/in6.h: fragment where needed, or never, not even by the sender.
MAY_FRAGMENT = {IPV4: ((socket.IPPROTO_IP, 10, 0),), 6: ()}
NEVER_FRAGMENT = {IPV4: ((socket.IPPROTO_IP, 10, 2),), 6: ((socket.IPPROTO_IPV6, 23, 2), (socket.IPPROTO_IPV6, 62, 1))}
Options = dict[int, tuple[tuple[int, int, int], ...]]


@dataclass(frozen=True, slots=True)
class Way:
    """From one end point to another: the MTU there is said to be, and the networks in between."""

    source: EndPoint
    destination: EndPoint
    mtu: int
    between: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of a way: what failed, and how fast the stream was in bits a second."""

    way: Way
    failures: tuple[str, ...]
    rate: float


def ways_between(
    end_points: Iterable[EndPoint], mtus: dict[str, int], nodes: dict[str, Path], router: Path
) -> Iterator[Way]:
    """Yield the ways between end points of one family; MTU and node's network by the name of an end point."""
    for source, destination in permutations(end_points, 2):
        if source.family == destination.family and source.name != destination.name:
            yield Way(source, destination, mtus[source.name], (nodes[source.name], router, nodes[destination.name]))


def prove(way: Way, size: int) -> Proof:
    """Send everything one way, the stream with so many bytes. Raises OSError where a socket cannot be had."""
    fragments = sum(map(read_fragments, way.between))
    largest = way.mtu - UDP_HEADERS[way.source.family]
    failures = [
        send_datagram(way, DATAGRAM, MAY_FRAGMENT),
        send_datagram(way, FRAGMENTED, MAY_FRAGMENT),
        send_datagram(way, largest, NEVER_FRAGMENT),
        expect_refusal(way, largest + 1),
    ]
    seconds, failure = send_stream(way, size)
    failures.append(failure)
    made = sum(map(read_fragments, way.between)) - fragments
    failures.append(f"{made} fragments were made on the way" if made else "")
    return Proof(way, tuple(filter(None, failures)), size * 8 / seconds)


def read_fragments(network: Path) -> int:
    """Return how many fragments the kernel has made in that namespace (proc_pid_net(5), snmp and snmp6)."""
    with in_network(network):
        names, values = (
            line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if line[:3] == "Ip:"
        )
        lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
    counters = dict(zip(names, values, strict=True)) | dict(line.split()[:2] for line in lines)
    return int(counters["FragCreates"]) + int(counters["Ip6FragCreates"])


def open_socket(end: EndPoint, kind: socket.SocketKind, port: int, options: Options) -> socket.socket:
    """Return a socket at an end point."""
    with in_network(end.network):
        opened = socket.socket(AF_OF[end.family], kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for option in options.get(end.family, ()):
        opened.setsockopt(*option)
    opened.bind((end.address, port))
    opened.settimeout(SECONDS)
    return opened


def send_datagram(way: Way, size: int, options: Options) -> str:
    """Send a datagram with so many bytes; return what is wrong with what arrived."""
    with (
        open_socket(way.source, socket.SOCK_DGRAM, 0, options) as ours,
        open_socket(way.destination, socket.SOCK_DGRAM, PORT, {}) as theirs,
    ):
        sent = os.urandom(size)
        for _ in range(TRIES):
            try:
                ours.sendto(sent, (way.destination.address, PORT))
                return "" if theirs.recv(1 << 16) == sent else f"a datagram of {size} bytes came as another"
            except TimeoutError:
                continue
            except OSError as error:
                return f"a datagram of {size} bytes: {error.strerror}"
    return f"a datagram of {size} bytes did not come, {TRIES} times"


def expect_refusal(way: Way, size: int) -> str:
    """Have the kernel refuse a datagram that is too large to be sent whole; return what is wrong if it does not."""
    with open_socket(way.source, socket.SOCK_DGRAM, 0, NEVER_FRAGMENT) as ours:
        try:
            ours.sendto(bytes(size), (way.destination.address, PORT))
        except OSError as error:
            return "" if error.errno == errno.EMSGSIZE else f"a datagram over the MTU: {error.strerror}"
    return f"a datagram over the MTU of {way.mtu} was sent"


def send_stream(way: Way, size: int) -> tuple[float, str]:
    """Send so many bytes by TCP; return the seconds it took, and what is wrong with what arrived."""
    start = time.monotonic()
    reading, writing = os.pipe()
    with open_socket(way.destination, socket.SOCK_STREAM, PORT, {}) as listening:
        listening.listen()
        sender = os.fork()
        if sender == 0:
            feed_stream(way, size, writing)
        os.close(writing)
        try:
            with listening.accept()[0] as stream:
                stream.settimeout(STREAM_SECONDS)
                arrived = digest_stream(stream)
                failure = "" if arrived == os.read(reading, 32) else f"TCP: {size} bytes came as others"
        except OSError as error:
            os.kill(sender, signal.SIGKILL)
            failure = f"TCP: {error}"
        finally:
            os.close(reading)
            os.waitpid(sender, 0)
    return time.monotonic() - start, failure


def feed_stream(way: Way, size: int, report: int) -> None:
    """In a process of its own: send, tell the sum, end."""
    status = 1
    try:
        digest, block = hashlib.sha256(), os.urandom(BLOCK)
        with open_socket(way.source, socket.SOCK_STREAM, 0, {}) as stream:
            stream.settimeout(STREAM_SECONDS)
            stream.connect((way.destination.address, PORT))
            for start in range(0, size, BLOCK):
                # No two blocks are the same, so that one in another's place is noticed.
                data = (start.to_bytes(8, "big") + block[8:])[: size - start]
                digest.update(data)
                stream.sendall(data)
        os.write(report, digest.digest())
        status = 0
    finally:
        os._exit(status)


def digest_stream(stream: socket.socket) -> bytes:
    """Read to the end and return the sum."""
    digest, buffer = hashlib.sha256(), bytearray(BLOCK)
    while got := stream.recv_into(buffer):
        digest.update(memoryview(buffer)[:got])
    return digest.digest()
