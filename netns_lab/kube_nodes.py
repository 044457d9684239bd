"""Nodes of a lab's Kubernetes: real ones by its API, and fakes by the thousand straight into its etcd.

What the API server keeps in etcd is one key a Node, below `/registry/minions/`, in protobuf or JSON as it finds it.
Each is written by itself: the API server's watches lose what shares a revision of etcd with what they ended at.
"""

import json
import uuid
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

REGISTRY = "/registry/minions/"
PREFIX = "flannel.alpha.coreos.com/"


def node_object(name: str, cidrs: Iterable[str], annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a Node as kube-controller-manager would have it, with its podCIDRs; annotations without their prefix."""
    given = list(cidrs)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {PREFIX + key: text for key, text in (annotations or {}).items()},
        },
        "spec": {"podCIDR": given[0], "podCIDRs": given} if given else {},
    }


def fake_node(number: int) -> dict[str, Any]:
    """Return a Node with a vxlan lease that no machine stands behind; numbers from 0 to 32,767."""
    high, low = number >> 8, number & 255
    return node_object(
        f"fake-{number}",
        [f"10.{128 + high}.{low}.0/24"],
        {
            "kube-subnet-manager": "true",
            "backend-type": "vxlan",
            "backend-data": f'{{"VNI":1,"VtepMAC":"0a:00:00:00:{high:02x}:{low:02x}"}}',
            "public-ip": f"198.18.{high}.{low}",
        },
    )


def put_request(node: dict[str, Any]) -> dict[str, str]:
    """Return the request for etcd's JSON gateway that writes a Node."""
    metadata = node["metadata"] | {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"key": _code(REGISTRY + metadata["name"]), "value": _code(json.dumps(node | {"metadata": metadata}))}


def delete_request(node: dict[str, Any]) -> dict[str, str]:
    """Return the request for etcd's JSON gateway that deletes a Node."""
    return {"key": _code(REGISTRY + node["metadata"]["name"])}


def fake_count_request() -> dict[str, object]:
    """Return the request for etcd's JSON gateway that counts the fakes."""
    return {"key": _code(f"{REGISTRY}fake-"), "range_end": _code(f"{REGISTRY}fake."), "count_only": True}


def _code(text: str) -> str:
    return b64encode(text.encode()).decode()
