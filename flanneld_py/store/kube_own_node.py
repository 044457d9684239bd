"""OwnNode: our own Node, whose podCIDRs are our subnets and whose annotations are our lease.

Owns what is written there and when: only what differs, as strategic merge patches of the Node's status.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from flanneld_py.core.errors import LeaseLostError, LeaseTakenError, StoreError
from flanneld_py.core.lease import Lease, LeaseAttrs
from flanneld_py.core.prefix import IPV4
from flanneld_py.store.kube_errors import NotFoundError
from flanneld_py.store.kube_node import (
    NodeRecord,
    changed_annotations,
    is_managed,
    overwrite_public,
    read_lease,
    read_node_public,
    read_subnets,
    trim_node,
)
from flanneld_py.store.kube_watch import NODES
from flanneld_py.store.subnet_manager import HeldLease

if TYPE_CHECKING:
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.store.kube_client import KubeClient
    from flanneld_py.store.kube_node import SubnetPair
    from flanneld_py.store.kube_options import KubeOptions
    from flanneld_py.store.subnet_manager import LeaseRequest

logger = logging.getLogger(__name__)


class OwnNode:
    """Our Node; `name` is empty until it is known."""

    def __init__(self, client: KubeClient, options: KubeOptions) -> None:
        self._client = client
        self._options = options
        self._held: tuple[SubnetPair, LeaseAttrs] | None = None  # our subnets, and what the backend wants published
        self._is_announced = False
        self.name = options.node_name

    async def find(self) -> Lease | None:
        """Return the lease that our Node carries, if it has one that can be read. Raises StoreError."""
        node = await self._read()
        try:
            return read_lease(node)
        except ValueError:
            return None  # it is written anew in any case

    async def read_public(self) -> tuple[int | None, int | None]:
        """Return the addresses that the operator gives in place of the uplink's. Raises StoreError."""
        node = await self._read()
        try:
            return read_node_public(node)
        except ValueError as error:
            raise StoreError(f"Node {node.name}: {error}") from error

    async def acquire(self, request: LeaseRequest) -> HeldLease:
        """Publish our attributes on our Node, whose podCIDRs are our subnets. Raises StoreError."""
        node = await self._read()
        pair = _pick_subnets(node, request.config)
        return await self._publish(node, pair, request.attrs)

    async def renew(self, held: HeldLease, attrs: LeaseAttrs) -> HeldLease:
        """See to it that our Node is as we wrote it.

        Raises LeaseLostError where it is gone, LeaseTakenError where it has other podCIDRs, and StoreError.
        """
        try:
            return await self.restore(held, attrs)
        except NotFoundError as error:
            raise LeaseLostError(f"Node {held.key} is gone") from error

    async def restore(self, held: HeldLease, attrs: LeaseAttrs) -> HeldLease:
        """Publish `attrs` on our Node, which may have been made anew. Raises as `renew`, but StoreError for no Node."""
        node = await self._read()
        pair = held.lease.subnet, held.lease.ipv6_subnet
        if not _has_subnets(node, pair):
            raise LeaseTakenError(held.key, f"a Node with other podCIDRs, {', '.join(node.pod_cidrs) or 'none yet'}")
        return await self._publish(node, pair, attrs)

    async def announce_ready(self) -> None:
        """Set the Node's condition NetworkUnavailable to False, if that is wished. Raises StoreError."""
        self._is_announced = True
        if not self._options.set_network_unavailable:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": "NetworkUnavailable",
            "status": "False",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": "FlannelIsUp",
            "message": "Flannel is running on this node",
        }
        await self._client.patch(f"{await self._path()}/status", {"status": {"conditions": [condition]}})

    def check(self, node: NodeRecord, lease: Lease) -> Lease:
        """Return a Node's lease; ours as we asked for it, whatever the operator has published in place of that.

        Raises ValueError where our Node is no longer as we wrote it, or as the operator wants it written now.
        """
        if self._held is None or node.name != self.name:
            return lease
        pair, attrs = self._held
        if not _has_subnets(node, pair):
            raise ValueError("our Node has other podCIDRs than we carry")
        if changed_annotations(node, overwrite_public(node, attrs)):
            raise ValueError("our Node's annotations are not what we publish")
        return Lease(*pair, attrs)

    async def _publish(self, node: NodeRecord, pair: SubnetPair, attrs: LeaseAttrs) -> HeldLease:
        try:
            published = overwrite_public(node, attrs)
        except ValueError as error:
            raise StoreError(f"Node {node.name}: {error}") from error
        changed = changed_annotations(node, published)
        self._held = pair, attrs
        if changed:
            prefix = self._options.annotation_prefix
            patch = {"metadata": {"annotations": {prefix + name: text for name, text in changed.items()}}}
            await self._client.patch(f"{await self._path()}/status", patch)
            logger.info("node annotated: node=%s changed=%s", node.name, ",".join(sorted(changed)))
        if self._is_announced and not is_managed(node):
            await self.announce_ready()  # this Node has been made anew
        return HeldLease(node.name, Lease(*pair, published), None)

    async def _read(self) -> NodeRecord:
        try:
            return trim_node(await self._client.get(await self._path()), self._options.annotation_prefix)
        except ValueError as error:
            raise StoreError(f"Node {self.name}: {error}") from error

    async def _path(self) -> str:
        if not self.name:
            self.name = await self._find_name()
        return f"{NODES}/{quote(self.name, safe='')}"

    async def _find_name(self) -> str:
        options = self._options
        pod = await self._client.get(
            f"/api/v1/namespaces/{quote(options.pod_namespace, safe='')}/pods/{quote(options.pod_name, safe='')}"
        )
        spec = pod.get("spec")
        name = spec.get("nodeName") if isinstance(spec, dict) else None
        if not name:
            raise StoreError(f"pod {options.pod_namespace}/{options.pod_name} is on no Node yet")
        return str(name)


def _has_subnets(node: NodeRecord, pair: SubnetPair) -> bool:
    """Say whether the Node's podCIDRs are still the subnets that we carry; it may have one more."""
    try:
        found = read_subnets(node)
    except ValueError:
        return False
    return all(ours is None or ours == theirs for ours, theirs in zip(pair, found, strict=True))


def _pick_subnets(node: NodeRecord, config: NetworkConfig) -> SubnetPair:
    """Return the podCIDRs of the families that the configuration has. Raises StoreError saying which is missing."""
    if not node.pod_cidrs:
        raise StoreError(
            f"Node {node.name} has no podCIDR yet: does kube-controller-manager run with --allocate-node-cidrs=true?"
        )
    try:
        found = read_subnets(node)
    except ValueError as error:
        raise StoreError(f"Node {node.name}: {error}") from error
    picked = []
    for part, subnet, name in zip((config.ipv4, config.ipv6), found, ("IPv4", "IPv6"), strict=True):
        if part is not None and subnet is None:
            raise StoreError(f"Node {node.name} has no {name} podCIDR, only {', '.join(node.pod_cidrs)}")
        if part is not None and subnet is not None and not part.network.contains(subnet):
            key = "Network" if subnet.family == IPV4 else "IPv6Network"
            raise StoreError(f"Node {node.name}: podCIDR {subnet} lies outside {key} {part.network} of net-conf.json")
        picked.append(None if part is None else subnet)
    return picked[0], picked[1]
