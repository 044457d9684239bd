"""A remote node in one address family, and the judgement on which leases may become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6, format_address, parse_prefix

if TYPE_CHECKING:
    from flanneld_py.core.lease import Lease
    from flanneld_py.core.prefix import Prefix

_NO_HOSTS = {
    IPV4: tuple(map(parse_prefix, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"))),
    IPV6: tuple(map(parse_prefix, ("::/127", "ff00::/8"))),
}
"""No node has one of these (RFC 6890, RFC 5771, RFC 4291): this host itself, loopback, multicast, broadcast."""


class Peer(NamedTuple):
    """A remote node in one address family: its subnet, and where and how its packets are sent.

    `public_ip` is an integer of the subnet's own family; `vtep_mac` is empty where the backend has none. `data` is what
    else the backend read in the lease; it is hashable. A peer that is `direct_only` is reached without a tunnel or not
    at all.
    """

    subnet: Prefix
    public_ip: int
    vtep_mac: bytes = b""
    data: object = None
    direct_only: bool = False


class Members(NamedTuple):
    """What a lease is judged by: ourselves and the network that we share.

    `underlay` holds the prefixes that our own uplink is attached to, `lengths` those of the subnets that the network
    gives.
    """

    own_key: str
    own_public: tuple[int | None, int | None]
    networks: tuple[Prefix, ...]
    own_subnets: tuple[Prefix, ...]
    underlay: tuple[Prefix, ...]
    lengths: tuple[int, ...] = ()


OWN_MAC = "own MAC"
"""The kind of refusal of a lease whose VTEP has our MAC: other nodes can reach one of the two at most."""


class RefusedError(ValueError):
    """A lease must not be programmed; `kind` is the reason as one of a few fixed words, the message says it all."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def refuse_foreign(lease: Lease, members: Members) -> None:
    """Raise RefusedError if a lease must not be programmed as it stands, saying why.

    These are the leases that Go flannel trusts and that then take traffic away from where it belongs.
    """
    for subnet in (lease.subnet, lease.ipv6_subnet):
        if subnet is not None:
            _refuse_subnet(subnet, members)
    _refuse_address("PublicIP", lease.attrs.public_ip, members.own_public[0], lease.subnet)
    _refuse_address("PublicIPv6", lease.attrs.public_ipv6, members.own_public[1], lease.ipv6_subnet)


def _refuse_subnet(subnet: Prefix, members: Members) -> None:
    """Raise RefusedError if a subnet lies elsewhere, or where packets go another way."""
    networks = [network for network in members.networks if network.family == subnet.family]
    for network in networks:
        if network.contains(subnet):
            break
    else:
        # A family that the network does not have leads to no peer: leases from before it was off carry it.
        if networks:
            raise RefusedError("outside network", f"{subnet} lies outside the network")
        return
    for own in members.own_subnets:
        if own.overlaps(subnet):
            raise RefusedError("own subnet", f"{subnet} overlaps this node's own subnet {own}")
    for attached in members.underlay:
        if attached.overlaps(subnet):
            raise RefusedError("underlay", f"{subnet} overlaps {attached}, which this node's uplink is attached to")


def _refuse_address(name: str, address: int | None, own: int | None, subnet: Prefix | None) -> None:
    """Raise RefusedError if a lease's address is no other node's."""
    if address is not None and address == own:
        raise RefusedError("own address", f"its {name} is this node's own")
    if address is None or subnet is None:
        return
    for nobodys in _NO_HOSTS[subnet.family]:
        if nobodys.holds(address):
            told = f"its {name} {format_address(subnet.family, address)} is no address that a node can have"
            raise RefusedError("no address", told)
    if subnet.holds(address):
        told = f"its {name} {format_address(subnet.family, address)}"
        raise RefusedError("no address", f"{told} lies in the subnet {subnet} that it is to lead to")
