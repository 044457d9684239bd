"""The guard of the tunnel port: an nftables table of its own that admits the members of the network.

Owns the table: for each family and length of prefix a set of (outer source, inner source's prefix), and the chain that
looks them up before the packet is decapsulated. Packets are looked up by what their inner source is in each length of
prefix that a member has, one hash table each: one look-up in a cluster whose subnets are of one length.

"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flanneld_py.core.driver import driven_entry
from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import Prefix, bits
from flanneld_py.core.tunnel_port import GUARD, admission
from flanneld_py.kernel import errnos, guard_members, nf_expressions, nf_tables
from flanneld_py.kernel.guard_members import INET, TABLE_PREFIX, set_name
from flanneld_py.kernel.guard_rules import FOREIGN, FRAGMENT, NO_IP, POD, STRANGER, UDP, GuardPlan, GuardRules
from flanneld_py.kernel.nf_expressions import load_meta
from flanneld_py.kernel.nf_tables_socket import NfTables, drop_table, read_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from flanneld_py.core.entries import DrivenEntry
    from flanneld_py.core.plan import Operation
    from flanneld_py.kernel.netlink import Request

_KEYS_AT_ONCE = 1000
_AWAITED = "awaited"
"""The set that holds UDP as long as a daemon that was stopped is waited for."""
_NFT_INET_PROTO = 12


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

    def read(self) -> Iterator[DrivenEntry]:
        """Return who is admitted; makes the table, and the sets that it lacks. Raises KernelError, as reading may."""
        there = guard_members.read_sets(self._opened, self._name)
        self._lengths |= there
        missing = self._lengths - there
        if missing:
            self._execute([nf_tables.new_table(INET, self._name), *map(self._new_set, sorted(missing))])
        return self._read_sets(there)

    def _read_sets(self, there: AbstractSet[tuple[int, int]]) -> Iterator[DrivenEntry]:
        # One set at a time, by the socket that all else goes by: in between it is free.
        for family, length in sorted(there):
            for outer, inner in guard_members.read_members(self._opened, self._name, family, length):
                yield admission(family, outer, Prefix(family, inner, length))

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
        if self._opened.holds(INET, self._name, self._rules().requests()):
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
                nf_tables.NEWSETELEM, INET, self._name, _AWAITED, [nf_tables.expiring_element(UDP, after)]
            ),
        ]
        has_lapsed = load_meta(nf_expressions.META_L4PROTO), nf_expressions.look_up(_AWAITED, inverted=True)
        accept = nf_expressions.verdict(nf_tables.NF_ACCEPT)
        self._execute([*self._take_away(), *awaited, *self._rules().requests(*has_lapsed, accept)])

    def read_counts(self) -> dict[str, int]:
        """Return how many packets were dropped, or would have been, by reason. Raises KernelError."""
        request = nf_tables.get_rules(INET, self._name)
        counts = dict.fromkeys((STRANGER, NO_IP, FOREIGN, FRAGMENT, POD), 0)
        for reason, packets in self._opened.dump(request, nf_expressions.decode_count):
            if reason in counts:
                counts[reason] += packets
        return counts

    def _encode(self, operations: Sequence[Operation]) -> list[Request]:
        groups: dict[tuple[bool, int, int], list[tuple[int, int]]] = {}
        for operation in operations:
            family, outer, inner = _admitted(operation)
            groups.setdefault((operation.delete, family, inner.length), []).append((outer, inner.address))
        requests = []
        new = {(family, length) for _, family, length in groups} - self._lengths
        if new:
            self._lengths |= new
            requests += [self._new_set(one) for one in sorted(new)]
        for (delete, family, length), members in groups.items():
            kind = nf_tables.DELSETELEM if delete else nf_tables.NEWSETELEM
            name = set_name(family, length)
            elements = guard_members.encode_members(family, length, members)
            for start in range(0, len(elements), _KEYS_AT_ONCE):
                part = elements[start : start + _KEYS_AT_ONCE]
                requests.append(nf_tables.change_elements(kind, INET, self._name, name, part))
        # A set that no rule looks up admits nobody.
        return [*requests, *self._rewrite()] if new and self._armed else requests

    def _execute(self, requests: Sequence[Request]) -> None:
        self._opened.execute(requests, f"write table {self._name}")

    def _new_set(self, one: tuple[int, int]) -> Request:
        return guard_members.new_members(self._name, *one)

    def _rules(self) -> GuardRules:
        return GuardRules(self._name, self._plan, self._lengths)

    def _awaited_set(self) -> Request:
        return nf_tables.new_set(INET, self._name, _AWAITED, 1, _NFT_INET_PROTO, flags=nf_tables.SET_TIMEOUT)

    def _rewrite(self) -> list[Request]:
        """Take the chains away and write them anew: in one transaction, so the guard never sleeps."""
        return [*self._take_away(), *self._rules().requests()]

    def _take_away(self) -> list[Request]:
        names = self._opened.read_chains(INET, self._name)
        # Rules of one lead to another: all go before the first chain does.
        flush = [nf_tables.flush_chain(INET, self._name, name) for name in names]
        return [*flush, *(nf_tables.delete_chain(INET, self._name, name) for name in names)]


def read_guards() -> set[str]:
    """Return the names of all guards that there are, each that of its tunnel's device. Raises KernelError."""
    tables = [name for _, name in read_tables()]
    return {name.removeprefix(TABLE_PREFIX) for name in tables if name.startswith(TABLE_PREFIX)}


def drop_guard(name: str) -> None:
    """Take a guard's table away; having none is no error. Raises KernelError."""
    drop_table(INET, TABLE_PREFIX + name)


def _admitted(operation: Operation) -> tuple[int, int, Prefix]:
    return cast("tuple[int, int, Prefix]", driven_entry(operation).key)
