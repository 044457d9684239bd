"""A remote node in one address family, and the judgement on which leases may become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flanneld_py.core.lease import Lease
    from flanneld_py.core.prefix import Prefix


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
    families = {network.family for network in members.networks}
    for subnet in (lease.subnet, lease.ipv6_subnet):
        # A family that the network does not have leads to no peer: leases from before it was off carry it.
        if subnet is None or subnet.family not in families:
            continue
        if not any(network.contains(subnet) for network in members.networks):
            raise RefusedError("outside network", f"{subnet} lies outside the network")
        for own in members.own_subnets:
            if own.overlaps(subnet):
                raise RefusedError("own subnet", f"{subnet} overlaps this node's own subnet {own}")
        for attached in members.underlay:
            if attached.overlaps(subnet):
                raise RefusedError("underlay", f"{subnet} overlaps {attached}, which this node's uplink is attached to")
    public_ip, public_ipv6 = members.own_public
    if lease.attrs.public_ip is not None and lease.attrs.public_ip == public_ip:
        raise RefusedError("own address", "its PublicIP is this node's own")
    if lease.attrs.public_ipv6 is not None and lease.attrs.public_ipv6 == public_ipv6:
        raise RefusedError("own address", "its PublicIPv6 is this node's own")
