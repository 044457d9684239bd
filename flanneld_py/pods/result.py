"""What an ADD answers, and how each version of the specification writes it (SPEC.md and its older copies, "Result").

Pure. It also reads the result of an earlier ADD, which the runtime gives back as prevResult.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, format_address, host_mask, parse_host
from flanneld_py.pods.fields import parse_ip, read_int, read_object, read_objects, read_text, read_texts, refuse
from flanneld_py.pods.versions import is_at_least

if TYPE_CHECKING:
    from flanneld_py.pods.fields import Fields

_IP_KEYS = {IPV4: "ip4", IPV6: "ip6"}


class Interface(NamedTuple):
    """A device; `sandbox` is the namespace's path, empty for the host's own. `mtu` in bytes."""

    name: str
    mac: str
    mtu: int = 0
    sandbox: str = ""


class PodAddress(NamedTuple):
    """An address of the container; `interface` is its device's place among the interfaces, None if it says none."""

    subnet: Prefix
    address: int
    gateway: int | None
    interface: int | None = None


class PodRoute(NamedTuple):
    """A route of the container; without a gateway it goes through that of its family's address."""

    dst: Prefix
    gateway: int | None = None
    mtu: int = 0
    mss: int = 0
    metric: int = 0
    table: int | None = None
    scope: int | None = None


class Dns(NamedTuple):
    """Name resolution for the container; the runtime applies it."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(NamedTuple):
    """What was made for a container."""

    interfaces: tuple[Interface, ...]
    addresses: tuple[PodAddress, ...]
    routes: tuple[PodRoute, ...]
    dns: Dns


def encode_result(result: Result, version: str) -> Fields:
    """Return the result as the JSON object of this version."""
    encoded: Fields = {"cniVersion": version}
    if is_at_least(version, "0.3.0"):
        encoded["interfaces"] = [_encode_interface(interface, version) for interface in result.interfaces]
        encoded["ips"] = [_encode_address(address, version) for address in result.addresses]
        if result.routes:
            encoded["routes"] = [encode_route(route, version) for route in result.routes]
    else:
        encoded |= _encode_families(result, version)
    dns = {key: list(value) if isinstance(value, tuple) else value for key, value in result.dns._asdict().items()}
    if any(dns.values()) or not is_at_least(version, "1.0.0"):  # the reference plugins left out an empty one only then
        encoded["dns"] = {key: value for key, value in dns.items() if value}
    return encoded


def _encode_families(result: Result, version: str) -> Fields:
    # Up to 0.2.0 there is one address a family, and its routes stand beside it.
    encoded: Fields = {}
    for family, key in _IP_KEYS.items():
        address = next((address for address in result.addresses if address.subnet.family == family), None)
        if address is None:
            continue
        part: Fields = {"ip": _with_length(address)}
        if address.gateway is not None:
            part["gateway"] = format_address(family, address.gateway)
        routes = [encode_route(route, version) for route in result.routes if route.dst.family == family]
        if routes:
            part["routes"] = routes
        encoded[key] = part
    return encoded


def _with_length(address: PodAddress) -> str:
    return f"{format_address(address.subnet.family, address.address)}/{address.subnet.length}"


def _encode_interface(interface: Interface, version: str) -> Fields:
    encoded: Fields = {"name": interface.name, "mac": interface.mac}
    if interface.mtu and is_at_least(version, "1.1.0"):
        encoded["mtu"] = interface.mtu
    if interface.sandbox:
        encoded["sandbox"] = interface.sandbox
    return encoded


def _encode_address(address: PodAddress, version: str) -> Fields:
    encoded: Fields = {} if is_at_least(version, "1.0.0") else {"version": str(address.subnet.family)}
    if address.interface is not None:
        encoded["interface"] = address.interface
    encoded["address"] = _with_length(address)
    if address.gateway is not None:
        encoded["gateway"] = format_address(address.subnet.family, address.gateway)
    return encoded


def encode_route(route: PodRoute, version: str) -> Fields:
    """Return a route as the JSON object of this version; before 1.1.0 it is destination and gateway only."""
    encoded: Fields = {"dst": str(route.dst)}
    if route.gateway is not None:
        encoded["gw"] = format_address(route.dst.family, route.gateway)
    if is_at_least(version, "1.1.0"):
        for key, value in (("mtu", route.mtu), ("advmss", route.mss), ("priority", route.metric)):
            if value:
                encoded[key] = value
        for key, number in (("table", route.table), ("scope", route.scope)):
            if number is not None:
                encoded[key] = number
    return encoded


def parse_routes(fields: Fields, key: str) -> tuple[PodRoute, ...]:
    """Read a list of routes. Raises CniError."""
    return tuple(_parse_route(item) for item in read_objects(fields, key))


def _parse_route(fields: Fields) -> PodRoute:
    dst = _parse_network("dst of a route", read_text(fields, "dst"))
    gateway = None
    gateway_text = read_text(fields, "gw")
    if gateway_text:
        family, gateway = parse_ip("gw of a route", gateway_text)
        if family != dst.family:
            raise refuse("gw of a route", f"an address of the same family as {dst}")
    return PodRoute(
        dst,
        gateway,
        read_int(fields, "mtu"),
        read_int(fields, "advmss"),
        read_int(fields, "priority", high=2**32 - 1),
        _parse_optional(fields, "table", 2**32 - 1),
        _parse_optional(fields, "scope", 255),
    )


def _parse_optional(fields: Fields, key: str, high: int) -> int | None:
    return None if fields.get(key) is None else read_int(fields, key, high=high)


def _parse_network(key: str, text: str) -> Prefix:
    # Host bits are masked away, as the kernel would have it; Go flannel's chain takes them too.
    family, address, length = _parse_with_length(key, text)
    return Prefix(family, address & ~host_mask(family, length), length)


def _parse_with_length(key: str, text: str) -> tuple[int, int, int]:
    try:
        return parse_host(text)
    except ValueError as error:
        raise refuse(key, f"a prefix like 10.5.0.0/16, not {text[:60]!r}") from error


def parse_dns(fields: Fields) -> Dns:
    """Read a dns object. Raises CniError."""
    return Dns(
        read_texts(fields, "nameservers"),
        read_text(fields, "domain"),
        read_texts(fields, "search"),
        read_texts(fields, "options"),
    )


def parse_result(fields: Fields) -> Result:
    """Read a prevResult of version 0.3.0 or later. Raises CniError."""
    interfaces = tuple(
        Interface(read_text(item, "name"), read_text(item, "mac"), read_int(item, "mtu"), read_text(item, "sandbox"))
        for item in read_objects(fields, "interfaces")
    )
    addresses = tuple(_parse_address(item, len(interfaces)) for item in read_objects(fields, "ips"))
    return Result(interfaces, addresses, parse_routes(fields, "routes"), parse_dns(read_object(fields, "dns")))


def _parse_address(fields: Fields, interfaces: int) -> PodAddress:
    family, address, length = _parse_with_length("address of prevResult", read_text(fields, "address"))
    subnet = Prefix(family, address & ~host_mask(family, length), length)
    gateway = read_text(fields, "gateway")
    index = None
    if fields.get("interface") is not None:
        index = read_int(fields, "interface")
        if index >= interfaces:
            raise refuse("interface of prevResult", f"one of its {interfaces} interfaces")
    return PodAddress(subnet, address, parse_ip("gateway of prevResult", gateway)[1] if gateway else None, index)
