"""The guard of the tunnel port: an nftables table of its own that admits the members of the network.

Owns the table: for each family and length of prefix a set of (outer source, inner source's prefix), and the chain that
looks them up before the packet is decapsulated. Packets are looked up by what their inner source is in each length of
prefix that a member has, one hash table each: one look-up in a cluster whose subnets are of one length.

Members' subnets are looked up first, by a rule as short as can be: what it accepts would be accepted anyway if it were
no packet of the network at all. Only what it does not know is asked whether it is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from flanneld_py.core.driver import driven_entry
from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, bits, host_mask
from flanneld_py.core.tunnel_port import GUARD, admission
from flanneld_py.kernel import errnos, guard_members, nf_tables
from flanneld_py.kernel.families import encode_address
from flanneld_py.kernel.guard_members import INET, SIZES, TABLE_PREFIX, set_name
from flanneld_py.kernel.nf_tables import NETWORK, TRANSPORT, compare, load, load_meta, mask
from flanneld_py.kernel.nf_tables_socket import NfTables, drop_table, read_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flanneld_py.core.entries import DrivenEntry
    from flanneld_py.core.plan import Operation
    from flanneld_py.core.tunnel_port import TunnelPort
    from flanneld_py.kernel.netlink import Request

_INPUT = nf_tables.Hook(1, -150)
_BEFORE_MASQUERADING = nf_tables.Hook(4, 99)
_PROTOCOLS = {IPV4: nf_tables.NFPROTO_IPV4, IPV6: nf_tables.NFPROTO_IPV6}
_ETHERTYPES = {IPV4: b"\x08\x00", IPV6: b"\x86\xdd"}
_VERSIONS = {IPV4: b"\x40", IPV6: b"\x60"}
_SOURCES = {IPV4: 12, IPV6: 8}
_SECOND = {IPV4: 9, IPV6: 2}
"""The register behind the first one, when that holds an address of the family."""
_UDP = b"\x11"
_FRAGMENT_HEADER = b"\x2c"[0]
_PORT_OFFSET = 2
_KEYS_AT_ONCE = 1000
_AWAITED = "awaited"
"""The set that holds UDP as long as a daemon that was stopped is waited for."""
_NFT_INET_PROTO = 12

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


class GuardTable:
    """Reads and writes the table; a `TableDriver`."""

    table = GUARD
    batch = 500

    def __init__(self, name: str, plan: GuardPlan, lengths: Iterable[tuple[int, int]]) -> None:
        """Take charge of a table; `lengths` are those that members' subnets are known to have, by family."""
        self._opened = NfTables()
        self._name = TABLE_PREFIX + name
        self._plan = plan
        self._lengths = {(family, bits(family)) for family in plan.families} | set(lengths)
        self._armed = False
        self.port = self._opened.port
        self.name = self._name

    def close(self) -> None:
        """Close the socket; the guard stays."""
        self._opened.close()

    def read(self) -> list[DrivenEntry]:
        """Return who is admitted; makes the table, and the sets that it lacks. Raises KernelError."""
        there = guard_members.read_sets(self._opened, self._name)
        self._lengths |= there
        missing = self._lengths - there
        if missing:
            self._execute([nf_tables.new_table(INET, self._name), *map(self._new_set, sorted(missing))])
        return [
            admission(family, outer, Prefix(family, inner, length))
            for family, length in sorted(there)
            for outer, inner in guard_members.read_members(self._opened, self._name, family, length)
        ]

    def apply(self, operations: Sequence[Operation]) -> Mapping[int, tuple[int, str]]:
        """Carry out operations all together, or if that fails one by one; return what failed."""
        try:
            self._execute(self._encode(operations))
        except KernelError as error:
            if len(operations) == 1:
                gone = operations[0].delete and errnos.is_absent(error)
                return {} if gone else {0: (error.errno or 0, error.strerror or "")}
        else:
            return {}
        results = [self.apply((operation,)) for operation in operations]
        return {index: result[0] for index, result in enumerate(results) if result}

    def arm(self) -> bool:
        """Have the chain that looks packets up; return whether it was written. Raises KernelError.

        Fails where others have taken the sets away since they were filled: empty ones would admit nobody.
        """
        self._armed = True
        if self._opened.holds(INET, self._name, self._chain_requests()):
            return False
        try:
            self._execute(self._rewrite())
        except KernelError:
            whole = self._plan
            if not whole.own:
                raise
            # Old kernels have no chains for NAT in tables of both families; the tunnel can be guarded without.
            self._plan = whole._replace(own=())
            try:
                self._execute(self._rewrite())
            except KernelError:
                self._plan = whole
                raise
        # What is not there cannot be deleted.
        self._execute([self._awaited_set(), nf_tables.delete_set(INET, self._name, _AWAITED)])
        return True

    def disarm(self, after: float = 0) -> None:
        """Have it lapse after so many seconds unless it is armed again; who is admitted stays. Raises KernelError.

        The kernel keeps the time. A guard that was not armed goes at once.
        """
        if not self._armed or not after:
            self._armed = False
            self._execute(self._take_away())
            return
        self._armed = False
        awaited = [
            self._awaited_set(),
            nf_tables.flush_set(INET, self._name, _AWAITED),
            nf_tables.change_elements(
                nf_tables.NEWSETELEM, INET, self._name, _AWAITED, [nf_tables.expiring_element(_UDP, after)]
            ),
        ]
        has_lapsed = load_meta(nf_tables.META_L4PROTO), nf_tables.look_up(_AWAITED, inverted=True)
        accept = nf_tables.verdict(nf_tables.NF_ACCEPT)
        self._execute([*self._take_away(), *awaited, *self._chain_requests(*has_lapsed, accept)])

    def read_counts(self) -> dict[str, int]:
        """Return how many packets were dropped, or would have been, by reason. Raises KernelError."""
        request = nf_tables.get_rules(INET, self._name)
        counts = dict.fromkeys((STRANGER, NO_IP, FOREIGN, FRAGMENT, POD), 0)
        for reason, packets in self._opened.dump(request, nf_tables.decode_count):
            if reason in counts:
                counts[reason] += packets
        return counts

    def _encode(self, operations: Sequence[Operation]) -> list[Request]:
        groups: dict[tuple[bool, int, int], list[bytes]] = {}
        for operation in operations:
            family, outer, inner = _admitted(operation)
            element = guard_members.encode_member(family, outer, inner.address)
            groups.setdefault((operation.delete, family, inner.length), []).append(element)
        requests = []
        new = {(family, length) for _, family, length in groups} - self._lengths
        if new:
            self._lengths |= new
            requests += [self._new_set(one) for one in sorted(new)]
        for (delete, family, length), elements in groups.items():
            kind = nf_tables.DELSETELEM if delete else nf_tables.NEWSETELEM
            name = set_name(family, length)
            for start in range(0, len(elements), _KEYS_AT_ONCE):
                part = elements[start : start + _KEYS_AT_ONCE]
                requests.append(nf_tables.change_elements(kind, INET, self._name, name, part))
        # A set that no rule looks up admits nobody.
        return [*requests, *self._rewrite()] if new and self._armed else requests

    def _execute(self, requests: Sequence[Request]) -> None:
        self._opened.execute(requests, f"write table {self._name}")

    def _new_set(self, one: tuple[int, int]) -> Request:
        return guard_members.new_members(self._name, *one)

    def _awaited_set(self) -> Request:
        return nf_tables.new_set(INET, self._name, _AWAITED, 1, _NFT_INET_PROTO, flags=nf_tables.SET_TIMEOUT)

    def _rewrite(self) -> list[Request]:
        """Take the chains away and write them anew: in one transaction, so the guard never sleeps."""
        return [*self._take_away(), *self._chain_requests()]

    def _take_away(self) -> list[Request]:
        names = self._opened.read_chains(INET, self._name)
        # Rules of one lead to another: all go before the first chain does.
        flush = [nf_tables.flush_chain(INET, self._name, name) for name in names]
        return [*flush, *(nf_tables.delete_chain(INET, self._name, name) for name in names)]

    def _chain_requests(self, *lapse: bytes) -> list[Request]:
        """Return what makes the chains; `lapse` is what accepts all where it applies."""
        bases = {"input": ("filter", _INPUT)} | ({"pods": ("nat", _BEFORE_MASQUERADING)} if self._plan.own else {})
        return [
            *(nf_tables.new_chain(INET, self._name, name, *base) for name, base in bases.items()),
            *(nf_tables.new_chain(INET, self._name, name) for name in ("tunnel", "fragment")),
            *(self._rule(name, *lapse) for name in bases if lapse),
            *self._input_rules(),
            *self._fragment_rules(),
            *self._tunnel_rules(),
            *self._pod_rules(),
        ]

    def _rule(self, chain: str, *expressions: bytes, comment: str = "") -> Request:
        return nf_tables.append_rule(INET, self._name, chain, *expressions, comment=comment)

    def _refuse(self, chain: str, reason: str, *expressions: bytes) -> Request:
        code = nf_tables.NF_DROP if self._plan.drop else nf_tables.NF_ACCEPT
        return self._rule(chain, *expressions, nf_tables.counter(), nf_tables.verdict(code), comment=reason)

    def _has_port(self) -> tuple[bytes, ...]:
        """Test for the port, of whatever protocol."""
        return load(TRANSPORT, _PORT_OFFSET, 2), compare(self._plan.port.port.to_bytes(2, "big"))

    def _is_to_port(self) -> tuple[bytes, ...]:
        return *self._has_port(), load_meta(nf_tables.META_L4PROTO), compare(_UDP)

    def _input_rules(self) -> list[Request]:
        port = self._plan.port
        is_ours = (load(TRANSPORT, port.mark_offset, len(port.mark)), compare(port.mark)) if port.mark else ()
        rules = []
        if IPV6 in self._plan.families:
            # IPv4 comes here whole; of IPv6's fragments the first says where they go.
            first = (nf_tables.load_extension(_FRAGMENT_HEADER, 2, 2), mask(b"\xff\xf8"), compare(b"\0\0"))
            to_fragment = nf_tables.verdict(nf_tables.NFT_GOTO, "fragment")
            rules.append(self._rule("input", *_is_family(IPV6), *first, to_fragment))
        return [
            *rules,
            *(self._rule("input", *self._has_port(), *self._admits(*one)) for one in self._lengths_of_subnets()),
            self._rule("input", *self._is_to_port(), *is_ours, nf_tables.verdict(nf_tables.NFT_GOTO, "tunnel")),
        ]

    def _lengths_of_subnets(self) -> list[tuple[int, int]]:
        families = self._plan.families
        return sorted(one for one in self._lengths if one[0] in families and one[1] != bits(one[0]))

    def _admits(self, family: int, length: int) -> tuple[bytes, ...]:
        """Accept what a member sends whose prefix has this length."""
        # Where the network has one family, the backend has no socket for packets of the other.
        test = self._holds(family) if len(self._plan.families) > 1 else self._inner_is(family, equal=True)
        return (
            *test,
            *self._looks_up(family, length),
            nf_tables.verdict(nf_tables.NF_ACCEPT),
        )

    def _fragment_rules(self) -> list[Request]:
        return [
            self._refuse("fragment", FRAGMENT, *self._is_to_port()),
            # Its transport header can be read: it goes elsewhere.
            self._rule("fragment", load(TRANSPORT, 0, 4), nf_tables.verdict(nf_tables.NF_ACCEPT)),
            self._refuse("fragment", FRAGMENT),
        ]

    def _tunnel_rules(self) -> list[Request]:
        accept = nf_tables.verdict(nf_tables.NF_ACCEPT)
        rules = [self._rule("tunnel", *self._admits(family, bits(family))) for family in self._plan.families]
        for prefix in self._plan.allowed:
            family = prefix.family
            if family not in self._plan.families:
                continue
            lies_in = (
                self._load_inner(family, nf_tables.FIRST),
                mask(_mask_of(family, prefix.length)),
                compare(encode_address(family, prefix.address)),
            )
            # Looked up last: so a packet is counted once.
            rules.append(self._rule("tunnel", *self._holds(family), *lies_in, *_is_member(family), accept))
        for family in self._plan.families:
            rules.append(self._refuse("tunnel", STRANGER, *_is_family(family), *_is_member(family, inverted=True)))
            rules += [self._refuse("tunnel", NO_IP, *_is_family(family), *test) for test in self._is_no(family)]
        return [*rules, self._refuse("tunnel", FOREIGN)]

    def _pod_rules(self) -> list[Request]:
        return [
            self._refuse(
                "pods", POD, *_is_family(one.family), *self._is_to_port(), *_lies_in(one, _load_outer(one.family))
            )
            for one in self._plan.own
        ]

    def _holds(self, family: int) -> tuple[bytes, ...]:
        """Test that packet and inner packet are of this family."""
        return *_is_family(family), *self._inner_is(family, equal=True)

    def _inner_is(self, family: int, *, equal: bool) -> tuple[bytes, ...]:
        port = self._plan.port
        if port.ethertype_offset:
            return load(TRANSPORT, port.ethertype_offset, 2), compare(_ETHERTYPES[family], equal=equal)
        return load(TRANSPORT, port.ip_offset, 1), mask(b"\xf0"), compare(_VERSIONS[family], equal=equal)

    def _is_no(self, family: int) -> tuple[tuple[bytes, ...], ...]:
        return (self._inner_is(family, equal=False),)

    def _load_inner(self, family: int, register: int) -> bytes:
        return load(TRANSPORT, self._plan.port.ip_offset + _SOURCES[family], SIZES[family], register)

    def _looks_up(self, family: int, length: int) -> tuple[bytes, ...]:
        second = _SECOND[family]
        masked = () if length == bits(family) else (mask(_mask_of(family, length), second),)
        return (
            _load_outer(family),
            self._load_inner(family, second),
            *masked,
            nf_tables.look_up(set_name(family, length)),
        )


