"""Devices of containers that a DEL disconnected: deleted after its answer, and only then their addresses given back.

Deleting a veth pair takes the kernel 20 ms, most of it waiting; deleting twenty in one request takes no longer. So one
thread deletes whatever has come together since it last looked, as one device group.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.kernel import errnos, netlink
from flanneld_py.kernel import link as links
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

_PATIENCE = 30.0


class _Device(NamedTuple):
    """A disconnected device by its index on the host, and what completes its DEL."""

    container_id: str
    ifindex: int
    complete: Callable[[], None]


class PodReaper:
    """Takes devices from several threads at once; its own thread lives while there is something to delete."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_Device] = []
        self._in_work: list[_Device] = []
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a device is left to be deleted."""
        with self._changed:
            return bool(self._pending())

    def take(self, container_id: str, ifindex: int, complete: Callable[[], None]) -> None:
        """Delete a device soon, and call `complete` when it is gone."""
        with self._changed:
            self._waiting.append(_Device(container_id, ifindex, complete))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cni reaper", daemon=True)
                self._thread.start()

    def wait_for(self, container_id: str) -> None:
        """Return when no device of a container is left to be deleted."""
        with self._changed:
            self._changed.wait_for(
                lambda: not any(device.container_id == container_id for device in self._pending()), _PATIENCE
            )

    def wait_for_all(self, seconds: float = _PATIENCE) -> bool:
        """Return when no device is left to be deleted, or after so many seconds; say whether there was any."""
        with self._changed:
            had_any = bool(self._pending())
            self._changed.wait_for(lambda: not self._pending(), seconds)
            return had_any

    def _pending(self) -> list[_Device]:
        return self._in_work + self._waiting

    def _run(self) -> None:
        while devices := self._next():
            try:
                with NetlinkSocket() as sock:
                    for device in _delete(sock, devices):
                        _complete(device)
            except OSError as error:
                log.warning("cni: %d devices of containers stay: %s", len(devices), error)

    def _next(self) -> list[_Device]:
        with self._changed:
            self._in_work, self._waiting = self._waiting, []
            self._changed.notify_all()
            if not self._in_work:
                self._thread = None
            return self._in_work


def _complete(device: _Device) -> None:
    try:
        device.complete()
    except (CniError, OSError) as error:
        log.warning("cni: a DEL of container %s is not complete: %s", device.container_id, error)


def _delete(sock: NetlinkSocket, devices: Sequence[_Device]) -> list[_Device]:
    """Delete devices and return those that are gone; an address stays with one that is not."""
    group = netlink.encode_u32(links.IFLA_GROUP, int.from_bytes(os.urandom(4), "big") | 1)
    sock.execute_batch([links.encode_set(device.ifindex, group) for device in devices])
    sock.execute_batch([links.encode_delete_group(group)])
    gone = []
    failed = sock.execute_batch([links.encode_delete(device.ifindex) for device in devices])
    for index, device in enumerate(devices):
        errno, reason = failed.get(index, (0, ""))
        if errno and errno not in errnos.ABSENT:
            log.warning("cni: the device of container %s stays: %s", device.container_id, reason)
        else:
            gone.append(device)
    return gone
