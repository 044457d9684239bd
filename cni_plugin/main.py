"""The executable `flannel`: hands a call over to the daemon of this node, and says what that answers.

Runs where the shell script that `flannelctl cni install` writes has found no daemon that takes the call at its door.
It starts anew for every call, so it imports two modules written in C and nothing else. Where no daemon takes the call,
`alone` serves it in this process. What is said over the socket, `pod_request` and `pod_service` of the agent describe.
"""

import _socket
import posix
import sys

_SUBNET_FILE = b"/run/flannel/subnet.env"
_KEY = b'"subnetFile"'
_SOCKET_SUFFIX = b".cni.sock"
_VARIABLES = (
    b"CNI_COMMAND",
    b"CNI_CONTAINERID",
    b"CNI_NETNS",
    b"CNI_IFNAME",
    b"CNI_ARGS",
    b"CNI_PATH",
    b"CNI_NETNS_OVERRIDE",
)
_LARGEST_INPUT = 1 << 20
"""Bytes; a network configuration with prevResult is a few thousand."""
_READ_SIZE = 1 << 16
_BEGIN_PATIENCE = 5.0
"""Seconds that a daemon may take until it begins; it is busy, or stopped."""
_ANSWER_PATIENCE = 60.0
_DECLINED = 2
"""The daemon's status for a call that it leaves to this process."""

_INTERRUPTED = ["interrupted"]
"""Arguments that say: the daemon began to serve the call, and did not come to an end."""

_Answer = tuple[int, bytes]
"""Exit status and standard output."""


class _InterruptedError(Exception):
    """The daemon began to serve the call, and its answer does not come."""


def main() -> int:
    """Serve the call and return the exit status."""
    environment = {key: posix.environ[key] for key in _VARIABLES if key in posix.environ}
    verb = environment.get(b"CNI_COMMAND")
    config = b"" if verb == b"VERSION" else _read_input()
    interrupted = sys.argv[1:] == _INTERRUPTED
    answer = None
    if verb != b"VERSION" and isinstance(config, bytes) and not interrupted:
        try:
            answer = _ask_daemon(environment, config)
        except _InterruptedError:
            interrupted = True
    if answer is None:
        from cni_plugin.alone import serve_alone

        answer = serve_alone(environment, config, interrupted=interrupted)
    status, output = answer
    try:
        posix.write(1, output)
    except OSError:
        return 1  # nobody listens
    return status


def _read_input() -> bytes | OSError:
    parts = []
    left = _LARGEST_INPUT
    try:
        while part := posix.read(0, _READ_SIZE):
            parts.append(part)
            left -= len(part)
            if left < 0:
                return OSError(27, f"more than {_LARGEST_INPUT} bytes")
    except OSError as error:
        return error
    return b"".join(parts)


def _socket_path(config: bytes) -> bytes:
    """Return where the daemon listens that serves a configuration: beside the subnet file that this names.

    The key is looked for without understanding the text. Should it be another one's that is found, the daemon found
    by it serves the call all the same, or declines it.
    """
    file = _SUBNET_FILE
    place = config.find(_KEY)
    if place >= 0:
        words = config[place + len(_KEY) :].split(b'"', 2)
        if len(words) == 3 and words[0].strip() == b":" and words[1] and b"\\" not in words[1]:
            file = words[1]
    folder, slash, name = file.rpartition(b"/")
    stem, dot, _ = name.rpartition(b".")
    return folder + slash + (stem if stem and dot else name) + _SOCKET_SUFFIX


def _ask_daemon(environment: dict[bytes, bytes], config: bytes) -> _Answer | None:
    """Return the daemon's answer, None if there is no daemon that serves this call. Raises _InterruptedError."""
    daemon = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    daemon.settimeout(_BEGIN_PATIENCE)
    try:
        daemon.connect(_socket_path(config))
        _send(daemon, environment, config)
        has_begun = _receive_begin(daemon)
    except (OSError, ValueError):
        return None
    if not has_begun:
        return None
    daemon.settimeout(_ANSWER_PATIENCE)
    try:
        head = _receive(daemon, 5)
        output = _receive(daemon, int.from_bytes(head[1:], "big"))
    except OSError as error:
        raise _InterruptedError from error
    return None if head[0] == _DECLINED else (head[0], output)


def _send(daemon: _socket.socket, environment: dict[bytes, bytes], config: bytes) -> None:
    flags = posix.O_RDONLY | posix.O_CLOEXEC
    descriptors = [posix.open(b"/proc/self/ns/net", flags), posix.open(b"/", flags | posix.O_PATH)]
    netns = environment.get(b"CNI_NETNS")
    if netns:
        try:
            descriptors.append(posix.open(netns, flags | posix.O_NONBLOCK))
        except OSError:
            if environment.get(b"CNI_COMMAND") != b"DEL":  # which has to succeed without it
                raise
    variables = b"\0".join(key + b"=" + value for key, value in environment.items())
    head = len(variables).to_bytes(4, "big") + len(config).to_bytes(4, "big")
    rights = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in descriptors)
    daemon.sendmsg((head,), ((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights),))
    daemon.sendall(variables + config)


def _receive_begin(daemon: _socket.socket) -> bool:
    """Say whether the daemon has begun; if it has not, it never will."""
    try:
        return bool(daemon.recv(1))
    except TimeoutError:
        daemon.shutdown(_socket.SHUT_RDWR)
        return bool(daemon.recv(1))


def _receive(daemon: _socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = daemon.recv(size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data
