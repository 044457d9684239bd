"""Writes every frame that passes any device of this network namespace to a file, until standard input ends."""

import select
import socket
import struct
import sys
from pathlib import Path

ETH_P_ALL = 3
STDIN = 0


def main():
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with sniffer, Path(sys.argv[1]).open("wb") as file:
        sys.stdout.write("capturing\n")
        sys.stdout.flush()
        while True:
            readable, _, _ = select.select([sniffer.fileno(), STDIN], [], [])
            if sniffer.fileno() in readable:
                frame = sniffer.recv(65535)
                file.write(struct.pack("!I", len(frame)) + frame)
            elif STDIN in readable:
                return


main()
