"""What the daemon does of a call of the CNI plugin: what the plugin would, with warm sockets, and some of it later.

It serves only who has the same network and the same folders as itself, and leaves every other call, with nothing
changed, to the plugin's own process: so the two never differ in what they do.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.agent.file_identity import identity_of
from flanneld_py.agent.pod_herald import PodHerald
from flanneld_py.agent.pod_reaper import PodReaper
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.kernel.netns import identify, identify_own, is_network_namespace
from flanneld_py.pods import errors
from flanneld_py.pods.answer import Answer, answer
from flanneld_py.pods.errors import CniError, ElsewhereError
from flanneld_py.pods.invocation import decode_environment, parse_invocation
from flanneld_py.pods.verbs import Daemon, Server, perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from flanneld_py.agent.pod_request import Request
    from flanneld_py.pods.fields import Fields
    from flanneld_py.pods.invocation import Invocation

log = logging.getLogger(__name__)

_DECLINED = (2, b"")
_OF_ONE_CONTAINER = frozenset({"ADD", "DEL", "CHECK"})


class _Warm(threading.local):
    """A worker's own socket, opened with its first call."""

    sock: NetlinkSocket | None = None


class _Turns:
    """Has calls of the same container wait for each other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy: set[bytes] = set()

    @contextmanager
    def take(self, container_id: bytes) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: container_id not in self._busy)
            self._busy.add(container_id)
        try:
            yield
        finally:
            with self._changed:
                self._busy.remove(container_id)
                self._changed.notify_all()


class PodCalls:
    """Serves calls, several threads at once; `outages` says what keeps other nodes from the pods here."""

    def __init__(self, outages: Callable[[], Sequence[str]]) -> None:
        self._outages = outages
        self._warm = _Warm()
        self._reaper = PodReaper()
        self._herald = PodHerald()
        self._turns = _Turns()
        self._namespace = identify_own()

    @staticmethod
    def prepare() -> None:
        """Import what the first ADD would: with the bridge that it makes, it is the longest call anyhow."""
        import flanneld_py.kernel.announcement
        import flanneld_py.pods.attach
        import flanneld_py.pods.rejoin  # noqa: F401

    def take_turn(self, request: Request) -> AbstractContextManager[None]:
        """Wait for other calls of the container to end, and have those that come later wait until the context is left.

        An ADD whose caller was killed must not go on beside, or begin after, the DEL that clears up behind it.
        """
        return self._turns.take(request.environment.get(b"CNI_CONTAINERID", b""))

    def leave(self) -> None:
        """Close what the calling thread keeps open between calls; it has served its last."""
        if self._warm.sock is not None:
            self._warm.sock.close()
            self._warm.sock = None

    def close(self, seconds: float) -> None:
        """Complete what was put off, in so many seconds at most."""
        deadline = time.monotonic() + seconds
        self._herald.close(seconds)
        self._reaper.wait_for_all(max(0.0, deadline - time.monotonic()))

    def serve(self, request: Request) -> tuple[int, bytes]:
        """Serve a call and return exit status and standard output; status 2 leaves the call to the plugin."""
        self._herald.hush()
        try:
            given = self._answer(request)
        except ElsewhereError:
            _log_call(request, "is left to the plugin")
            return _DECLINED
        _log_call(request, "succeeded" if given.status == 0 else given.output)
        return given.status, given.output.encode()

    def _answer(self, request: Request) -> Answer:
        if identify(request.namespace) != self._namespace:
            raise ElsewhereError
        return answer(lambda: self._perform(request))

    def _perform(self, request: Request) -> Fields | None:
        call = parse_invocation(decode_environment(request.environment), request.config)
        container = _choose_container(call, request.container, self._namespace)
        if call.verb in _OF_ONE_CONTAINER:
            self._reaper.wait_for(call.container_id)
        else:
            self._reaper.wait_for_all()
        if self._warm.sock is None:
            self._warm.sock = NetlinkSocket()
        folders = _Folders(request.root)
        server = Server(
            self._warm.sock, Daemon(folders.require_same, self._reaper.take, self._herald.take, self._outages)
        )
        was_busy = self._reaper.is_busy
        try:
            return perform(call, container, server)
        except CniError as error:
            if error.code == errors.TRY_AGAIN_LATER:  # the plugin's process waits for a while, a worker must not
                raise ElsewhereError from error
            may_be_in_the_way = call.verb == "ADD" or error.code == errors.PLUGIN_NOT_AVAILABLE
            if not may_be_in_the_way or not (self._reaper.wait_for_all() or was_busy):
                raise
        # What DELs left is gone since: their addresses, and the devices in namespaces that are used again.
        return perform(call, container, server)


def _log_call(request: Request, outcome: str) -> None:
    variables = decode_environment(request.environment)
    log.debug("cni: %s for %s %s", variables.get("CNI_COMMAND"), variables.get("CNI_CONTAINERID"), outcome)


def _choose_container(call: Invocation, descriptor: int | None, own: tuple[int, int]) -> int | None:
    """Return the container's namespace as `verbs.open_container` would; what is not plain is the plugin's to judge."""
    if not call.netns:
        return None
    if descriptor is None or not is_network_namespace(descriptor):
        if call.verb == "DEL":
            return None
        raise ElsewhereError
    if identify(descriptor) == own:
        raise ElsewhereError
    return descriptor


class _Folders(NamedTuple):
    """The caller's folders; `root` is the descriptor of its root."""

    root: int

    def require_same(self, paths: Sequence[str]) -> None:
        """Raise ElsewhereError unless each path leads the caller and the daemon to the same place."""
        has_same_root = identity_of(os.stat("/")) == identity_of(os.fstat(self.root))  # noqa: PTH116 - beside fstat
        for path in paths:
            if not path.startswith("/") or "\0" in path or not self._is_same(path, has_same_root=has_same_root):
                raise ElsewhereError

    def _is_same(self, path: str, *, has_same_root: bool) -> bool:
        parts = [part for part in path.split("/") if part]
        if not has_same_root and not self._is_without_links(parts):
            return False  # a link in the caller's tree would be followed in the daemon's
        for end in range(len(parts), 0, -1):
            relative = "/".join(parts[:end])
            ours, theirs = _look(f"/{relative}", None), _look(relative, self.root)
            if ours is not None or theirs is not None:
                return ours == theirs
        return has_same_root

    def _is_without_links(self, parts: Sequence[str]) -> bool:
        for end in range(1, len(parts) + 1):
            try:
                found = os.lstat("/".join(parts[:end]), dir_fd=self.root)
            except OSError:
                return True
            if stat.S_ISLNK(found.st_mode) or parts[end - 1] == "..":
                return False
        return True


def _look(path: str, folder: int | None) -> tuple[int, int] | None:
    try:
        return identity_of(os.stat(path, dir_fd=folder))
    except OSError:
        return None
