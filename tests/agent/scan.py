"""A pod that scans a network: `python -m tests.agent.scan ADDRESS SUBNETS COUNT` sends to COUNT addresses, no pause.

It is told that the host is unreachable by the routes, and that it may not (EPERM) by the limit of what is asked for.

They lie in so many /24 subnets from that of ADDRESS on, each next one in the next subnet, round and round. Prints the
largest number of neighbours that were unresolved, and how many packets the kernel itself refused.
"""

import errno
import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path

from netns_lab.bench.entries import KernelEntries

LOOK_AFTER = 20
PORT = 9


def scan(address, subnets, count):
    most, refused = 0, 0
    with KernelEntries(Path("/proc/self/ns/net")) as kernel, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for index in range(count):
            try:
                sender.sendto(b"x", (str(IPv4Address(address + 256 * (index % subnets) + index // subnets)), PORT))
            except OSError as error:
                if error.errno not in {errno.EHOSTUNREACH, errno.EPERM}:
                    raise
                refused += 1
            if index % LOOK_AFTER == LOOK_AFTER - 1:
                most = max(most, kernel.count_unresolved())
    return most, refused


if __name__ == "__main__":
    figures = scan(int(IPv4Address(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write("{} {}\n".format(*figures))
