"""Which changes of the cluster's configuration a running node follows, and which wait for its restart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld_py.core.network_config import NetworkConfig, SubnetRange

_LIVE = frozenset({"mtu", "directrouting"})
"""The keys of Backend, in lower case, that are followed: neither changes what a node is to the others."""


class ConfigChange(NamedTuple):
    """What a new configuration means: `followed` is what to go on with, `pending` the keys that wait for a restart."""

    followed: NetworkConfig
    pending: tuple[str, ...]


def follow_config(running: NetworkConfig, told: NetworkConfig, backend_keys: Iterable[str]) -> ConfigChange:
    """Compare the configuration that a node runs with a new one.

    `backend_keys` are those that its backend has beside Type: others change nothing.
    """
    pending = [
        *_range_changes("", running.ipv4, told.ipv4),
        *_range_changes("IPv6", running.ipv6, told.ipv6),
    ]
    if running.enable_nftables != told.enable_nftables:
        pending.append("EnableNFTables")
    if running.backend_type != told.backend_type:
        return ConfigChange(running, (*pending, "Backend.Type"))
    pending += [
        f"Backend.{key}"
        for key in backend_keys
        if (name := key.lower()) not in _LIVE and running.backend.get(name) != told.backend.get(name)
    ]
    kept = {key: value for key, value in running.backend.items() if key not in _LIVE}
    live = {key: value for key, value in told.backend.items() if key in _LIVE}
    return ConfigChange(replace(running, backend=kept | live), tuple(pending))


def _range_changes(prefix: str, running: SubnetRange | None, told: SubnetRange | None) -> Iterator[str]:
    if running is None or told is None:
        if running != told:
            yield f"Enable{prefix or 'IPv4'}"
        return
    for name, one, other in (
        ("Network", running.network, told.network),
        ("SubnetLen", running.subnet_len, told.subnet_len),
        ("SubnetMin", running.first, told.first),
        ("SubnetMax", running.last, told.last),
    ):
        if one != other:
            yield prefix + name
