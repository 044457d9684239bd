"""A call as the CNI plugin's executable hands it over, by a Unix socket.

4 bytes: length of the environment, 4 bytes: length of standard input (big-endian), and with these as SCM_RIGHTS
the descriptors of its network namespace, of its root folder, and, where it is there, of the container's namespace;
then `KEY=VALUE` joined by NUL bytes, then standard input
"""

from __future__ import annotations

import _socket
import os
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_ENVIRONMENT = 1 << 16
_LARGEST_INPUT = 1 << 20
_LENGTHS = struct.Struct(">II")


class Request(NamedTuple):
    """A call as it came in; `namespace` is the caller's own, `container` that of CNI_NETNS, None if it is gone."""

    environment: dict[bytes, bytes]
    config: bytes
    namespace: int
    root: int
    container: int | None


@contextmanager
def receive_request(connection: socket.socket) -> Iterator[Request | None]:
    """Give what the plugin sent, with its descriptors open until the end; None if it is no request, or too large a one.

    Raises OSError.
    """
    lengths, descriptors, _, _ = socket.recv_fds(connection, _LENGTHS.size, 3, _socket.MSG_CMSG_CLOEXEC)
    try:
        is_request = len(lengths) == _LENGTHS.size and len(descriptors) >= 2
        yield _receive_texts(connection, lengths, descriptors) if is_request else None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _receive_texts(connection: socket.socket, lengths: bytes, descriptors: list[int]) -> Request | None:
    environment_size, config_size = _LENGTHS.unpack(lengths)
    if environment_size > _LARGEST_ENVIRONMENT or config_size > _LARGEST_INPUT:
        return None
    text = _receive(connection, environment_size)
    config = _receive(connection, config_size)
    pairs = (pair.partition(b"=") for pair in text.split(b"\0") if pair)
    namespace, root, *container = descriptors
    environment = {key: value for key, _, value in pairs}
    return Request(environment, config, namespace, root, container[0] if container else None)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the plugin hung up")
        data += part
    return bytes(data)
