"""Runs in the guest. `echo.py serve ADDRESS` answers datagrams; `echo.py ask ADDRESS` sends one, or `--on` and on until
SIGTERM, and fails if one of them stays without an answer.
"""

import signal
import socket
import sys
from contextlib import suppress

PORT = 7007
PAUSE, PATIENCE = 0.015, 5.0


def serve(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.bind((address, PORT))
        while True:
            served.sendto(*served.recvfrom(100))


def ask(address, *, on):
    ended = not on

    def end(*_):
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    missing, count = set(), 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((address, PORT))
        while count == 0 or not ended:
            missing.add(count)
            asking.send(str(count).encode())
            count += 1
            receive(asking, missing, PAUSE)
        receive(asking, missing, PATIENCE)
    if missing:
        sys.exit(f"{len(missing)} of {count} lost")


def receive(asking, missing, seconds):
    asking.settimeout(seconds)
    with suppress(TimeoutError, ConnectionError):
        while missing:
            missing.discard(int(asking.recv(100)))


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    ask(sys.argv[2], on="--on" in sys.argv)
