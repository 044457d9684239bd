"""What answers in a pod, over TCP with the client's address, over UDP with the question; and what asks it."""

import math
import socket
import threading
import time
from contextlib import suppress

SECONDS = 10.0
RESOLVER_PATIENCE = 5.0
"""Seconds after which a resolver asks again (resolv.conf(5))."""

PAUSE = 0.01
"""Seconds between two questions of a talk."""

_SOURCE_BYTES = 64


class Answering:
    """Serves a TCP port and a UDP port of a pod until it is closed."""

    def __init__(self, pod, tcp_port, udp_port):
        self._streams = pod.run(lambda: socket.create_server(("", tcp_port)))
        self._datagrams = pod.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._datagrams.bind(("", udp_port))
        self._open = True
        works = (self._serve_streams, self._serve_datagrams)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def _serve_streams(self):
        with suppress(OSError):
            while self._open:
                connection, (source, _) = self._streams.accept()
                with connection:
                    connection.sendall(source.encode())

    def _serve_datagrams(self):
        with suppress(OSError):
            while self._open:
                question, source = self._datagrams.recvfrom(512)
                if source is not None:
                    self._datagrams.sendto(question, source)

    def close(self):
        self._open = False
        for opened in (self._streams, self._datagrams):
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for opened in (self._streams, self._datagrams):
            opened.close()


class Talk:
    """Questions sent one after another until the talk is closed."""

    def __init__(self, place, address, port):
        self._socket = place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.settimeout(PAUSE)
        self._socket.connect((address, port))
        self._open = True
        self._asked = 0
        self._answered = set()
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()

    def _go_on(self):
        while self._open:
            self._ask()
            self._listen_until(time.monotonic() + PAUSE)
        deadline = time.monotonic() + RESOLVER_PATIENCE
        while self.lost and time.monotonic() < deadline:
            self._listen_until(time.monotonic() + PAUSE)

    def _ask(self):
        # The peer's node may answer for it that nobody listens; that is told with the next question.
        with suppress(OSError):
            self._socket.send(b"%d" % self._asked)
        self._asked += 1

    def _listen_until(self, moment):
        while time.monotonic() < moment:
            with suppress(OSError):
                self._answered.add(int(self._socket.recv(64)))

    @property
    def asked(self):
        return self._asked

    @property
    def lost(self):
        """How many questions have no answer; once the talk is closed, for good."""
        return self._asked - len(self._answered)

    def close(self):
        self._open = False
        self._thread.join()
        self._socket.close()


def source_seen(place, address, port):
    """Connect from a namespace; return the address that the server sees, or None where nobody answers."""

    def connect():
        with socket.create_connection((address, port), SECONDS) as connection:
            return connection.recv(_SOURCE_BYTES).decode()

    try:
        return place.run(connect)
    except OSError:
        return None


def ask_in_pairs(place, address, port, count):
    """Send that many pairs of questions, each pair at once from a socket of its own, as resolvers ask for A and AAAA.

    None is sent again. Returns the seconds that the slowest pair took, infinitely many if one was not answered while a
    resolver is patient.
    """
    slowest = 0.0
    for number in range(count):
        with place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as opened:
            opened.settimeout(RESOLVER_PATIENCE)
            opened.connect((address, port))
            questions = {b"%d A" % number, b"%d AAAA" % number}
            begin = time.monotonic()
            for question in questions:
                opened.send(question)
            try:
                while questions:
                    questions.discard(opened.recv(512))
            except OSError:
                return math.inf
            slowest = max(slowest, time.monotonic() - begin)
    return slowest
