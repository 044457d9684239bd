"""The host's own network: its interfaces, the choice of the uplink, and who is on its layer 2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.entries import UNICAST
from flanneld_py.core.lease import LeaseAttrs
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, make_address, make_prefix

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Sequence

    from flanneld_py.core.entries import Route
    from flanneld_py.core.prefix import Address


class AddressOf(NamedTuple):
    """An address of an interface with its prefix length; `is_global` is false for link-local and passing ones."""

    address: Address
    length: int
    is_global: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface of the host; `mtu` in bytes."""

    ifindex: int
    name: str
    mtu: int
    is_up: bool
    addresses: tuple[AddressOf, ...]

    def address(self, family: int, named: Callable[[str], bool] | None = None) -> Address | None:
        """Return the address of a family that packets to other nodes carry: a global one if there is one.

        One whose text was `named` goes before those that were not.
        """
        own = [entry for entry in self.addresses if entry.address.version == family]
        own.sort(key=lambda entry: (named is None or not named(str(entry.address)), not entry.is_global))
        return own[0].address if own else None

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """The prefixes that the interface is attached to."""
        return tuple(make_prefix(entry.address, entry.length) for entry in self.addresses if entry.is_global)


@dataclass(frozen=True, slots=True)
class UplinkWish:
    """What the operator asked for: interfaces by name or address, patterns, a target, public addresses."""

    ifaces: tuple[str, ...] = ()
    iface_patterns: tuple[re.Pattern[str], ...] = ()
    can_reach: Address | None = None
    public_ip: Address | None = None
    public_ipv6: Address | None = None


@dataclass(frozen=True, slots=True)
class Uplink:
    """The external interface that carries encapsulated packets.

    `source` and `source_ipv6` are its own addresses, `public_ip` and `public_ipv6` what others send to; `reason` says
    why this interface.
    """

    interface: Interface
    source: Address | None
    source_ipv6: Address | None
    public_ip: Address | None
    public_ipv6: Address | None
    reason: str

    @property
    def sources(self) -> tuple[Address, ...]:
        """Its own addresses that packets to other nodes carry: one a family."""
        return tuple(source for source in (self.source, self.source_ipv6) if source is not None)


class _Choice(NamedTuple):
    """An interface, why it was chosen, and which of its addresses were named by that."""

    interface: Interface
    reason: str
    named: Callable[[str], bool] | None = None


class NoUplinkError(Exception):
    """No interface of the host fits now; one may come."""


def pick_uplink(
    wish: UplinkWish, interfaces: Sequence[Interface], routes: Sequence[Route], *, ipv4: bool, ipv6: bool
) -> Uplink:
    """Choose the uplink: the operator's names first, then patterns, then the target's, then the default route's.

    Raises NoUplinkError saying what was looked for.
    """
    interface, reason, named = _pick_interface(wish, interfaces, routes, IPV4 if ipv4 else IPV6)
    source = interface.address(IPV4, named) if ipv4 else None
    source_ipv6 = interface.address(IPV6, named) if ipv6 else None
    for wanted, found, name in ((ipv4, source, "IPv4"), (ipv6, source_ipv6, "IPv6")):
        if wanted and found is None:
            raise NoUplinkError(f"interface {interface.name} ({reason}) has no {name} address")
    if not interface.is_up:
        raise NoUplinkError(f"interface {interface.name} ({reason}) is down")
    return Uplink(
        interface,
        source,
        source_ipv6,
        (wish.public_ip or source) if ipv4 else None,
        (wish.public_ipv6 or source_ipv6) if ipv6 else None,
        reason,
    )


def follow_uplink(
    current: Uplink, wish: UplinkWish, interfaces: Sequence[Interface], routes: Sequence[Route]
) -> Uplink:
    """Return the uplink to go on with: the present one while it is up and has its addresses, else as at the start.

    A better one that comes is no reason to change: others would have to learn our address anew. A link-local address
    is: it serves only neighbours, and is all that an interface has before its own comes. So it never takes the place
    of another. Raises as pick_uplink.
    """
    kept = _keep_uplink(current, interfaces)
    if kept is not None and not _is_link_local(kept):
        return kept
    ipv4, ipv6 = current.source is not None, current.source_ipv6 is not None
    try:
        found = pick_uplink(wish, interfaces, routes, ipv4=ipv4, ipv6=ipv6)
    except NoUplinkError:
        if kept is None:
            raise
        return kept
    if _is_link_local(found) and not _is_link_local(current):
        raise NoUplinkError(f"interface {found.interface.name} ({found.reason}) has a link-local address only")
    return kept if kept is not None and _is_link_local(found) else found


