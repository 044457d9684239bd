"""Mount namespaces kept alive by the lab's holder, which is given a file descriptor for each.

A network namespace can be kept by a file that it is mounted on. For a mount namespace that is not dependable:
Linux 6.18 numbers namespaces per CPU and takes some for older than the one that the file lies in, which would
be a loop (fs/namespace.c, mnt_ns_loop), so `unshare --mount=FILE` fails at random there. So pid 1 holds a
descriptor, and a symbolic link to it in its /proc folder stands in for the file.
"""

import socket
from pathlib import Path

SOCKET = "/run/holder.sock"
SECONDS = 5.0


def open_keeper() -> socket.socket:
    """Listen for descriptors; in the holder."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(SOCKET)
    server.listen()
    return server


def take_in(server: socket.socket) -> None:
    """Accept one descriptor, keep it for ever and tell its number; in the holder."""
    with server.accept()[0] as client:
        client.settimeout(SECONDS)
        _, fds, _, _ = socket.recv_fds(client, 16, 1)
        client.send(b"%d" % fds[0])


def keep(fd: int, link: Path) -> None:
    """Have the holder keep what `fd` stands for, enterable at `link`. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(SECONDS)
        client.connect(SOCKET)
        socket.send_fds(client, [b"keep"], [fd])
        number = client.recv(16)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(f"/proc/1/fd/{int(number)}")
