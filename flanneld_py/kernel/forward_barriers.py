"""What else on this host may drop the packets that it forwards for pods, as far as nf_tables shows it.

In nftables a packet passes only if every table that sees it lets it pass: no rule of ours can accept it for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.kernel import netlink, nf_tables
from flanneld_py.kernel.nf_tables_socket import NfTables

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink import Message

_FORWARD = 2
_FAMILIES = {nf_tables.NFPROTO_INET: "inet", nf_tables.NFPROTO_IPV4: "ip", nf_tables.NFPROTO_IPV6: "ip6"}
_FIREWALLD = "firewalld"


class Barrier(NamedTuple):
    """A chain that may stop forwarded packets: what it is, and what lets the packets of networks pass."""

    chain: str
    reason: str
    remedy: str


def read_barriers(networks: list[str], *, iptables_is_ours: bool) -> list[Barrier]:
    """Return the chains that may stop packets of these networks; iptables' own are left out where ours is in them.

    Raises KernelError.
    """
    with NfTables() as opened:
        chains = opened.dump(nf_tables.get_chains(0), _decode_chain)
    found = []
    for chain in chains:
        if chain is None or (iptables_is_ours and chain.is_iptables):
            continue
        where = f"{_FAMILIES[chain.family]} {chain.table} {chain.name}"
        if chain.table == _FIREWALLD:
            sources = " ".join(f"--add-source={network}" for network in networks)
            remedy = f"firewall-cmd --permanent --zone=trusted {sources} && firewall-cmd --reload"
            found.append(Barrier(where, "firewalld rejects what no zone allows", remedy))
        elif chain.drops:
            remedy = f"nft insert rule {where} ip saddr {networks[0]} accept, and the same with daddr"
            found.append(Barrier(where, "its policy is drop", remedy))
    return found


class _Chain(NamedTuple):
    family: int
    table: str
    name: str
    drops: bool

    @property
    def is_iptables(self) -> bool:
        return self.table == "filter" and self.name == "FORWARD"


def _decode_chain(message: Message) -> _Chain | None:
    family = message.payload[0]
    attributes = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size)
    hook = attributes.get(nf_tables.CHAIN_HOOK)
    if hook is None or family not in _FAMILIES:
        return None
    number = netlink.decode_attributes(hook).get(1)
    if number is None or int.from_bytes(number, "big") != _FORWARD:
        return None
    policy = attributes.get(nf_tables.CHAIN_POLICY)
    return _Chain(
        family,
        netlink.decode_text(attributes[nf_tables.CHAIN_TABLE]),
        netlink.decode_text(attributes[nf_tables.CHAIN_NAME]),
        policy is not None and int.from_bytes(policy, "big") == nf_tables.NF_DROP,
    )