def _keep_uplink(current: Uplink, interfaces: Sequence[Interface]) -> Uplink | None:
    sources = set(current.sources)
    for interface in interfaces:
        same = (interface.ifindex, interface.name) == (current.interface.ifindex, current.interface.name)
        if same and interface.is_up and sources <= {entry.address for entry in interface.addresses}:
            return replace(current, interface=interface)
    return None


def _is_link_local(uplink: Uplink) -> bool:
    return any(source.is_link_local for source in uplink.sources)


def _pick_interface(wish: UplinkWish, interfaces: Sequence[Interface], routes: Sequence[Route], family: int) -> _Choice:
    for name in wish.ifaces:
        found = _first(interfaces, lambda entry, name=name: _is_called(entry, name))  # type: ignore[misc]
        if found:
            return _Choice(found, f"--iface={name}", lambda own, name=name: own == name)  # type: ignore[misc]
    for pattern in wish.iface_patterns:
        found = _first(interfaces, lambda entry, pattern=pattern: _matches(entry, pattern, family))  # type: ignore[misc]
        if found:
            told = f"--iface-regex={pattern.pattern}"
            return _Choice(found, told, lambda own, pattern=pattern: bool(pattern.search(own)))  # type: ignore[misc]
    if wish.can_reach is not None:
        found = _towards(interfaces, routes, wish.can_reach)
        if found:
            return _Choice(found, f"--iface-can-reach={wish.can_reach}")
    if wish.ifaces or wish.iface_patterns or wish.can_reach:
        patterns = [pattern.pattern for pattern in wish.iface_patterns]
        asked = [*wish.ifaces, *patterns, *([str(wish.can_reach)] if wish.can_reach else [])]
        there = ", ".join(entry.name for entry in interfaces) or "none"
        raise NoUplinkError(f"no interface matches {', '.join(asked)}; there are: {there}")
    return _default_interface(wish, interfaces, routes, family)


def _default_interface(
    wish: UplinkWish, interfaces: Sequence[Interface], routes: Sequence[Route], family: int
) -> _Choice:
    public = wish.public_ip if family == IPV4 else wish.public_ipv6
    if public is not None:
        found = _first(interfaces, lambda entry: _is_called(entry, str(public)))
        if found:
            return _Choice(found, f"it has the public address {public}", lambda own: own == str(public))
    found = _towards(interfaces, routes, make_address(family, 0))
    if found:
        return _Choice(found, "it has the default route")
    raise NoUplinkError("there is no default route; name the interface with --iface")


def _first(interfaces: Iterable[Interface], test: Callable[[Interface], bool]) -> Interface | None:
    return next((entry for entry in interfaces if test(entry)), None)


def _is_called(interface: Interface, name: str) -> bool:
    return interface.name == name or any(str(entry.address) == name for entry in interface.addresses)


def _matches(interface: Interface, pattern: re.Pattern[str], family: int) -> bool:
    addresses = (str(entry.address) for entry in interface.addresses if entry.address.version == family)
    return any(pattern.search(address) for address in addresses) or bool(pattern.search(interface.name))


def _towards(interfaces: Sequence[Interface], routes: Sequence[Route], target: Address) -> Interface | None:
    route = find_route(routes, target.version, int(target))
    return None if route is None else _first(interfaces, lambda entry: entry.ifindex == route.ifindex)


def public_attrs(uplink: Uplink, backend_type: str) -> LeaseAttrs:
    """Return what every node publishes: its public addresses and its backend."""
    return LeaseAttrs(
        None if uplink.public_ip is None else int(uplink.public_ip),
        None if uplink.public_ipv6 is None else int(uplink.public_ipv6),
        backend_type,
    )


def find_route(routes: Iterable[Route], family: int, address: int) -> Route | None:
    """Return the route that the kernel takes to an address: the longest prefix, then the smallest metric."""
    best: Route | None = None
    for route in routes:
        if route.dst.family != family or not route.dst.holds(address):
            continue
        if best is None or (route.dst.length, -route.metric) > (best.dst.length, -best.metric):
            best = route
    return best


def find_direct_device(routes: Iterable[Route], family: int, address: int) -> int:
    """Return the index of the device on whose layer 2 an address is, 0 if there is none.

    This is what makes a peer direct: the kernel's route to its public address has no gateway.
    """
    route = find_route(routes, family, address)
    if route is None or route.type != UNICAST or route.gateway or route.nexthop_id:
        return 0
    return route.ifindex
