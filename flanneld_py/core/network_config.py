"""The cluster's configuration: `<prefix>/config` in etcd, `net-conf.json` with Kubernetes.

Parsed once into a complete immutable value; whatever is wrong raises a ConfigError that names the key and what is
expected. The keys below Backend beside Type belong to the backend, which parses them itself.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import fold_keys
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, bits, parse_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = (
    *("EnableIPv4", "EnableIPv6", "EnableNFTables", "Backend"),
    *(f"{prefix}{key}" for prefix in ("", "IPv6") for key in ("Network", "SubnetLen", "SubnetMin", "SubnetMax")),
)
"""What may be set beside Backend's own keys."""
DEFAULT_BACKEND_TYPE = "udp"
"""What a configuration without Backend means to Go flannel's code (its documentation says vxlan)."""

# Of Go flannel: a subnet leaves room for two hosts, a network for four subnets.
_LONGEST_SUBNET = {IPV4: 30, IPV6: 126}
_DEFAULT_SUBNET = {IPV4: 24, IPV6: 64}
_SUBNET_BITS = 2


@dataclass(frozen=True, slots=True)
class SubnetRange:
    """One address family's part: the network and which subnets of it may be leased.

    `first` and `last` are the lowest and the highest subnet that may be given, both included.
    """

    network: Prefix
    subnet_len: int
    first: Prefix
    last: Prefix

    def fits(self, subnet: Prefix) -> bool:
        """Say whether a subnet may be leased: its length and its place are right."""
        return (
            subnet.family == self.network.family
            and subnet.length == self.subnet_len
            and self.first.address <= subnet.address <= self.last.address
        )

    @property
    def count(self) -> int:
        """How many subnets may be leased."""
        return ((self.last.address - self.first.address) >> (bits(self.network.family) - self.subnet_len)) + 1

    def subnet_at(self, index: int) -> Prefix:
        """Return the subnet at a place from 0 to count - 1."""
        step = bits(self.network.family) - self.subnet_len
        return Prefix(self.network.family, self.first.address + (index << step), self.subnet_len)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The configuration, complete: a family that is off is None, defaults are filled in.

    `backend` holds the keys of Backend in lower case; `backend_given` says whether there was a Backend at all.
    """

    ipv4: SubnetRange | None
    ipv6: SubnetRange | None
    enable_nftables: bool
    backend_type: str
    backend: Mapping[str, Any]
    backend_given: bool

    @property
    def ranges(self) -> tuple[SubnetRange, ...]:
        """The ranges of the families that are on, IPv4 first."""
        return tuple(part for part in (self.ipv4, self.ipv6) if part is not None)


def parse_network_config(text: str | bytes, *, limits: bool = True) -> NetworkConfig:
    """Read the cluster's configuration.

    Keys match in any letter case, the last duplicate wins, unknown keys are ignored, null leaves the default. With
    `limits` off (Kubernetes, where the podCIDR counts) subnet lengths and bounds are neither checked nor used.
    Raises ConfigError.
    """
    fields = _parse_object(text)
    ipv4_on = boolean(fields, "EnableIPv4", default=True)
    ipv6_on = boolean(fields, "EnableIPv6", default=False)
    if not ipv4_on and not ipv6_on:
        raise ConfigError("EnableIPv4", "both EnableIPv4 and EnableIPv6 are off; expected at least one on")
    backend_type, backend, given = _parse_backend(fields.get("backend"))
    return NetworkConfig(
        ipv4=_parse_range(fields, IPV4, limits=limits) if ipv4_on else None,
        ipv6=_parse_range(fields, IPV6, limits=limits) if ipv6_on else None,
        enable_nftables=boolean(fields, "EnableNFTables", default=False),
        backend_type=backend_type,
        backend=backend,
        backend_given=given,
    )


def name_keys(text: str) -> list[str]:
    """Return the keys that are given a value, as they are written, those below Backend as Backend.KEY.

    Raises ConfigError.
    """
    _parse_object(text)
    given = {key: value for key, value in json.loads(text).items() if value is not None}
    below = [value for key, value in given.items() if key.lower() == "backend" and isinstance(value, dict)]
    return [*given, *(f"Backend.{key}" for part in below for key, value in part.items() if value is not None)]


def _parse_object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_fold_pairs)
    except (ValueError, RecursionError) as error:
        raise ConfigError("config", f"it is no JSON ({error}); expected an object like {_EXAMPLE}") from error
    if not isinstance(value, dict):
        raise ConfigError("config", f"it is no JSON object; expected one like {_EXAMPLE}")
    return value


_EXAMPLE = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'


def _fold_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    folded: dict[str, Any] = {}
    for key, value in pairs:
        folded.update(fold_keys({key: value}))
    return folded


def _parse_backend(value: object) -> tuple[str, Mapping[str, Any], bool]:
    if value is None:
        return DEFAULT_BACKEND_TYPE, {}, False
    if not isinstance(value, dict):
        raise ConfigError("Backend", 'it is no JSON object; expected one like {"Type":"vxlan"}')
    kind = value.get("type")
    if not isinstance(kind, str) or not kind:
        raise ConfigError("Backend.Type", 'it is missing or no string; expected one like "vxlan"')
    return kind.lower(), value, True


def _parse_range(fields: dict[str, Any], family: int, *, limits: bool) -> SubnetRange:
    prefix = "" if family == IPV4 else "IPv6"
    network = _network(fields, f"{prefix}Network", family)
    if not limits:
        return SubnetRange(network, network.length, network, network)
    longest = _LONGEST_SUBNET[family]
    shortest = network.length + _SUBNET_BITS
    if shortest > longest:
        raise ConfigError(
            f"{prefix}Network",
            f"{network} is too small; expected a prefix length up to {longest - _SUBNET_BITS}",
        )
    key = f"{prefix}SubnetLen"
    # Zero is what an absent length means to Go flannel, so it is the default as well.
    length = integer(fields, key, default=0) or max(_DEFAULT_SUBNET[family], shortest)
    if not shortest <= length <= longest:
        raise ConfigError(key, f"{length} does not fit the network {network}; expected {shortest} to {longest}")
    step = 1 << (bits(family) - length)
    first = _bound(fields, f"{prefix}SubnetMin", network, length, default=network.address + step)
    last = _bound(fields, f"{prefix}SubnetMax", network, length, default=network.last + 1 - step)
    if first.address > last.address:
        raise ConfigError(f"{prefix}SubnetMin", f"{first.base} lies behind {prefix}SubnetMax {last.base}")
    return SubnetRange(network, length, first, last)


def _network(fields: dict[str, Any], key: str, family: int) -> Prefix:
    value = fields.get(key.lower())
    example = "10.5.0.0/16" if family == IPV4 else "fd42::/48"
    if value is None:
        raise ConfigError(key, f'it is missing; expected a prefix like "{example}"')
    try:
        network = _any_host_bits(value)
    except ValueError as error:
        raise ConfigError(key, f'{value!r} is no prefix; expected one like "{example}"') from error
    if network.family != family:
        raise ConfigError(key, f"{network} is of the other address family; expected one like {example}")
    return network


def _any_host_bits(value: object) -> Prefix:
    # Go flannel masks the host bits of Network away rather than refusing them.
    if not isinstance(value, str):
        raise ValueError("no string")  # noqa: TRY004 - bad data, not a caller's wrong type
    network = ipaddress.ip_network(value, strict=False)
    return parse_prefix(str(network))


def _bound(fields: dict[str, Any], key: str, network: Prefix, length: int, *, default: int) -> Prefix:
    value = fields.get(key.lower())
    if value is None:
        return Prefix(network.family, default, length)
    try:
        # A number would be taken for an address as well.
        address = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ConfigError(key, f"{value!r} is no address; expected one like {network.base}") from error
    if address.version != network.family or not network.holds(int(address)):
        raise ConfigError(key, f"{address} is not inside {network}")
    bound = Prefix(network.family, int(address), length)
    if int(address) & (bound.size - 1):
        raise ConfigError(key, f"{address} is not where a /{length} begins")
    return bound


def boolean(fields: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """Read a boolean from an object with lower-case keys; raise ConfigError if it is something else."""
    value = fields.get(key.lower(), default)
    if not isinstance(value, bool):
        raise ConfigError(key, f"{value!r} is no boolean; expected true or false")
    return value


def integer(fields: Mapping[str, Any], key: str, *, default: int, low: int = 0, high: int = 2**32 - 1) -> int:
    """Read an integer from an object with lower-case keys; raise ConfigError if it is none or out of bounds."""
    value = fields.get(key.lower(), default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(key, f"{value!r} is no integer; expected {low} to {high}")
    if not low <= value <= high:
        raise ConfigError(key, f"{value} is out of bounds; expected {low} to {high}")
    return value
