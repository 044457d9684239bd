"""The page of metrics: the parts of the daemon that it is about, as they come; what it says is in `metrics`.

That is imported when somebody looks, so that a daemon that nobody looks at does not pay for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flanneld_py.core.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.core.metrics import Values
    from flanneld_py.kernel.link_statistics import LinkStatistics
    from flanneld_py.kernel.netlink_socket import NetlinkSocket

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    """All metrics of the daemon, as far as the parts that they are about are there yet."""

    def __init__(self) -> None:
        self._started = time.time()
        self._parts: list[tuple[str, object]] = []

    def add(self, group: str, part: object) -> None:
        """Have a group of families (`metrics.FAMILIES`) read from a part of the daemon from now on."""
        self._parts.append((group, part))

    def encode(self) -> str:
        """Return the page as it is now."""
        from flanneld_py.agent.metrics import encode_page

        return encode_page(self._parts, self._started)


class Tunnels:
    """Our devices, as their counters tell."""

    def __init__(self, sock: NetlinkSocket, ground: GroundKeeper) -> None:
        self._sock = sock
        self._ground = ground

    def read(self, received: Callable[[LinkStatistics], int], sent: Callable[[LinkStatistics], int]) -> Values:
        """Return a counter of each device, by its name and the direction; a device that is gone tells nothing."""
        from flanneld_py.kernel.link_statistics import read_link_statistics

        values: dict[tuple[str, ...], float] = {}
        for ifindex in self._ground.scope.devices.values():
            try:
                found = read_link_statistics(self._sock, ifindex)
            except KernelError:
                continue
            values[found.name, "receive"], values[found.name, "transmit"] = received(found), sent(found)
        return values
