"""KubeSubnetManager: the SubnetManager whose leases are the Nodes of a Kubernetes cluster.

Owns the putting together of configuration file, watch and own Node; each of them has a file of its own. A lease's key
is the name of its Node.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.store.kube_client import KubeClient
from flanneld_py.store.kube_net_config import watch_file
from flanneld_py.store.kube_node import read_lease
from flanneld_py.store.kube_own_node import OwnNode
from flanneld_py.store.kube_watch import NodePage, NodeWatch
from flanneld_py.store.watched_lease_finder import WatchedLeaseFinder

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from flanneld_py.core.lease import Lease, LeaseAttrs
    from flanneld_py.core.lease_event import LeaseChange, LeaseEvent
    from flanneld_py.core.prefix import Prefix
    from flanneld_py.store.counts import StoreCounts
    from flanneld_py.store.kube_node import NodeRecord, SubnetPair
    from flanneld_py.store.kube_options import KubeOptions
    from flanneld_py.store.subnet_manager import HeldLease, LeaseFinder, LeaseRequest

CONFIG_INTERVAL = 5.0
"""Seconds between two looks at the configuration file; kubelet takes a minute to replace it."""


class KubeSubnetManager:
    """Configuration and leases of one network in one Kubernetes cluster."""

    assigns_subnets = True

    def __init__(self, options: KubeOptions, rng: random.Random, *, config_interval: float = CONFIG_INTERVAL) -> None:
        self._options = options
        self._rng = rng
        self._config_interval = config_interval
        self._client = KubeClient(options)
        self._own = OwnNode(self._client, options)
        self._watches: list[NodeWatch] = []

    @property
    def trouble(self) -> str | None:
        """Why the API server cannot be followed at present; None where it can."""
        return next((watch.trouble.reason for watch in self._watches if watch.trouble.reason), None)

    @property
    def counts(self) -> StoreCounts:
        """What has been asked of the API server."""
        return self._client.counts

    def describe(self) -> dict[str, Any]:
        """Return how the API server is reached and which Node is ours."""
        options = self._options
        return {
            "type": "kubernetes",
            "node": self._own.name,
            "endpoint": self._client.endpoint,
            "kubeconfig": options.kubeconfig,
            "annotation_prefix": options.annotation_prefix,
            "net_config": str(options.net_config),
            "trouble": self.trouble,
        }

    async def watch_config(self) -> AsyncGenerator[str | None, None]:
        """Yield the text of net-conf.json, or None, now and whenever it changes."""
        async with aclosing(watch_file(self._options.net_config, self._config_interval)) as texts:
            async for text in texts:
                yield text

    async def read_public(self) -> tuple[int | None, int | None]:
        """Return what the annotations node-public-ip and node-public-ipv6 say."""
        return await self._own.read_public()

    async def find_own(
        self,
        attrs: LeaseAttrs,  # noqa: ARG002 - here a node is known by its name
        expected: Sequence[SubnetPair] = (),  # noqa: ARG002 - as above
    ) -> Lease | None:
        """Return the lease that our Node carries."""
        return await self._own.find()

    async def acquire(self, request: LeaseRequest) -> HeldLease:
        """Annotate our Node; it does not matter what is preferred, for the podCIDR counts."""
        return await self._own.acquire(request)

    async def renew(self, held: HeldLease, attrs: LeaseAttrs | None = None) -> HeldLease:
        """See to it that our Node says what we publish."""
        return await self._own.renew(held, attrs or held.lease.attrs)

    async def restore(self, held: HeldLease, attrs: LeaseAttrs) -> HeldLease:
        """Annotate our Node again, once it has been made anew with the same podCIDRs."""
        return await self._own.restore(held, attrs)

    async def announce_ready(self) -> None:
        """Set the Node's condition NetworkUnavailable to False."""
        await self._own.announce_ready()

    async def watch_leases(self) -> AsyncGenerator[Sequence[LeaseEvent], None]:
        """Yield a snapshot of all Nodes' leases in parts, then changes; Nodes change often, their leases seldom."""
        watch = NodeWatch(self._client, self._options.annotation_prefix, self._rng)
        self._watches.append(watch)
        told: dict[str, int] = {}  # what was told last of each Node, as a hash
        try:
            async with aclosing(watch.follow()) as updates:
                async for update in updates:
                    if isinstance(update, NodePage):
                        if update.first:
                            told.clear()
                        yield [self._read_page(update, told)]
                        continue
                    name = update.node.name
                    event = LeaseRemoved(name) if update.is_gone else self._read_node(update.node)
                    if not _is_told(told, event):
                        yield [event]
        finally:
            self._watches.remove(watch)

    def lease_finder(self, networks: Mapping[Prefix, int]) -> LeaseFinder:
        """Return what finds single leases among all of them: the API server finds no Node by its podCIDR."""
        return WatchedLeaseFinder(self, networks)

    def reconnect(self) -> None:
        """Make new connections; what is under way over the former ones is asked again."""
        self._client.reconnect()

    async def close(self) -> None:
        """Close the connections; the annotations stay."""
        await self._client.close()

    def _read_page(self, page: NodePage, told: dict[str, int]) -> LeaseSnapshot:
        leases: dict[str, Lease] = {}
        rejected: dict[str, str] = {}
        for node in page.nodes:
            event = self._read_node(node)
            _is_told(told, event)
            if isinstance(event, LeasePut):
                leases[event.key] = event.lease
            elif isinstance(event, LeaseRejected):
                rejected[event.key] = event.reason
        return LeaseSnapshot(leases, rejected, first=page.first, last=page.last)

    def _read_node(self, node: NodeRecord) -> LeaseChange:
        try:
            lease = read_lease(node)
            if lease is None:
                return LeaseRemoved(node.name)
            return LeasePut(node.name, self._own.check(node, lease))
        except ValueError as error:
            return LeaseRejected(node.name, str(error))


def _is_told(told: dict[str, int], event: LeaseChange) -> bool:
    """Say whether this is what was told last of the Node, and take note that it is told now."""
    if isinstance(event, LeaseRemoved):
        return told.pop(event.key, None) is None
    value = hash(event)
    if told.get(event.key) == value:
        return True
    told[event.key] = value
    return False
