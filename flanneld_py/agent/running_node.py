"""The node while it runs: its parts, and how they go on together when the node becomes another in some respect."""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import sdnotify

from flanneld_py.core.peer import Members
from flanneld_py.core.subnet_env import SubnetEnv

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.agent.lease_keeper import LeaseKeeper
    from flanneld_py.agent.on_demand import OnDemand
    from flanneld_py.agent.reconciler import Reconciler
    from flanneld_py.agent.startup import Node
    from flanneld_py.agent.status import NodeStatus
    from flanneld_py.agent.subnet_file import SubnetFile
    from flanneld_py.kernel.device import Device
    from flanneld_py.store.subnet_manager import SubnetManager

log = logging.getLogger(__name__)


def members_of(node: Node) -> Members:
    """Return what the leases of others are judged by on this node."""
    return Members(
        node.held.key,
        node.request.attrs[:2],
        tuple(part.network for part in node.config.ranges),
        node.held.lease.subnets,
        node.uplink.interface.prefixes,
        tuple(part.subnet_len for part in node.config.ranges),
    )


def devices_of(node: Node, *, on_demand: bool) -> dict[int, Device]:
    """Return the devices that the node needs, by the address family that each carries."""
    devices = node.backend.devices(node.held.lease._replace(attrs=node.request.attrs))
    return {family: replace(device, asks=on_demand) for family, device in devices.items()}


@dataclass(slots=True)
class Announcement:
    """The subnet file: written once all conditions are met, then anew where it is to say something else."""

    file: SubnetFile
    ip_masq: bool
    conditions: tuple[asyncio.Event, ...]

    async def wait(self) -> None:
        """Return once pods may be told."""
        for condition in self.conditions:
            await condition.wait()

    def tell(self, node: Node) -> None:
        """Write what pods have to know."""
        self.file.tell(
            SubnetEnv(
                tuple(part.network for part in node.config.ranges),
                node.held.lease.subnets,
                node.backend.mtu,
                self.ip_masq,
            )
        )


@dataclass(slots=True)
class RunningNode:
    """The parts that work for the node, and the tasks that end with what it was."""

    node: Node
    store: SubnetManager
    ground: GroundKeeper
    reconciler: Reconciler
    keeper: LeaseKeeper
    on_demand: OnDemand | None
    status: NodeStatus
    announcement: Announcement
    group: asyncio.TaskGroup
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def start(self) -> None:
        """Start the tasks; they run until the group ends."""
        self.group.create_task(self.reconciler.run(), name="reconciler")
        self.group.create_task(self.keeper.run(), name="lease keeper")
        if self.on_demand:
            on_demand = self.on_demand.run(self.reconciler, self.ground, self.keeper)
            self.group.create_task(on_demand, name="on demand")
        else:
            self._restart("lease watch", self._follow_leases())
        self._restart("backend", self.node.backend.run(self.node.held.lease, self.reconciler))
        self.group.create_task(self._announce(), name="announce")

    def go_on(self, node: Node) -> None:
        """Have all parts go on as this node, which has the same subnets."""
        former, self.node = self.node, node
        uplink = node.uplink.interface.ifindex
        self.ground.rebase(node.backend, devices_of(node, on_demand=self.on_demand is not None), uplink)
        self.reconciler.rebase(former.backend, node.backend)
        judged_anew = self.reconciler.leases.rebase(node.backend.read_peers, members_of(node))
        if (judged_anew or former.request.attrs != node.request.attrs) and not self.on_demand:
            # Which leases may become peers is another question now: all have to be told again.
            self._restart("lease watch", self._follow_leases())
        self._restart("backend", node.backend.run(node.held.lease, self.reconciler))
        self.keeper.publish(node.request.attrs)
        self.status.go_on(node)
        if self.announcement.file.is_told:
            self.announcement.tell(node)

    def _restart(self, name: str, work: Coroutine[None, None, None]) -> None:
        former = self._tasks.pop(name, None)
        if former is not None:
            former.cancel()
        self._tasks[name] = self.group.create_task(work, name=name)

    async def _follow_leases(self) -> None:
        async with aclosing(self.store.watch_leases()) as batches:
            async for events in batches:
                self.reconciler.take_events(events)
                self.keeper.take_events(events)

    async def _announce(self) -> None:
        """Tell pods and systemd, once packets can be carried."""
        await self.announcement.wait()
        self.announcement.tell(self.node)
        await self.announcement.file.wait()
        sdnotify.SystemdNotifier().notify("READY=1")
        log.info("ready: subnet_file=%s peers=%d", self.announcement.file.path, len(self.reconciler.leases.peers))
        await self.announcement.file.keep()
