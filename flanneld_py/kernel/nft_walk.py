"""What the chains of nf_tables do to a packet, found by walking their rules as the kernel does.

Sources: net/netfilter/nf_tables_core.c (nft_do_chain), include/uapi/linux/netfilter/nf_tables.h. It owns no opinion on
what a chain ought to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.kernel import netlink, nf_tables
from flanneld_py.kernel.nft_registers import Element, Elements, Registers, read_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flanneld_py.core.sample_packet import SamplePacket
    from flanneld_py.kernel.netlink import Message
    from flanneld_py.kernel.nf_tables_socket import NfTables

    Expression = tuple[str, Mapping[int, memoryview]]

INPUT, FORWARD = 1, 2
"""NF_INET_LOCAL_IN and NF_INET_FORWARD."""
_WORDS = {nf_tables.NFPROTO_INET: "inet", nf_tables.NFPROTO_IPV4: "ip", nf_tables.NFPROTO_IPV6: "ip6"}
_PROTOCOLS = {IPV4: nf_tables.NFPROTO_IPV4, IPV6: nf_tables.NFPROTO_IPV6}
_NFT_BREAK, _NFT_JUMP = -2, -3
_ON = (_NFT_BREAK, "")
_DEEPEST = 16
"""NFT_JUMP_STACK_SIZE."""


class BaseChain(NamedTuple):
    """A chain that the kernel calls; `drops` is its policy."""

    family: int
    table: str
    name: str
    hook: int
    drops: bool

    @property
    def place(self) -> str:
        """Return how nft names it."""
        return f"{_WORDS[self.family]} {self.table} {self.name}"

    def sees(self, packet: SamplePacket) -> bool:
        """Say whether it is called for this packet."""
        return self.hook == (FORWARD if packet.outgoing else INPUT) and self.covers(packet.family)

    def covers(self, family: int) -> bool:
        """Say whether it is called for packets of an address family."""
        return self.family in {nf_tables.NFPROTO_INET, _PROTOCOLS[family]}


class NftWalk:
    """Asks what becomes of packets; chains and sets are read when a packet first comes by."""

    def __init__(self, opened: NfTables) -> None:
        """Ask by this socket."""
        self._opened = opened
        self._rules: dict[tuple[int, str, str], list[list[Expression]]] = {}
        self._sets: dict[tuple[int, str, str], Elements] = {}

    def read_base_chains(self) -> list[BaseChain]:
        """Return the chains that the kernel calls for what comes in or is forwarded. Raises KernelError."""
        found = self._opened.dump(nf_tables.message(nf_tables.GETCHAIN, 0), _decode_chain)
        return [chain for chain in found if chain is not None]

    def find_end(self, base: BaseChain, packet: SamplePacket) -> str | None:
        """Return the chain in which a packet is dropped or rejected, None where it passes. Raises KernelError."""
        code, chain = self._run(base, base.name, Registers(packet), 0)
        if code == nf_tables.NF_DROP or (code == _NFT_BREAK and base.drops):
            return chain
        return None

    def _run(self, base: BaseChain, chain: str, registers: Registers, depth: int) -> tuple[int, str]:
        """Return the verdict, NFT_BREAK where the chain comes to its end, and the chain that gives it."""
        if depth > _DEEPEST:
            return nf_tables.NF_ACCEPT, chain
        for rule in self._read_rules(base, chain):
            code, target = self._judge(base, rule, registers)
            if code in {nf_tables.NF_DROP, nf_tables.NF_ACCEPT}:
                return code, chain
            if code == nf_tables.NFT_RETURN:
                break
            if code in {_NFT_JUMP, nf_tables.NFT_GOTO}:
                inner, where = self._run(base, target, registers, depth + 1)
                if inner != _NFT_BREAK or code == nf_tables.NFT_GOTO:
                    return inner, where
        return _NFT_BREAK, chain

    def _judge(self, base: BaseChain, rule: list[Expression], registers: Registers) -> tuple[int, str]:
        """Return a rule's verdict and whose chain it names."""
        for name, attributes in rule:
            if name == "immediate" and read_number(attributes, 1) == 0:
                return _decode_verdict(attributes[2])
            if _rejects(name, attributes):
                return nf_tables.NF_DROP, ""
            if name == "lookup":
                element = self._find(base, attributes, registers)
                if 3 in attributes:
                    # A map of anything but verdicts leads to what a sample has not.
                    return _ON if element is None or element.verdict is None else _decode_verdict(element.verdict)
                if (element is None) != bool(read_number(attributes, 5)):
                    return _ON
            elif not registers.apply(name, attributes):
                return _ON
        return _ON

    def _find(self, base: BaseChain, attributes: Mapping[int, memoryview], registers: Registers) -> Element | None:
        key = (base.family, base.table, netlink.decode_text(attributes[1]))
        if key not in self._sets:
            self._sets[key] = Elements(self._opened, *key)
        return self._sets[key].find(registers.at(read_number(attributes, 2)))

    def _read_rules(self, base: BaseChain, chain: str) -> list[list[Expression]]:
        key = (base.family, base.table, chain)
        if key not in self._rules:
            named = nf_tables.text(nf_tables.RULE_TABLE, base.table), nf_tables.text(nf_tables.RULE_CHAIN, chain)
            told = self._opened.dump(nf_tables.message(nf_tables.GETRULE, base.family, *named), _decode_rule)
            # A kernel may tell the rules of the whole table.
            self._rules[key] = [rule for where, rule in told if where == chain]
        return self._rules[key]


def _rejects(name: str, attributes: Mapping[int, memoryview]) -> bool:
    """Say so also of what iptables has written: an xtables target by its name."""
    return name == "reject" or (name == "target" and netlink.decode_text(attributes[1]) == "REJECT")


def _decode_verdict(data: memoryview) -> tuple[int, str]:
    verdict = netlink.decode_attributes(netlink.decode_attributes(data).get(2, memoryview(b"")))
    code = int.from_bytes(verdict[1], "big", signed=True) if 1 in verdict else _NFT_BREAK
    return code, netlink.decode_text(verdict[2]) if 2 in verdict else ""


def _decode_rule(message: Message) -> tuple[str, list[Expression]]:
    attributes = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size)
    expressions: list[Expression] = []
    for _, _, value in netlink.walk_attributes(attributes.get(nf_tables.RULE_EXPRESSIONS, memoryview(b""))):
        part = netlink.decode_attributes(value)
        expressions.append((netlink.decode_text(part[1]), netlink.decode_attributes(part.get(2, memoryview(b"")))))
    return netlink.decode_text(attributes[nf_tables.RULE_CHAIN]), expressions


def _decode_chain(message: Message) -> BaseChain | None:
    family = message.payload[0]
    attributes = netlink.decode_attributes(message.payload, nf_tables.GENERIC.size)
    hook = attributes.get(nf_tables.CHAIN_HOOK)
    if hook is None or family not in _WORDS:
        return None
    number = read_number(netlink.decode_attributes(hook), 1)
    kind = attributes.get(nf_tables.CHAIN_TYPE)
    if number not in {INPUT, FORWARD} or kind is None or netlink.decode_text(kind) != "filter":
        return None
    return BaseChain(
        family,
        netlink.decode_text(attributes[nf_tables.CHAIN_TABLE]),
        netlink.decode_text(attributes[nf_tables.CHAIN_NAME]),
        number,
        nf_tables.CHAIN_POLICY in attributes and read_number(attributes, nf_tables.CHAIN_POLICY) == nf_tables.NF_DROP,
    )
