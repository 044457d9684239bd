"""Run in two pods: `serve` echoes datagrams and answers a stream with its digest; `ADDRESS MTU` tries both."""

import hashlib
import os
import socket
import sys
import threading
from contextlib import suppress

PORT = 7001
STREAM = 20_000_000
IP_MTU_DISCOVER, PMTUDISC_DONT, PMTUDISC_DO = 10, 0, 2
HEADERS = 28


def serve():
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
    echo.bind(("", PORT))
    listening = socket.create_server(("", PORT))
    threading.Thread(target=digest_streams, args=(listening,), daemon=True).start()
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    while True:
        data, sender = echo.recvfrom(1 << 16)
        echo.sendto(data, sender)


def digest_streams(listening):
    while True:
        stream, _ = listening.accept()
        with stream:
            digest = hashlib.sha256()
            while data := stream.recv(1 << 16):
                digest.update(data)
            stream.sendall(digest.digest())


def probe(address, mtu):
    largest = mtu - HEADERS
    for discover, sizes in ((PMTUDISC_DO, (8, largest)), (PMTUDISC_DONT, (1400, largest + 1, 4000, 20_000))):
        for size in sizes:
            echo_once(address, discover, os.urandom(size))
    with suppress(OSError):
        echo_once(address, PMTUDISC_DO, bytes(largest + 1))
        raise AssertionError("a datagram that does not fit went out whole")
    data = os.urandom(STREAM)
    with socket.create_connection((address, PORT), timeout=30) as stream:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(100, socket.MSG_WAITALL) == hashlib.sha256(data).digest()
    sys.stdout.write("all is well\n")


def echo_once(address, discover, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
        opened.settimeout(5)
        opened.connect((address, PORT))
        opened.send(data)
        assert opened.recv(1 << 16) == data


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    probe(sys.argv[1], int(sys.argv[2]))
