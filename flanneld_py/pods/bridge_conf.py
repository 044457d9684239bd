"""The configuration of the delegate that this project is itself: the bridge, with host-local's addresses.

Pure. It reads the complete delegate's configuration into values that need no further check.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import IPV4, Prefix, host_mask, parse_prefix
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.fields import (
    is_interface_name,
    parse_ip,
    parse_mac,
    read_bool,
    read_int,
    read_network_name,
    read_object,
    read_text,
    read_texts,
    refuse,
)
from flanneld_py.pods.network_conf import DEFAULT_STORE
from flanneld_py.pods.result import Dns, PodRoute, parse_dns, parse_routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld_py.pods.fields import Fields

_BRIDGE_NAME = "cni0"
_LEAST_HOST_BITS = 2
_LARGEST_MTU = 65535

_UNSUPPORTED = ("vlan", "vlanTrunk", "disableContainerInterface")
"""Options of the reference bridge that would be lost in silence if they were not refused."""


class StoreConf(NamedTuple):
    """Where addresses are noted down, and for which network; all that a DEL needs of host-local's part."""

    folder: str
    network: str


class IpamConf(NamedTuple):
    """host-local's part: the leased subnets, and addresses asked for as (family, value)."""

    store: StoreConf
    subnets: tuple[Prefix, ...]
    requested: tuple[tuple[int, int], ...]
    routes: tuple[PodRoute, ...]
    resolv_conf: str


class BridgeConf(NamedTuple):
    """The bridge's part; `mtu` in bytes, 0 is the kernel's default; `mac` is the one asked for, if any."""

    bridge: str
    mtu: int
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    hairpin: bool
    promiscuous: bool
    isolated: bool
    ip_masq: bool
    detects_duplicates: bool
    guards_mac: bool
    guards_addresses: bool
    mac: bytes | None
    dns: Dns
    ipam: IpamConf


def parse_bridge_conf(delegate: Fields, args: Mapping[str, str]) -> BridgeConf:
    """Read a delegate's configuration that is our own, and what the runtime asked for beside it. Raises CniError."""
    for key in _UNSUPPORTED:
        if delegate.get(key):
            raise CniError(errors.UNSUPPORTED_FIELD, f"{key} of the delegate is not supported", "take it out")
    hairpin = read_bool(delegate, "hairpinMode", default=False)
    promiscuous = read_bool(delegate, "promiscMode", default=False)
    if hairpin and promiscuous:
        raise refuse("promiscMode", "hairpinMode or promiscMode, not both")
    name = read_text(delegate, "bridge", _BRIDGE_NAME)
    if not is_interface_name(name):
        raise refuse("bridge", "a name for a device, up to 15 characters")
    runtime = read_object(delegate, "runtimeConfig")
    cni_args = read_object(read_object(delegate, "args"), "cni")
    mac = read_text(runtime, "mac", read_text(cni_args, "mac", args.get("MAC", "")))
    is_default_gateway = read_bool(delegate, "isDefaultGateway", default=False)
    return BridgeConf(
        name,
        read_int(delegate, "mtu", high=_LARGEST_MTU),
        is_default_gateway or read_bool(delegate, "isGateway", default=False),
        is_default_gateway,
        read_bool(delegate, "forceAddress", default=False),
        hairpin,
        promiscuous,
        read_bool(delegate, "portIsolation", default=False),
        read_bool(delegate, "ipMasq", default=False),
        read_bool(delegate, "enabledad", default=False),
        read_bool(delegate, "macspoofchk", default=False),
        read_bool(delegate, "antiSpoof", default=False),
        parse_mac("mac of runtimeConfig", mac) if mac else None,
        parse_dns(read_object(delegate, "dns")),
        _parse_ipam(delegate, _requested_texts(runtime, cni_args, args)),
    )


def parse_store_conf(delegate: Fields) -> StoreConf:
    """Read where a delegate's addresses are noted down, be it ours or one of Go flannel's plugin. Raises CniError."""
    return StoreConf(read_text(read_object(delegate, "ipam"), "dataDir", DEFAULT_STORE), read_network_name(delegate))


def _requested_texts(runtime: Fields, cni_args: Fields, args: Mapping[str, str]) -> tuple[str, ...]:
    given = (args["IP"],) if args.get("IP") else ()
    return (*given, *read_texts(cni_args, "ips"), *read_texts(runtime, "ips"))


def _parse_ipam(delegate: Fields, texts: tuple[str, ...]) -> IpamConf:
    ipam = read_object(delegate, "ipam")
    subnets = tuple(parse_prefix(subnet["subnet"]) for ranges in ipam["ranges"] for subnet in ranges)
    for subnet in subnets:
        if host_mask(subnet.family, subnet.length) < 2**_LEAST_HOST_BITS - 1:
            raise CniError(errors.INVALID_CONFIG, f"the leased subnet {subnet} is too small for any container")
    requested = tuple(parse_ip("ips of runtimeConfig", text) for text in texts)
    for family, address in requested:
        if not any(subnet.family == family and _may_be_given(subnet, address) for subnet in subnets):
            expected = " or ".join(map(str, subnets))
            raise refuse(
                "ips of runtimeConfig", f"addresses of {expected}, but not of its network, gateway or broadcast"
            )
    return IpamConf(
        parse_store_conf(delegate), subnets, requested, parse_routes(ipam, "routes"), read_text(ipam, "resolvConf")
    )


def _may_be_given(subnet: Prefix, address: int) -> bool:
    return first_address(subnet) <= address <= last_address(subnet)


def gateway_of(subnet: Prefix) -> int:
    """Return the address that the bridge has in a subnet: its first."""
    return subnet.address + 1


def first_address(subnet: Prefix) -> int:
    """Return the first address that a container may get: the one behind the gateway's."""
    return subnet.address + 2


def last_address(subnet: Prefix) -> int:
    """Return the last address that a container may get; in IPv4 the very last is for broadcasts."""
    return subnet.last - 1 if subnet.family == IPV4 else subnet.last
