"""Where others come in to the daemon: its sockets, made again where somebody took their files away, and its pages."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from flanneld_py.agent.control import ControlSocket
from flanneld_py.agent.metrics_page import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from flanneld_py.agent.metrics_page import MetricsPage
    from flanneld_py.agent.options import Options
    from flanneld_py.agent.pod_service import PodService
    from flanneld_py.agent.status import NodeStatus

log = logging.getLogger(__name__)

_CHECK_SECONDS = 5.0
"""Between two looks at the files."""


class Entrance(Protocol):
    """Somewhere to come in."""

    path: Path

    def stands(self) -> bool:
        """Say whether who goes by the path comes to us."""

    async def reopen(self) -> None:
        """Listen at the path anew; who has come in is served to the end. Raises OSError."""


async def open_entrances(
    stack: AsyncExitStack, options: Options, status: NodeStatus, metrics: MetricsPage
) -> tuple[list[Entrance], PodService | None]:
    """Answer about health and status from the beginning: what is waited for can be asked.

    Returns all that is to be kept, and what serves the CNI plugin, where that is served.
    """
    pods = None
    metrics.add("status", status)
    root = logging.getLogger()
    root.addHandler(status.recent)
    stack.callback(root.removeHandler, status.recent)
    answers = {"status": status.describe, "peers": status.describe_peers, "probe": status.describe_probes}
    control = ControlSocket(options.socket_path, answers)
    await control.open()
    stack.callback(control.close)
    entrances: list[Entrance] = [control]
    if options.cni_service:
        from flanneld_py.agent.pod_service import start_pod_service

        pods = start_pod_service(options.subnet_file, status.outages)
        if pods is not None:
            stack.callback(pods.close)
            metrics.add("pods", pods)
            entrances.append(pods)
    if options.healthz_port:
        from flanneld_py.agent.health import Page, serve_health

        reports = {"/healthz": status.health, "/readyz": status.readiness}
        pages = {"/metrics": Page(CONTENT_TYPE, metrics.encode)}
        health = await serve_health(options.healthz_ip, options.healthz_port, reports, pages)
        stack.callback(health.close)
    return entrances, pods


async def keep_entrances(entrances: Sequence[Entrance], *, check_seconds: float = _CHECK_SECONDS) -> None:
    """Look after them until cancelled."""
    troubles: dict[Path, str] = {}
    while True:
        await asyncio.sleep(check_seconds)
        for entrance in entrances:
            if entrance.stands():
                continue
            path = entrance.path
            try:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                await entrance.reopen()
            except OSError as error:
                if troubles.get(path) != str(error):
                    log.error("nobody can come in, tried again: path=%s reason=%s", path, error)  # noqa: TRY400
                troubles[path] = str(error)
            else:
                troubles.pop(path, None)
                log.warning("made again, it was not there as it should be: path=%s", path)