def read_guards() -> set[str]:
    """Return the names of all guards that there are, each that of its tunnel's device. Raises KernelError."""
    tables = [name for _, name in read_tables()]
    return {name.removeprefix(TABLE_PREFIX) for name in tables if name.startswith(TABLE_PREFIX)}


def drop_guard(name: str) -> None:
    """Take a guard's table away; having none is no error. Raises KernelError."""
    drop_table(INET, TABLE_PREFIX + name)


def _admitted(operation: Operation) -> tuple[int, int, Prefix]:
    return cast("tuple[int, int, Prefix]", driven_entry(operation).key)


def _is_family(family: int) -> tuple[bytes, bytes]:
    return load_meta(nf_tables.META_NFPROTO), compare(bytes((_PROTOCOLS[family],)))


def _load_outer(family: int, register: int = nf_tables.FIRST) -> bytes:
    return load(NETWORK, _SOURCES[family], SIZES[family], register)


def _is_member(family: int, *, inverted: bool = False) -> tuple[bytes, ...]:
    """Test that the outer source is a member's: each is admitted with itself as inner source."""
    both = _load_outer(family), _load_outer(family, _SECOND[family])
    return *both, nf_tables.look_up(set_name(family, bits(family)), inverted=inverted)


def _lies_in(prefix: Prefix, loaded: bytes) -> tuple[bytes, ...]:
    """Test that an address that is loaded lies in a prefix."""
    family = prefix.family
    return loaded, mask(_mask_of(family, prefix.length)), compare(encode_address(family, prefix.address))


def _mask_of(family: int, length: int) -> bytes:
    return encode_address(family, ((1 << bits(family)) - 1) ^ host_mask(family, length))
