"""Which chains of others stop packets that the network lives by, as far as nf_tables shows it, and what lets them pass.

In nftables a packet passes only if every table that sees it lets it pass: no rule of ours can accept it for another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel.guard_members import TABLE_PREFIX
from flanneld_py.kernel.nf_tables_socket import NfTables
from flanneld_py.kernel.nft_walk import BaseChain, NftWalk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.core.prefix import Prefix
    from flanneld_py.core.sample_packet import SamplePacket

_WORDS = {IPV4: "ip", IPV6: "ip6"}
_FIREWALLD = "firewalld"
_ZONE_CHAIN = re.compile(r"(?:filter_)?(?:IN|FWD)_(.+?)(?:_(?:pre|log|deny|allow|post))?")
"""What firewalld calls the chains of a zone, in its own table and in iptables'."""


class Barrier(NamedTuple):
    """A chain that stops packets: `port` is what they come in for, 0 where they are forwarded; `remedy` a command."""

    chain: str
    reason: str
    remedy: str
    port: int


def read_barriers(
    packets: Sequence[SamplePacket], networks: Sequence[Prefix], *, beside_iptables: bool
) -> list[Barrier]:
    """Return the chains that stop any of these packets, which are the networks'.

    What iptables stops counts only if that is asked for, or firewalld has written it there. Raises KernelError.
    """
    with NfTables() as opened:
        walk = NftWalk(opened)
        found: dict[tuple[str, int], Barrier] = {}
        for base in walk.read_base_chains():
            if base.table.startswith(TABLE_PREFIX):
                continue
            for packet in packets:
                port = 0 if packet.outgoing else packet.port
                if not base.sees(packet) or (base.place, port) in found:
                    continue
                end = walk.find_end(base, packet)
                if end is None:
                    continue
                if beside_iptables or not _is_iptables(base) or _zone_of(base, end):
                    found[base.place, port] = _describe(base, end, port, networks)
    return list(found.values())


def _is_iptables(base: BaseChain) -> bool:
    return base.table == "filter" and base.name in {"FORWARD", "INPUT"}


def _zone_of(base: BaseChain, end: str) -> str:
    """Return firewalld's zone whose chain for what comes in or is forwarded this is; empty where it is none."""
    zone = _ZONE_CHAIN.fullmatch(end)
    return zone[1] if zone and (base.table == _FIREWALLD or _is_iptables(base)) else ""


def _describe(base: BaseChain, end: str, port: int, networks: Sequence[Prefix]) -> Barrier:
    zone = _zone_of(base, end)
    if zone or base.table == _FIREWALLD:
        words = _firewalld_words(zone, port, networks)
        # Both: at once, and from the next start on.
        remedy = f"firewall-cmd {words} && firewall-cmd --permanent {words}"
        return Barrier(base.place, f"firewalld rejects it in {end}", remedy, port)
    if port:
        rules = [f"udp dport {port} accept"]
    else:
        rules = [
            f"{_WORDS[one.family]} {side} {one} accept"
            for one in networks
            if base.covers(one.family)
            for side in ("saddr", "daddr")
        ]
    remedy = " && ".join(f"nft insert rule {base.place} {rule}" for rule in rules)
    return Barrier(base.place, f"it is dropped in {end}", remedy, port)


def _firewalld_words(zone: str, port: int, networks: Sequence[Prefix]) -> str:
    if port:
        # Without a zone it is the default zone, which holds whatever no other zone does.
        return f"{f'--zone={zone} ' if zone else ''}--add-port={port}/udp"
    return " ".join(["--zone=trusted", *(f"--add-source={network}" for network in networks)])
