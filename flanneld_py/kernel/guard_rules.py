"""The rules of the guard's table, made from what the guard is to do. Pure.

Owns which packets are looked up in which set, and why one is dropped. Members' subnets are looked up first, by a rule
as short as can be: what it accepts would be accepted anyway if it were no packet of the network at all. Only what it
does not know is asked whether it is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6, Prefix, bits, host_mask
from flanneld_py.kernel import nf_expressions, nf_tables
from flanneld_py.kernel.families import encode_address
from flanneld_py.kernel.guard_members import INET, SIZES, pieces, set_name
from flanneld_py.kernel.nf_expressions import NETWORK, TRANSPORT, compare, load, load_meta, mask, register

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from flanneld_py.core.tunnel_port import TunnelPort
    from flanneld_py.kernel.netlink import Request

_INPUT = nf_tables.Hook(1, -150)
_BEFORE_MASQUERADING = nf_tables.Hook(4, 99)
_PROTOCOLS = {IPV4: nf_tables.NFPROTO_IPV4, IPV6: nf_tables.NFPROTO_IPV6}
_ETHERTYPES = {IPV4: b"\x08\x00", IPV6: b"\x86\xdd"}
_VERSIONS = {IPV4: b"\x40", IPV6: b"\x60"}
_SOURCES = {IPV4: 12, IPV6: 8}
UDP = b"\x11"
_FRAGMENT_HEADER = b"\x2c"[0]
_PORT_OFFSET = 2

STRANGER, NO_IP, FOREIGN, FRAGMENT, POD = "stranger", "no IP", "foreign inner source", "fragment", "pod"
"""Why a packet is dropped: its outer source is no member's; the frame holds no IP of the family; its inner source is
not that member's; it is an IPv6 fragment to the port, or one that hides where it goes; a pod here sends it, and
masquerading would lend it this node's name."""


class GuardPlan(NamedTuple):
    """What the guard is to do: `drop` or only count; `allowed` are inner sources that any member may send with.

    `own` are the subnets of pods that this node masquerades: what they send to the port of other nodes would come from
    a member there.
    """

    port: TunnelPort
    families: tuple[int, ...]
    allowed: tuple[Prefix, ...]
    drop: bool
    own: tuple[Prefix, ...] = ()


