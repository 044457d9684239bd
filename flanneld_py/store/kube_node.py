"""A Node of Kubernetes as far as it concerns us: its podCIDRs, its annotations, and the lease that they are.

Pure. Owns the names of the annotations and what is written into them, byte for byte as Go flannel does.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld_py.core.lease import Lease, LeaseAttrs
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, format_address, prefix_around

if TYPE_CHECKING:
    from collections.abc import Mapping

_MANAGED = "kube-subnet-manager"
_TYPE = "backend-type"
_DATA, _V6_DATA = "backend-data", "backend-v6-data"
_PUBLIC = {IPV4: "public-ip", IPV6: "public-ipv6"}
_OVERWRITE = {IPV4: "public-ip-overwrite", IPV6: "public-ipv6-overwrite"}
_NODE_PUBLIC = {IPV4: "node-public-ip", IPV6: "node-public-ipv6"}
_NAMES = (_MANAGED, _TYPE, _DATA, _V6_DATA, *_PUBLIC.values(), *_OVERWRITE.values(), *_NODE_PUBLIC.values())

SubnetPair = tuple[Prefix | None, Prefix | None]


class NodeRecord(NamedTuple):
    """A Node trimmed to what concerns us; `annotations` are ours, by their names without the prefix."""

    name: str
    pod_cidrs: tuple[str, ...]
    annotations: Mapping[str, str]


def trim_node(node: Mapping[str, Any], prefix: str) -> NodeRecord:
    """Return what concerns us of a Node as the API tells it; raise ValueError where it is no Node."""
    metadata, spec = node.get("metadata"), node.get("spec")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise ValueError("a Node without a name")  # noqa: TRY004 - bad data, not a caller's wrong type
    annotations = metadata.get("annotations") or {}
    spec = spec if isinstance(spec, dict) else {}
    cidrs = spec.get("podCIDRs") or [cidr for cidr in (spec.get("podCIDR"),) if cidr]
    found = {name: annotations[prefix + name] for name in _NAMES if prefix + name in annotations}
    return NodeRecord(metadata["name"], tuple(map(str, cidrs)), found)


def is_managed(node: NodeRecord) -> bool:
    """Say whether the Node is a flannel daemon's."""
    return node.annotations.get(_MANAGED) == "true"


def read_lease(node: NodeRecord) -> Lease | None:
    """Return a Node's lease, None where it has none (yet); raise ValueError saying what is wrong with it.

    A Node is not flannel's without the annotation `kube-subnet-manager: "true"`, and has no subnet without a podCIDR.
    """
    if not is_managed(node) or not node.pod_cidrs:
        return None
    subnet, ipv6_subnet = read_subnets(node)
    attrs = LeaseAttrs(
        _read_address(node, _PUBLIC[IPV4], IPV4),
        _read_address(node, _PUBLIC[IPV6], IPV6),
        node.annotations.get(_TYPE, ""),
        _read_data(node, _DATA),
        _read_data(node, _V6_DATA),
    )
    return Lease(subnet, ipv6_subnet, attrs)


def read_subnets(node: NodeRecord) -> SubnetPair:
    """Return the Node's podCIDRs by family, the first of each; raise ValueError where one is none."""
    found: dict[int, Prefix] = {}
    for text in node.pod_cidrs:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise ValueError(f"podCIDR {text[:60]!r} is no prefix") from error
        prefix = prefix_around(network.version, int(network.network_address), network.prefixlen)
        found.setdefault(network.version, prefix)
    return found.get(IPV4), found.get(IPV6)


def read_node_public(node: NodeRecord) -> tuple[int | None, int | None]:
    """Return the addresses that the operator gives in place of the uplink's; raise ValueError where one is none."""
    return _read_address(node, _NODE_PUBLIC[IPV4], IPV4), _read_address(node, _NODE_PUBLIC[IPV6], IPV6)


def overwrite_public(node: NodeRecord, attrs: LeaseAttrs) -> LeaseAttrs:
    """Return what is published in place of `attrs`, as the operator overwrites it; raise ValueError where it cannot."""
    public_ip, public_ipv6 = attrs.public_ip, attrs.public_ipv6
    if public_ip is not None:
        public_ip = _read_address(node, _OVERWRITE[IPV4], IPV4) or public_ip
    if public_ipv6 is not None:
        public_ipv6 = _read_address(node, _OVERWRITE[IPV6], IPV6) or public_ipv6
    return attrs._replace(public_ip=public_ip, public_ipv6=public_ipv6)


def changed_annotations(node: NodeRecord, attrs: LeaseAttrs) -> dict[str, str | None]:
    """Return which annotations, by name without the prefix, must become what for `attrs`; None deletes."""
    wanted = _encode_annotations(attrs)
    # What a former configuration had published would be programmed by peers that still carry that family.
    stale = {name: None for name in (_DATA, _V6_DATA, *_PUBLIC.values()) if name not in wanted}
    return {name: text for name, text in {**stale, **wanted}.items() if node.annotations.get(name) != text}


def _encode_annotations(attrs: LeaseAttrs) -> dict[str, str]:
    texts = {_MANAGED: "true", _TYPE: attrs.backend_type}
    # Go flannel writes a family's pair for these: vxlan only where it carries the family, other backends as follows.
    if attrs.backend_type != "vxlan" or attrs.backend_data is not None:
        texts[_DATA] = attrs.backend_data or "null"
        texts[_PUBLIC[IPV4]] = format_address(IPV4, attrs.public_ip or 0)
    if attrs.public_ipv6 is not None and (attrs.backend_v6_data is not None or attrs.backend_type == "host-gw"):
        texts[_V6_DATA] = attrs.backend_v6_data or "null"
        texts[_PUBLIC[IPV6]] = format_address(IPV6, attrs.public_ipv6)
    return texts


def _read_address(node: NodeRecord, name: str, family: int) -> int | None:
    text = node.annotations.get(name)
    if not text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError(f"annotation {name} is no address: {text[:60]!r}") from error
    if address.version != family:
        raise ValueError(f"annotation {name} is no IPv{family} address: {text[:60]!r}")
    return int(address) or None


def _read_data(node: NodeRecord, name: str) -> str | None:
    text = node.annotations.get(name)
    return None if text is None or text in {"", "null"} else text
