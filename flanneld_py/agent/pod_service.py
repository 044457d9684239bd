"""Calls of the CNI plugin, served by the daemon: the socket beside the subnet file, and the threads that listen there.

How the plugin's executable hands a call over, `pod_request` describes. It is told

    1 byte of any value: the call is being served
    1 byte exit status, or 2 where it must serve the call itself; 4 bytes: length of standard output (big-endian)
    standard output

A connection that ends before the first byte means that nothing was or will be done. What is done of a call is the
business of `pod_calls`, which is imported with the first one: most of the daemon's life there is none.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from flanneld_py.agent.pod_request import receive_request
from flanneld_py.core.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flanneld_py.agent.pod_calls import PodCalls
    from flanneld_py.agent.pod_request import Request

log = logging.getLogger(__name__)

SOCKET_SUFFIX = ".cni.sock"
DECLINED = 2

_VERBS = frozenset({"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"})
_OUTCOMES = {0: "success", DECLINED: "declined"}

_MOST_WORKERS = 8
_BACKLOG = 512
_PATIENCE = 5.0
"""Seconds for the plugin to send its request or take its answer."""
_STOP_PATIENCE = 2.0
"""Seconds for all calls in progress when the daemon stops; they take milliseconds."""
_PAUSE = 0.2
"""Seconds between attempts while no connection can be accepted, for want of descriptors."""
_CAPABILITIES = 1 << 12 | 1 << 21
"""CAP_NET_ADMIN and CAP_SYS_ADMIN (include/uapi/linux/capability.h)."""

_UCRED = struct.Struct("=iII")
_HEAD = struct.Struct(">BI")


class PodService:
    """Listens at a path, as many threads as there are calls at once and a few at most. Raises OSError."""

    def __init__(self, path: Path, outages: Callable[[], Sequence[str]]) -> None:
        """Listen at once; `outages`, asked from any thread, says what keeps other nodes from the pods here."""
        self._outages = outages
        self._listening = _listen(path)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._workers: list[threading.Thread] = []
        self._idle = 0
        self._calls: PodCalls | None = None
        self.durations: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """Of the calls so far, by verb and outcome."""
        with self._lock:
            self._add_worker()

    def close(self) -> None:
        """Take no more calls, and return when those in progress are done, or after a short while."""
        self._closing.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _STOP_PATIENCE
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._listening.close()
        if self._calls is not None:
            self._calls.close(max(0.0, deadline - time.monotonic()))

    def _add_worker(self) -> None:
        worker = threading.Thread(target=self._work, name=f"cni {len(self._workers)}", daemon=True)
        self._workers.append(worker)
        self._idle += 1
        worker.start()

    def _work(self) -> None:
        self._serve_all()
        if self._calls is not None:
            self._calls.leave()

    def _serve_all(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError as error:
                if not self._closing.wait(_PAUSE):
                    log.warning("cni: no call can be accepted: %s", error)
                continue
            with self._lock:
                self._idle -= 1
                if not self._idle and len(self._workers) < _MOST_WORKERS and not self._closing.is_set():
                    self._add_worker()
            try:
                with connection:
                    self._serve(connection)
            except OSError as error:
                log.debug("cni: a call was broken off: %s", error)
            finally:
                with self._lock:
                    self._idle += 1

    def _serve(self, connection: socket.socket) -> None:
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid != 0:
            log.warning("cni: refused a call by pid %d of user %d, who is not root", pid, uid)
            return
        connection.settimeout(_PATIENCE)
        with receive_request(connection) as request:
            if request is None:
                return
            calls = self._require_calls()
            connection.sendall(b"+")
            began = time.monotonic()
            status, output = calls.serve(request)
            self._count(request, status, time.monotonic() - began)
            connection.sendall(_HEAD.pack(status, len(output)) + output)

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
