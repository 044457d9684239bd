"""Leases of nodes that do not exist, as vxlan daemons write them, and what the kernel must hold for each. Pure.

Nodes that do run in the stage get the subnets of NODE_RANGE, the made-up ones all that follow, so that neither is in
the other's way.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from netns_lab.bench.entries import Programmed

PREFIX = "/coreos.com/network"
NETWORK = IPv4Network("10.0.0.0/8")
NODE_RANGE = IPv4Network("10.0.0.0/16")
NODE_KEYS = f"{PREFIX}/subnets/10.0."
PEER_KEYS = f"{PREFIX}/subnets/"
PUBLIC = int(IPv4Address("100.64.0.0"))  # RFC 6598: in nobody's underlay
FIRST_PEER = int(NODE_RANGE.broadcast_address) + 1
MAC_PREFIX = 0x02F1 << 32
LONGEST = 28


@dataclass(frozen=True, slots=True)
class PeerLease:
    """The lease of a made-up node."""

    subnet: int
    length: int
    public_ip: int
    mac: bytes

    @property
    def key(self) -> str:
        """Its key in etcd."""
        return f"{PREFIX}/subnets/{IPv4Address(self.subnet)}-{self.length}"

    @property
    def value(self) -> str:
        """What its node would write there, byte for byte."""
        return (
            f'{{"PublicIP":"{IPv4Address(self.public_ip)}","PublicIPv6":null,"BackendType":"vxlan",'
            f'"BackendData":{{"VNI":1,"VtepMAC":"{self.mac.hex(":")}"}}}}'
        )


def subnet_length(count: int) -> int:
    """Return the shortest subnet length, from 24, that leaves room for so many peers. Raises ValueError."""
    for length in range(24, LONGEST + 1):
        if count <= capacity(length):
            return length
    raise ValueError(f"{NETWORK} has room for {capacity(LONGEST)} leases, not {count}")


def capacity(length: int) -> int:
    """Return how many peers of that subnet length there may be."""
    return (NETWORK.num_addresses - NODE_RANGE.num_addresses) >> (32 - length)


def make_leases(count: int, length: int, first: int = 0) -> list[PeerLease]:
    """Return the leases with the numbers `first` up; each number always gives the same lease."""
    size = 1 << (32 - length)
    return [
        PeerLease(FIRST_PEER + number * size, length, PUBLIC + 1 + number, (MAC_PREFIX + number).to_bytes(6, "big"))
        for number in range(first, first + count)
    ]


def network_config(length: int, backend: str = "vxlan") -> str:
    """Return the cluster's configuration: nodes that run here get their subnets, of that length, in NODE_RANGE."""
    config = {
        "Network": str(NETWORK),
        "SubnetLen": length,
        "SubnetMin": str(NODE_RANGE[1 << 8]),
        "SubnetMax": str(NODE_RANGE[255 << 8]),
        "Backend": {"Type": backend},
    }
    return json.dumps(config)


def expected_entries(leases: Sequence[PeerLease]) -> Programmed:
    """Return what the kernel holds once these leases are programmed."""
    subnets = [lease.subnet.to_bytes(4, "big") for lease in leases]
    return Programmed(
        routes=frozenset(subnet + bytes([lease.length]) for subnet, lease in zip(subnets, leases, strict=True)),
        neighbours=frozenset(subnet + lease.mac for subnet, lease in zip(subnets, leases, strict=True)),
        forwarding=frozenset(lease.mac + lease.public_ip.to_bytes(4, "big") for lease in leases),
    )


def in_hundreds(leases: Sequence[PeerLease]) -> Iterator[Sequence[PeerLease]]:
    """Yield the leases by hundreds: etcd takes up to 128 operations in a transaction."""
    for start in range(0, len(leases), 100):
        yield leases[start : start + 100]
