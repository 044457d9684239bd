"""A lease: the subnets of one node and how to reach it, and how both are written in the store.

Owns the key (`10.5.2.0-24`) and the value (one line of JSON, fields in Go flannel's order). What a backend puts into
its data stays raw JSON text here; only the backend reads it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6, Prefix, bits, format_address, parse_ipv4

_SCALAR = r'(?:0|[1-9][0-9]*|"[0-9A-Za-z:+/=]*")'
_CANONICAL = re.compile(
    rf'\{{"PublicIP":"([0-9.]+)","PublicIPv6":null,"BackendType":"([a-z0-9-]+)",'
    rf'"BackendData":(\{{"[A-Za-z]+":{_SCALAR}(?:,"[A-Za-z]+":{_SCALAR})*\}})\}}'
)
"""What flannel daemons write, as far as it is JSON beyond doubt."""
# The reader of Go flannel's keys is this lax about dots; ours is not, but takes the same well-formed keys.
_KEY = re.compile(r"([0-9.]+)-([0-9]{1,2})(?:&([0-9a-fA-F:.]+)-([0-9]{1,3}))?")
_NO_IPV4 = Prefix(IPV4, 0, 0)
"""What stands for the IPv4 subnet in the key of an IPv6-only lease: `0.0.0.0-0`."""


class LeaseAttrs(NamedTuple):
    """What a node publishes beside its subnets; addresses as integers, backend data as raw JSON text."""

    public_ip: int | None
    public_ipv6: int | None
    backend_type: str
    backend_data: str | None = None
    backend_v6_data: str | None = None


class Lease(NamedTuple):
    """The subnets of one node, at least one of them, and its attributes.

    `reserved` marks a key without a time to live: an operator's reservation.
    """

    subnet: Prefix | None
    ipv6_subnet: Prefix | None
    attrs: LeaseAttrs
    reserved: bool = False

    @property
    def subnets(self) -> tuple[Prefix, ...]:
        """The subnets that there are, IPv4 first."""
        return tuple(subnet for subnet in (self.subnet, self.ipv6_subnet) if subnet is not None)


def encode_key(subnet: Prefix | None, ipv6_subnet: Prefix | None) -> str:
    """Write the last part of a lease's key."""
    first = subnet or _NO_IPV4
    text = f"{format_address(IPV4, first.address)}-{first.length}"
    if ipv6_subnet is None:
        return text
    return f"{text}&{format_address(IPV6, ipv6_subnet.address)}-{ipv6_subnet.length}"


def parse_key(key: str) -> tuple[Prefix | None, Prefix | None]:
    """Read the last part of a lease's key into its two subnets; raise ValueError saying what is wrong."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"key {key!r} is not of the form 10.5.2.0-24 or 10.5.2.0-24&fd00:1::-64")
    text, length, text6, length6 = match.groups()
    ipv4 = _parse_subnet(IPV4, text, length)
    ipv6 = None if text6 is None else _parse_subnet(IPV6, text6, length6)
    if ipv4 == _NO_IPV4 and ipv6 is not None:
        return None, ipv6
    return ipv4, ipv6


def _parse_subnet(family: int, text: str, length_text: str) -> Prefix:
    address = parse_ipv4(text) if family == IPV4 else int(ipaddress.IPv6Address(text))
    width, length = bits(family), int(length_text)
    if length > width:
        raise ValueError(f"prefix length {length} is over {width}")
    if address & ((1 << (width - length)) - 1):
        raise ValueError(f"subnet {text}-{length} has host bits set")
    return Prefix(family, address, length)


def encode_attrs(attrs: LeaseAttrs) -> str:
    """Write a lease's value as Go flannel does, byte for byte."""
    public_ip = format_address(IPV4, attrs.public_ip or 0)
    public_ipv6 = "null" if attrs.public_ipv6 is None else f'"{format_address(IPV6, attrs.public_ipv6)}"'
    fields = [f'"PublicIP":"{public_ip}"', f'"PublicIPv6":{public_ipv6}']
    if attrs.backend_type:
        fields.append(f'"BackendType":{json.dumps(attrs.backend_type)}')
    if attrs.backend_data is not None:
        fields.append(f'"BackendData":{attrs.backend_data}')
    if attrs.backend_v6_data is not None:
        fields.append(f'"BackendV6Data":{attrs.backend_v6_data}')
    return "{" + ",".join(fields) + "}"


def parse_attrs(data: str | bytes) -> LeaseAttrs:
    """Read a lease's value; keys match in any letter case, unknown ones are ignored.

    Raises ValueError saying what is wrong.
    """
    text = data.decode() if isinstance(data, bytes) else data
    return _parse_canonical(text) or _parse_any(text)


def _parse_canonical(text: str) -> LeaseAttrs | None:
    """Read what flannel daemons write for IPv4, a quarter of the time that JSON takes; None for all else."""
    match = _CANONICAL.fullmatch(text)
    if match is None:
        return None
    public_ip, backend_type, backend_data = match.groups()
    try:
        return LeaseAttrs(parse_ipv4(public_ip) or None, None, backend_type, backend_data)
    except ValueError:
        return None


def _parse_any(text: str) -> LeaseAttrs:
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("the value is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("the value is no JSON object")  # noqa: TRY004 - bad data, not a caller's wrong type
    fields = fold_keys(value)
    backend_type = fields.get("backendtype", "")
    if not isinstance(backend_type, str):
        raise ValueError("BackendType is no string")  # noqa: TRY004 - as above
    return LeaseAttrs(
        _parse_public(fields.get("publicip"), "PublicIP", ipaddress.IPv4Address),
        _parse_public(fields.get("publicipv6"), "PublicIPv6", ipaddress.IPv6Address),
        backend_type,
        _raw(fields.get("backenddata")),
        _raw(fields.get("backendv6data")),
    )


def fold_keys(value: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its keys in lower case; the last duplicate wins, and a null is no value.

    This is how Go's encoding/json matches keys to fields.
    """
    return {key.lower(): item for key, item in value.items() if item is not None}


def _parse_public(value: object, key: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{key} is no string")  # noqa: TRY004 - bad data, not a caller's wrong type
    try:
        return int(kind(value)) or None
    except ValueError as error:
        raise ValueError(f"{key} is no address: {value[:60]!r}") from error


def _raw(value: object) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))
