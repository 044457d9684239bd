"""The same lab with another backend or other address families. Pure."""

from collections.abc import Mapping
from typing import Any

from netns_lab.errors import TopologyError
from netns_lab.topology import IPV4, IPV6

IPV6_NETWORK = "fd10:244::/48"
ONE_LAYER_2 = frozenset({"host-gw"})
"""Backends that carry nothing to a node behind a router."""


def vary(
    values: Mapping[str, object], backend: str | None, families: tuple[int, ...] | None, *, whole: bool
) -> dict[str, object]:
    """Return a topology's values with this backend, without keys of its own, and these families; None keeps them.

    The `whole` topology may change, not the cluster's configuration alone: its nodes move together for a backend that
    needs it. Raises TopologyError.
    """
    network = _table(values, "network")
    if families is not None:
        given = {key.lower() for key in network}
        network = {key: value for key, value in network.items() if key.lower() not in {"enableipv4", "enableipv6"}}
        network |= {"EnableIPv4": IPV4 in families, "EnableIPv6": IPV6 in families}
        if IPV6 in families and "ipv6network" not in given:
            network["IPv6Network"] = IPV6_NETWORK
    changed = {**values, "network": network}
    if backend is not None:
        network["Backend"] = {"Type": backend}
        if whole and backend in ONE_LAYER_2:
            first = next(iter(_table(values, "underlay")))
            changed["nodes"] = {name: {**node, "underlay": first} for name, node in _table(values, "nodes").items()}
    return changed


def _table(values: Mapping[str, object], key: str) -> dict[str, Any]:
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise TopologyError(f"{key}: must be a table, not {table!r}")
    return dict(table)
