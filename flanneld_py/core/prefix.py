"""Network prefixes as small integers: the currency of leases, routes and peers.

`ipaddress` networks weigh half a kilobyte each and hash slowly; with one or more a lease that is what a large cluster
would spend its memory on. Single addresses outside the hot path stay `ipaddress` objects; the module is imported only
where one is made, because the CNI plugin, which pays for every import, gets by without.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address

IPV4 = 4
IPV6 = 6

_BITS = {IPV4: 32, IPV6: 128}

# As strict as `ipaddress`: a leading zero might mean octal to others. A large cluster reads two addresses a lease.
_OCTETS = {str(value): value for value in range(256)}


class Prefix(NamedTuple):
    """A network prefix; `address` is the base as an integer, its host bits are zero."""

    family: int
    address: int
    length: int

    @property
    def base(self) -> Address:
        """The first address of the prefix."""
        return make_address(self.family, self.address)

    @property
    def last(self) -> int:
        """The last address of the prefix, as an integer."""
        return self.address | host_mask(self.family, self.length)

    @property
    def size(self) -> int:
        """How many addresses the prefix holds."""
        return 1 << (_BITS[self.family] - self.length)

    def contains(self, other: Prefix) -> bool:
        """Say whether `other` lies inside this prefix, itself included."""
        return self.family == other.family and self.length <= other.length and self.holds(other.address)

    def holds(self, address: int) -> bool:
        """Say whether an address of the same family, as an integer, lies inside this prefix."""
        shift = _BITS[self.family] - self.length
        return address >> shift == self.address >> shift

    def overlaps(self, other: Prefix) -> bool:
        """Say whether the two prefixes share an address."""
        if self.family != other.family:
            return False
        shift = _BITS[self.family] - min(self.length, other.length)
        return self.address >> shift == other.address >> shift

    def __str__(self) -> str:
        return f"{format_address(self.family, self.address)}/{self.length}"


def bits(family: int) -> int:
    """Return how many bits an address of the family has."""
    return _BITS[family]


def host_mask(family: int, length: int) -> int:
    """Return the host bits of a prefix length, as an integer."""
    return (1 << (_BITS[family] - length)) - 1


def make_address(family: int, value: int) -> Address:
    """Return the address object for an integer."""
    import ipaddress

    return ipaddress.IPv4Address(value) if family == IPV4 else ipaddress.IPv6Address(value)


def format_address(family: int, value: int) -> str:
    """Write an address in its canonical form (RFC 5952 for IPv6)."""
    if family == IPV4:
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    import ipaddress

    return str(ipaddress.IPv6Address(value))


def host_prefix(address: Address) -> Prefix:
    """Return the /32 or /128 that holds just this address."""
    return Prefix(address.version, int(address), _BITS[address.version])


def prefix_around(family: int, address: int, length: int) -> Prefix:
    """Return the prefix of this length that holds an address, given as an integer."""
    return Prefix(family, address & ~host_mask(family, length), length)


def gap_around(prefix: Prefix, address: int, taken: Iterable[Prefix]) -> Prefix:
    """Return the largest prefix in `prefix`, around an address in it, that shares nothing with what is taken.

    An address that is itself taken is all that is returned.
    """
    family = prefix.family
    near = [other for other in taken if other.overlaps(prefix)]
    gaps = (prefix_around(family, address, length) for length in range(prefix.length, _BITS[family]))
    free = (gap for gap in gaps if not any(other.overlaps(gap) for other in near))
    return next(free, Prefix(family, address, _BITS[family]))


def make_prefix(address: Address, length: int) -> Prefix:
    """Return the prefix of this length that holds an address."""
    return prefix_around(address.version, int(address), length)


def parse_address(text: str) -> tuple[int, int]:
    """Read an address into its family and its value; raise ValueError if it is none, or has a scope."""
    if ":" not in text:
        return IPV4, parse_ipv4(text)
    import ipaddress

    address = ipaddress.IPv6Address(text)
    if address.scope_id is not None:
        raise ValueError(f"{text!r} has a scope")
    return IPV6, int(address)


def parse_ipv4(text: str) -> int:
    """Read `10.5.2.1` into its value; raise ValueError if it is no IPv4 address."""
    try:
        first, second, third, fourth = text.split(".")
        return _OCTETS[first] << 24 | _OCTETS[second] << 16 | _OCTETS[third] << 8 | _OCTETS[fourth]
    except (KeyError, ValueError):
        raise ValueError(f"{text!r} is no address") from None


def parse_interface(text: str) -> tuple[Address, int]:
    """Read `10.5.2.1/24` into address and prefix length; raise ValueError if it is no such thing."""
    family, value, length = parse_host(text)
    return make_address(family, value), length


def parse_host(text: str) -> tuple[int, int, int]:
    """Read `10.5.2.1/24` into family, address and prefix length; raise ValueError if it is no such thing."""
    address_text, slash, length_text = text.partition("/")
    family, value = parse_address(address_text)
    if not slash or not length_text.isascii() or not length_text.isdecimal() or len(length_text) > 3:
        raise ValueError(f"{text!r} is no address/length")
    length = int(length_text)
    if length > _BITS[family]:
        raise ValueError(f"{text!r} has a prefix length over {_BITS[family]}")
    return family, value, length


def parse_prefix(text: str) -> Prefix:
    """Read `10.5.2.0/24`; raise ValueError if it is no prefix or has host bits set."""
    family, value, length = parse_host(text)
    prefix = Prefix(family, value & ~host_mask(family, length), length)
    if prefix.address != value:
        raise ValueError(f"{text!r} has host bits set: the network is {prefix}")
    return prefix
