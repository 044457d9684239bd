"""Masquerading and acceptance as nftables rules, in tables of our own that Go flannel names the same.

A table is compared with what it should be, and where it differs written anew as a whole, in one transaction: packets
meet either the former rules or the new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.core.prefix import IPV4, IPV6, bits
from flanneld_py.core.traffic_rules import Place, Verdict
from flanneld_py.kernel import netlink, nf_expressions, nf_tables
from flanneld_py.kernel.families import encode_address
from flanneld_py.kernel.nf_expressions import NETWORK, compare, load, load_meta, mask
from flanneld_py.kernel.nf_tables_socket import NfTables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.core.traffic_rules import Chain, Match, Rule, RuleSet
    from flanneld_py.kernel.netlink import Request

FAMILIES = {IPV4: nf_tables.NFPROTO_IPV4, IPV6: nf_tables.NFPROTO_IPV6}
TABLES = {IPV4: "flannel-ipv4", IPV6: "flannel-ipv6"}
_NF_INET_FORWARD, _NF_INET_POST_ROUTING = 2, 4
_CHAINS = {
    Place.FORWARD: ("forward", "filter", nf_tables.Hook(_NF_INET_FORWARD, 0)),
    Place.POSTROUTING: ("postrtg", "nat", nf_tables.Hook(_NF_INET_POST_ROUTING, 100)),
}
_SOURCE, _DESTINATION = {IPV4: 12, IPV6: 8}, {IPV4: 16, IPV6: 24}
_RANDOM_FULLY = 0x10
"""NF_NAT_RANGE_PROTO_RANDOM_FULLY."""


class NftRules:
    """The driver for nftables."""

    name = "nftables"

    def __init__(self, aside: str = "") -> None:
        """Write to the host's tables, or to tables aside of them, for the network of this name."""
        self._opened = NfTables()
        self._tables = {family: f"{table}-{aside}" if aside else table for family, table in TABLES.items()}
        self.port: int | None = self._opened.port
        self.tables = frozenset(self._tables.values())

    def close(self) -> None:
        """Close the socket; the rules stay."""
        self._opened.close()

    def ensure(self, rule_sets: Sequence[RuleSet]) -> bool:
        """Have these rules, and none of ours beside them; return whether something was changed. Raises KernelError."""
        wanted = {rule_set.family: rule_set.chains for rule_set in rule_sets}
        changed = False
        for family in FAMILIES:
            changed |= self._ensure_table(family, wanted.get(family, ()))
        return changed

    def clear(self) -> bool:
        """Take all rules of ours away; return whether there were any. Raises KernelError."""
        return self.ensure(())

    def _ensure_table(self, family: int, chains: Sequence[Chain]) -> bool:
        protocol, table = FAMILIES[family], self._tables[family]
        wanted = [request for chain in chains for request in _chain(family, table, chain)]
        if not wanted:
            named = nf_tables.message(nf_tables.GETTABLE, protocol, nf_tables.text(1, table))
            if self._opened.read(named) is None:
                return False
            self._opened.execute([nf_tables.delete_table(protocol, table)], f"delete table {table}")
            return True
        if self._opened.holds(protocol, table, wanted):
            return False
        make = nf_tables.new_table(protocol, table)
        # What is not there cannot be deleted; so it is made first, in the same transaction.
        self._opened.execute(
            [make, nf_tables.delete_table(protocol, table), make, *wanted], f"write the rules of table {table}"
        )
        return True


def _chain(family: int, table: str, chain: Chain) -> list[Request]:
    name, kind, hook = _CHAINS[chain.place]
    protocol = FAMILIES[family]
    rules = (nf_tables.append_rule(protocol, table, name, *_expressions(family, rule)) for rule in chain.rules)
    return [nf_tables.new_chain(protocol, table, name, kind, hook), *rules]


def _expressions(family: int, rule: Rule) -> list[bytes]:
    found: list[bytes] = []
    if rule.mark:
        # The mark lies in a register in the machine's byte order.
        value = netlink.encode_u32(0, rule.mark)[4:]
        found += [load_meta(nf_expressions.META_MARK), mask(value), compare(value)]
    for match, offsets in ((rule.source, _SOURCE), (rule.destination, _DESTINATION)):
        if match is not None:
            found += _address(family, match, offsets[family])
    return [*found, _verdict(rule.verdict)]


def _address(family: int, match: Match, offset: int) -> list[bytes]:
    prefix = match.prefix
    width = bits(family)
    whole = ((1 << width) - 1) ^ ((1 << (width - prefix.length)) - 1)
    return [
        load(NETWORK, offset, width // 8),
        mask(encode_address(family, whole)),
        compare(encode_address(family, prefix.address), equal=not match.outside),
    ]


def _verdict(wanted: Verdict) -> bytes:
    match wanted:
        case Verdict.ACCEPT:
            return nf_expressions.verdict(nf_tables.NF_ACCEPT)
        case Verdict.RETURN:
            return nf_expressions.verdict(nf_tables.NFT_RETURN)
        case Verdict.MASQUERADE:
            return nf_expressions.expression("masq")
        case Verdict.MASQUERADE_RANDOM:
            return nf_expressions.expression("masq", nf_tables.number(1, _RANDOM_FULLY))
