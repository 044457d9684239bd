"""What an operator reads of the Kubernetes API: the Nodes as leases, and the configuration's file.

Owns no connection beyond its own use, and writes nothing: a Node's podCIDR is Kubernetes' to give and to take.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease import encode_key
from flanneld_py.core.lease_event import LeaseRejected
from flanneld_py.store.admin import StoredConfig, StoredLease
from flanneld_py.store.kube_client import KubeClient
from flanneld_py.store.kube_node import is_managed, read_lease, trim_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flanneld_py.core.lease import Lease
    from flanneld_py.store.kube_node import NodeRecord
    from flanneld_py.store.kube_options import KubeOptions

_PAGE = "500"


class KubeAdmin:
    """Single reads; each raises StoreError where the API server does not answer."""

    assigns_subnets = True

    def __init__(self, options: KubeOptions) -> None:
        self._options = options
        self._client = KubeClient(options)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def read_config(self) -> StoredConfig:
        """Return what the configuration's file holds: on a node it is a ConfigMap's, which a pod of flannel mounts."""
        path = self._options.net_config
        try:
            return StoredConfig(path.read_text(encoding="utf-8", errors="replace"), 0)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; --net-config-path names the daemon's file") from error

    async def list_leases(self) -> tuple[dict[str, Lease], dict[str, str]]:
        """Return the leases of all Nodes by the Node's name, and why others cannot be read."""
        leases: dict[str, Lease] = {}
        rejected: dict[str, str] = {}
        async for node in self._nodes():
            found = _judge(node)
            if isinstance(found, LeaseRejected):
                rejected[node.name] = found.reason
            elif found is not None:
                leases[node.name] = found
        return leases, rejected

    async def read_lease(self, name: str) -> StoredLease | None:
        """Return the lease of a Node, by the Node's name or by its subnets as etcd's keys have them."""
        async for node in self._nodes():
            found = _judge(node)
            if found is None:
                continue
            key = "" if isinstance(found, LeaseRejected) else encode_key(*found[:2])
            if name in {node.name, key}:
                return StoredLease(node.name, found, json.dumps(dict(node.annotations)), None, 0)
        return None

    async def _nodes(self) -> AsyncIterator[NodeRecord]:
        """Go through the Nodes that are flannel's."""
        query = {"limit": _PAGE}
        while True:
            page: dict[str, Any] = await self._client.get("/api/v1/nodes", query)
            for item in page.get("items") or ():
                node = trim_node(item, self._options.annotation_prefix)
                if is_managed(node):
                    yield node
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return
            query = {"limit": _PAGE, "continue": more}


def _judge(node: NodeRecord) -> Lease | LeaseRejected | None:
    try:
        return read_lease(node)
    except ValueError as error:
        return LeaseRejected(node.name, str(error))
