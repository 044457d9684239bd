"""Calls of the CNI plugin, served by the daemon: the socket and the door beside the subnet file, and their threads.

How a call comes in by the door, `pod_door` describes; how by the socket, `pod_request`. There the plugin is told

    1 byte of any value: the call is being served
    1 byte exit status, or 2 where it must serve the call itself; 4 bytes: length of standard output (big-endian)
    standard output

A connection that ends before the first byte means that nothing was or will be done. What is done of a call is the
business of `pod_calls`, which is imported when the node is ready for pods: until then nothing else may wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import threading
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.agent.file_identity import identify
from flanneld_py.agent.pod_door import Door
from flanneld_py.agent.pod_request import receive_request
from flanneld_py.agent.pod_workers import Workers
from flanneld_py.core.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flanneld_py.agent.pod_calls import PodCalls
    from flanneld_py.agent.pod_request import Request

log = logging.getLogger(__name__)

SOCKET_SUFFIX = ".cni.sock"
DOOR_SUFFIX = ".door"
"""In place of the socket's last one."""
DECLINED = 2
_LEFT_TO_THE_PLUGIN = DECLINED, b""

_VERBS = frozenset({"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"})
_OUTCOMES = {0: "success", DECLINED: "declined"}

_BACKLOG = 512
_PATIENCE = struct.pack("@ll", 5, 0)
"""struct timeval: seconds for the plugin to send its request or take its answer."""
_STOP_PATIENCE = 2.0
"""Seconds for all calls in progress when the daemon stops; they take milliseconds."""
_CAPABILITIES = 1 << 12 | 1 << 21
"""CAP_NET_ADMIN and CAP_SYS_ADMIN (include/uapi/linux/capability.h)."""

_UCRED = struct.Struct("=iII")
_HEAD = struct.Struct(">BI")


class _Listening:
    """The socket and the door as they are now, and the threads behind them. Raises OSError."""

    def __init__(
        self,
        path: Path,
        serve: Callable[[tuple[socket.socket, object]], None],
        serve_ring: Callable[[Door, int], None],
        leave: Callable[[], None],
    ) -> None:
        self._path = path
        self._socket = _listen(path)
        self._identity = identify(path)
        self._door = _open_door(path.with_suffix(DOOR_SUFFIX))
        self._at_socket = Workers(self._socket.accept, serve, leave)
        self._at_door = None if self._door is None else Workers(self._door.wait, partial(serve_ring, self._door), leave)

    def stands(self) -> bool:
        """Say whether who goes by the paths comes to us."""
        return identify(self._path) == self._identity and (self._door is None or self._door.stands())

    def close(self, deadline: float) -> None:
        """Take no more calls, and return when those in progress are done, or at the deadline (monotonic clock)."""
        if self._door is not None and self._at_door is not None:
            self._at_door.close(self._door.wake, deadline)
        self._at_socket.close(lambda _: self._socket.shutdown(socket.SHUT_RDWR), deadline)
        self._socket.close()
        if self._door is not None:
            self._door.close()


class PodService:
    """Listens at a path, and at a door beside it where it can. Raises OSError."""

    def __init__(self, path: Path, outages: Callable[[], Sequence[str]]) -> None:
        """Listen at once; `outages`, asked from any thread, says what keeps other nodes from the pods here."""
        self.path = path
        self._outages = outages
        self._lock = threading.Lock()
        self._calls: PodCalls | None = None
        self.durations: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """Of the calls so far, by verb and outcome."""
        self._listening: _Listening | None = self._listen()

    def close(self) -> None:
        """Take no more calls, and return when those in progress are done, or after a short while."""
        deadline = time.monotonic() + _STOP_PATIENCE
        if self._listening is not None:
            self._listening.close(deadline)
        if self._calls is not None:
            self._calls.close(max(0.0, deadline - time.monotonic()))

    async def prepare(self) -> None:
        """Have ready what the first call would have to wait for."""
        await asyncio.to_thread(lambda: self._require_calls().prepare())

    def stands(self) -> bool:
        """Say whether who goes by the path, or by the door beside it, comes to us."""
        return self._listening is not None and self._listening.stands()

    async def reopen(self) -> None:
        """Listen at the path anew; who has come in is served to the end. Raises OSError."""
        former, self._listening = self._listening, None
        if former is not None:
            await asyncio.to_thread(former.close, time.monotonic() + _STOP_PATIENCE)
        self._listening = self._listen()

    def _listen(self) -> _Listening:
        return _Listening(self.path, self._serve, self._serve_ring, self._leave)

    def _leave(self) -> None:
        if self._calls is not None:
            self._calls.leave()

    def _serve(self, accepted: tuple[socket.socket, object]) -> None:
        with accepted[0] as connection:
            pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            if uid != 0:
                log.warning("cni: refused a call by pid %d of user %d, who is not root", pid, uid)
                return
            # By the kernel: a timeout of Python's own is a system call more each time.
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, _PATIENCE)
            with receive_request(connection) as request:
                if request is None:
                    return
                calls = self._require_calls()
                with calls.take_turn(request):
                    connection.sendall(b"+")  # which fails if the plugin is gone
                    status, output = self._carry_out(calls, request)
                connection.sendall(_HEAD.pack(status, len(output)) + output)

    def _serve_ring(self, door: Door, pid: int) -> None:
        if not pid:
            return
        try:
            with door.receive(pid) as ring:
                calls = self._require_calls()
                if ring.request is None:
                    if ring.take():
                        ring.tell(*_LEFT_TO_THE_PLUGIN)
                    return
                with calls.take_turn(ring.request):
                    answer = self._carry_out(calls, ring.request) if ring.take() else None
                if answer is not None:
                    ring.tell(*answer)
        except PermissionError as error:
            door.shut()
            log.warning("cni: each call starts an interpreter: the daemon lacks CAP_SYS_PTRACE: %s", error)

    def _carry_out(self, calls: PodCalls, request: Request) -> tuple[int, bytes]:
        began = time.monotonic()
        status, output = calls.serve(request)
        self._count(request, status, time.monotonic() - began)
        return status, output

    def _count(self, request: Request, status: int, seconds: float) -> None:
        verb = request.environment.get(b"CNI_COMMAND", b"").decode(errors="replace")
        outcome = _OUTCOMES.get(status, "error")
        with self._lock:
            self.durations[verb if verb in _VERBS else "other", outcome].observe(seconds)

    def _require_calls(self) -> PodCalls:
        with self._lock:
            if self._calls is None:
                from flanneld_py.agent.pod_calls import PodCalls

                self._calls = PodCalls(self._outages)
            return self._calls


def start_pod_service(subnet_file: Path, outages: Callable[[], Sequence[str]]) -> PodService | None:
    """Start to serve the plugin's calls; None, and a line in the log, where this daemon cannot."""
    reason = _read_lack()
    if not reason:
        try:
            return PodService(subnet_file.with_suffix(SOCKET_SUFFIX), outages)
        except OSError as error:
            reason = str(error)
    log.warning("cni: the plugin serves each call by itself, more slowly: %s", reason)
    return None


def _read_lack() -> str:
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - as short as it gets
        effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
    if effective & _CAPABILITIES != _CAPABILITIES:
        return "the daemon lacks CAP_NET_ADMIN or CAP_SYS_ADMIN"
    if not os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK):
        return "/proc/sys is read-only for the daemon"
    return ""


def _open_door(path: Path) -> Door | None:
    try:
        return Door(path)
    except OSError as error:
        log.warning("cni: each call starts an interpreter: %s", error)
        return None


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The socket must never be open to others, not even between bind and chmod.
    former = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(former)
    return listening
