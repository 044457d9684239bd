"""Run in a pod: `ADDRESS` sends a datagram each 10 ms to who echoes it, until its input ends; then tells the losses."""

import select
import socket
import sys
import time
from contextlib import suppress

from probe import PORT

PAUSE, DRAIN = 0.01, 1.0


def send_steadily(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((address, PORT))
        opened.setblocking(False)
        sent, arrived, due = 0, set(), time.monotonic()
        while not select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
            with suppress(OSError):
                opened.send(b"%d" % sent)
            sent, due = sent + 1, due + PAUSE
            receive(opened, arrived, 0)
            if sent == 1:
                receive(opened, arrived, DRAIN)
                sys.stdout.write("sending\n")
                sys.stdout.flush()
                due = time.monotonic()
        receive(opened, arrived, DRAIN)
    missing = sorted(set(range(sent)) - arrived)
    sys.stdout.write(f"lost {len(missing)} of {sent}: {missing[:20]}\n")


def receive(opened, arrived, patience):
    while select.select([opened], [], [], patience)[0]:
        with suppress(OSError):
            arrived.add(int(opened.recv(100)))


if __name__ == "__main__":
    send_steadily(sys.argv[1])