class GuardRules(NamedTuple):
    """The chains of a table; `lengths` are the members' prefixes' by family, each with a set of its own."""

    table: str
    plan: GuardPlan
    lengths: AbstractSet[tuple[int, int]]

    def requests(self, *lapse: bytes) -> list[Request]:
        """Return what makes the chains; `lapse` is what accepts all where it applies."""
        bases = {"input": ("filter", _INPUT)} | ({"pods": ("nat", _BEFORE_MASQUERADING)} if self.plan.own else {})
        return [
            *(nf_tables.new_chain(INET, self.table, name, *base) for name, base in bases.items()),
            *(nf_tables.new_chain(INET, self.table, name) for name in ("tunnel", "fragment")),
            *(self._rule(name, *lapse) for name in bases if lapse),
            *self._input_rules(),
            *self._fragment_rules(),
            *self._tunnel_rules(),
            *self._pod_rules(),
        ]

    def _rule(self, chain: str, *expressions: bytes, comment: str = "") -> Request:
        return nf_tables.append_rule(INET, self.table, chain, *expressions, comment=comment)

    def _refuse(self, chain: str, reason: str, *expressions: bytes) -> Request:
        code = nf_tables.NF_DROP if self.plan.drop else nf_tables.NF_ACCEPT
        return self._rule(chain, *expressions, nf_expressions.counter(), nf_expressions.verdict(code), comment=reason)

    def _has_port(self) -> tuple[bytes, ...]:
        """Test for the port, of whatever protocol."""
        return load(TRANSPORT, _PORT_OFFSET, 2), compare(self.plan.port.port.to_bytes(2, "big"))

    def _is_to_port(self) -> tuple[bytes, ...]:
        return *self._has_port(), load_meta(nf_expressions.META_L4PROTO), compare(UDP)

    def _input_rules(self) -> list[Request]:
        port = self.plan.port
        is_ours = (load(TRANSPORT, port.mark_offset, len(port.mark)), compare(port.mark)) if port.mark else ()
        rules = []
        if IPV6 in self.plan.families:
            # IPv4 comes here whole; of IPv6's fragments the first says where they go.
            first = (nf_expressions.load_extension(_FRAGMENT_HEADER, 2, 2), mask(b"\xff\xf8"), compare(b"\0\0"))
            to_fragment = nf_expressions.verdict(nf_tables.NFT_GOTO, "fragment")
            rules.append(self._rule("input", *_is_family(IPV6), *first, to_fragment))
        return [
            *rules,
            *(self._rule("input", *self._has_port(), *self._admits(*one)) for one in self._lengths_of_subnets()),
            self._rule("input", *self._is_to_port(), *is_ours, nf_expressions.verdict(nf_tables.NFT_GOTO, "tunnel")),
        ]

    def _lengths_of_subnets(self) -> list[tuple[int, int]]:
        families = self.plan.families
        return sorted(one for one in self.lengths if one[0] in families and one[1] != bits(one[0]))

    def _admits(self, family: int, length: int) -> tuple[bytes, ...]:
        """Accept what a member sends whose prefix has this length."""
        # Where the network has one family, the backend has no socket for packets of the other.
        test = self._holds(family) if len(self.plan.families) > 1 else self._inner_is(family, equal=True)
        return (
            *test,
            *self._looks_up(family, length),
            nf_expressions.verdict(nf_tables.NF_ACCEPT),
        )

    def _fragment_rules(self) -> list[Request]:
        return [
            self._refuse("fragment", FRAGMENT, *self._is_to_port()),
            # Its transport header can be read: it goes elsewhere.
            self._rule("fragment", load(TRANSPORT, 0, 4), nf_expressions.verdict(nf_tables.NF_ACCEPT)),
            self._refuse("fragment", FRAGMENT),
        ]

    def _tunnel_rules(self) -> list[Request]:
        accept = nf_expressions.verdict(nf_tables.NF_ACCEPT)
        rules = [self._rule("tunnel", *self._admits(family, bits(family))) for family in self.plan.families]
        for prefix in self.plan.allowed:
            family = prefix.family
            if family not in self.plan.families:
                continue
            lies_in = _lies_in(prefix, self._load_inner(family))
            # Looked up last: so a packet is counted once.
            rules.append(self._rule("tunnel", *self._holds(family), *lies_in, *_is_member(family), accept))
        for family in self.plan.families:
            rules.append(self._refuse("tunnel", STRANGER, *_is_family(family), *_is_member(family, inverted=True)))
            no_ip = self._inner_is(family, equal=False)
            rules.append(self._refuse("tunnel", NO_IP, *_is_family(family), *no_ip))
        return [*rules, self._refuse("tunnel", FOREIGN)]

    def _pod_rules(self) -> list[Request]:
        return [
            self._refuse(
                "pods", POD, *_is_family(one.family), *self._is_to_port(), *_lies_in(one, _load_outer(one.family))
            )
            for one in self.plan.own
        ]

    def _holds(self, family: int) -> tuple[bytes, ...]:
        """Test that packet and inner packet are of this family."""
        return *_is_family(family), *self._inner_is(family, equal=True)

    def _inner_is(self, family: int, *, equal: bool) -> tuple[bytes, ...]:
        port = self.plan.port
        if port.ethertype_offset:
            return load(TRANSPORT, port.ethertype_offset, 2), compare(_ETHERTYPES[family], equal=equal)
        return load(TRANSPORT, port.ip_offset, 1), mask(b"\xf0"), compare(_VERSIONS[family], equal=equal)

    def _load_inner(self, family: int) -> bytes:
        return load(TRANSPORT, self._inner_offset(family), SIZES[family])

    def _inner_offset(self, family: int) -> int:
        return self.plan.port.ip_offset + _SOURCES[family]

    def _looks_up(self, family: int, length: int) -> tuple[bytes, ...]:
        offset, word = self._inner_offset(family), SIZES[family] // 4
        rest = _mask_of(family, length)
        expressions = [_load_outer(family)]
        for size in pieces(family, length):
            expressions.append(load(TRANSPORT, offset, size, register(word)))
            part, rest = rest[:size], rest[size:]
            if part.strip(b"\xff"):
                # The kernel's fast way masks whole words; behind a piece there are zeros.
                expressions.append(mask(part.ljust(4, b"\0"), register(word)))
            offset, word = offset + size, word + 1
        return *expressions, nf_expressions.look_up(set_name(family, length))


def _is_family(family: int) -> tuple[bytes, bytes]:
    return load_meta(nf_expressions.META_NFPROTO), compare(bytes((_PROTOCOLS[family],)))


def _load_outer(family: int, into: int = nf_expressions.FIRST) -> bytes:
    return load(NETWORK, _SOURCES[family], SIZES[family], into)


def _is_member(family: int, *, inverted: bool = False) -> tuple[bytes, ...]:
    """Test that the outer source is a member's: each is admitted with itself as inner source."""
    both = _load_outer(family), _load_outer(family, register(SIZES[family] // 4))
    return *both, nf_expressions.look_up(set_name(family, bits(family)), inverted=inverted)


def _lies_in(prefix: Prefix, loaded: bytes) -> tuple[bytes, ...]:
    """Test that an address that is loaded lies in a prefix."""
    family = prefix.family
    return loaded, mask(_mask_of(family, prefix.length)), compare(encode_address(family, prefix.address))


def _mask_of(family: int, length: int) -> bytes:
    return encode_address(family, ((1 << bits(family)) - 1) ^ host_mask(family, length))
