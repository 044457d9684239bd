import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.entries import DrivenEntry, FdbEntry, Kind, Neighbour, Nexthop, Route, entry_key, entry_kind
from flanneld_py.core.plan import Operation, TableDiff, order, plan_change
from flanneld_py.core.prefix import IPV4, Prefix

DEVICE = 7


def make_table(entries, kind):
    return {entry_key(entry): entry for entry in entries if entry_kind(entry) == kind}


def entries_of(peer, remote):
    """What a tunnelled peer has: everything up to its route."""
    mac, base = bytes((2, 0, 0, 0, 0, peer)), 0x0A050000 + (peer << 8)
    return [
        Route(Prefix(IPV4, base, 24), 0, 100 + peer, 0, 0, False),
        Nexthop(100 + peer, IPV4, base, DEVICE, True),
        Neighbour(DEVICE, IPV4, base, mac),
        FdbEntry(DEVICE, mac, IPV4, remote),
    ]


def direct_entries_of(peer, remote):
    base = 0x0A050000 + (peer << 8)
    return [
        Route(Prefix(IPV4, base, 24), 0, 100 + peer, 0, 0, False),
        Nexthop(100 + peer, IPV4, remote, 2, False),
    ]


PEERS = st.dictionaries(
    st.integers(1, 5), st.tuples(st.booleans(), st.integers(0xAC1E0001, 0xAC1E0003)), max_size=5
).map(
    lambda peers: [
        entry
        for peer, (direct, remote) in peers.items()
        for entry in (direct_entries_of if direct else entries_of)(peer, remote)
    ]
)
LOOSE = st.lists(
    st.one_of(
        st.builds(DrivenEntry, st.sampled_from(["a", "b"]), st.tuples(st.integers(1, 2)), st.integers(0, 1)),
        st.builds(FdbEntry, st.integers(1, 2), st.binary(min_size=6, max_size=6), st.just(4), st.integers(0, 2)),
        st.builds(Neighbour, st.integers(1, 2), st.just(4), st.integers(0, 3), st.binary(min_size=1, max_size=1)),
        st.builds(Nexthop, st.integers(1, 3), st.just(4), st.integers(0, 3), st.integers(1, 2), st.booleans()),
        st.builds(
            Route,
            st.integers(0, 2).map(lambda number: Prefix(IPV4, number << 8, 24)),
            st.integers(0, 1),
            st.integers(0, 2),
            st.just(0),
            st.just(0),
            st.just(False),
            st.sampled_from([3, 119]),
        ),
    ),
    max_size=12,
)


class Kernel:
    """As much of the kernel as the order of operations is about."""

    def __init__(self, entries):
        self.tables = {kind: make_table(entries, kind) for kind in Kind}

    def apply(self, operation):
        table, key = self.tables[operation.kind], entry_key(operation.entry)
        if operation.delete:
            del table[key]
        else:
            table[key] = operation.entry

    @property
    def routes_that_lead_nowhere(self):
        """Routes whose nexthop, neighbour or forwarding entry is missing: packets on them are lost."""
        nexthops, neighbours, fdb = (self.tables[kind] for kind in (Kind.NEXTHOP, Kind.NEIGHBOUR, Kind.FDB))
        lost = []
        for route in self.tables[Kind.ROUTE].values():
            nexthop = nexthops.get((route.nexthop_id,))
            if nexthop is None:
                lost.append(route)
            elif nexthop.ifindex == DEVICE:
                neighbour = neighbours.get((DEVICE, IPV4, nexthop.gateway))
                if neighbour is None or (DEVICE, neighbour.lladdr) not in fdb:
                    lost.append(route)
        return lost


@given(PEERS | LOOSE, PEERS | LOOSE)
def test_applying_the_difference_gives_what_is_wanted(have, want):
    kernel = Kernel(have)
    for operation in plan_change(have, want):
        kernel.apply(operation)
    assert kernel.tables == Kernel(want).tables


@given(PEERS | LOOSE)
def test_what_is_right_needs_nothing(entries):
    assert plan_change(entries, entries) == []


@given(PEERS, PEERS)
def test_no_packet_is_lost_on_the_way(have, want):
    kernel = Kernel(have)
    kept = {entry_key(entry) for entry in have if entry in want and entry_kind(entry) == Kind.ROUTE}
    for operation in plan_change(have, want):
        kernel.apply(operation)
        assert kernel.routes_that_lead_nowhere == []
        assert kept <= kernel.tables[Kind.ROUTE].keys()


@given(LOOSE, LOOSE)
def test_no_route_is_made_before_what_it_needs_nor_outlives_it(have, want):
    kinds = [(operation.delete, operation.kind) for operation in plan_change(have, want)]
    made = [kind for delete, kind in kinds if not delete]
    deleted = [kind for delete, kind in kinds if delete]
    assert kinds[: len(made)] == [(False, kind) for kind in made]
    assert made == sorted(made)
    assert deleted == sorted(deleted, reverse=True)


def test_order_keeps_operations_of_one_rank_as_they_came():
    operations = [Operation(entry_kind(entry), False, entry) for peer in (2, 1, 3) for entry in entries_of(peer, 9)]
    routes = [operation.entry for operation in order(operations) if operation.kind == Kind.ROUTE]
    assert [route.nexthop_id for route in routes] == [102, 101, 103]


def test_a_changed_value_is_one_replace():
    before, after = entries_of(1, 8), entries_of(1, 9)
    assert plan_change(before, after) == [Operation(Kind.FDB, False, after[-1])]


@pytest.mark.parametrize(
    ("entry", "kind", "key"),
    [
        (DrivenEntry("guests", (1, 2), 3), Kind.DRIVEN, ("guests", (1, 2))),
        (FdbEntry(1, b"mac", 4, 5), Kind.FDB, (1, b"mac")),
        (Neighbour(1, 4, 5, b"mac"), Kind.NEIGHBOUR, (1, 4, 5)),
        (Nexthop(9, 4, 5, 1, True), Kind.NEXTHOP, (9,)),
        (Route(Prefix(4, 0, 8), 3, 9, 0, 0, False), Kind.ROUTE, (Prefix(4, 0, 8), 3)),
    ],
)
def test_identity_of_each_kind(entry, kind, key):
    assert entry_kind(entry) == kind
    assert entry_key(entry) == key


def test_two_kinds_never_meet_in_one_table():
    entries = [*entries_of(1, 9), DrivenEntry("guests", (1,))]
    assert [len(make_table(entries, kind)) for kind in Kind] == [1, 1, 1, 1, 1]


@given(PEERS, PEERS, st.integers(1, 4))
def test_told_in_pieces_the_difference_is_the_same(have, want, size):
    diff = TableDiff({kind: make_table(have, kind) for kind in Kind})
    pieces = [want[start : start + size] for start in range(0, len(want), size)]
    operations = [operation for piece in pieces for operation in diff.replaces(piece)]
    assert order(operations + diff.deletes()) == plan_change(have, want)


def test_entries_of_tables_that_are_not_compared_are_passed_over():
    diff = TableDiff({Kind.ROUTE: {}})
    assert [operation.kind for operation in diff.replaces(entries_of(1, 9))] == [Kind.ROUTE]
    assert diff.deletes() == []


@given(PEERS | LOOSE, PEERS | LOOSE, st.integers(1, 5))
def test_what_is_wanted_may_be_told_piece_by_piece(have, want, size):
    kernel = Kernel(have)
    diff = TableDiff(Kernel(have).tables)
    for start in range(0, len(want), size):
        for operation in order(diff.replaces(want[start : start + size])):
            kernel.apply(operation)
    for operation in order(diff.deletes()):
        kernel.apply(operation)
    assert kernel.tables == Kernel(want).tables


def test_tables_that_were_not_read_are_left_alone():
    diff = TableDiff({Kind.ROUTE: {}})
    assert [operation.kind for operation in diff.replaces(entries_of(1, 9))] == [Kind.ROUTE]
    assert diff.deletes() == []


def test_an_entry_that_is_wanted_twice_is_never_deleted():
    fdb = entries_of(1, 9)[-1]
    diff = TableDiff({Kind.FDB: {entry_key(fdb): fdb}})
    diff.replaces([fdb])
    diff.replaces([fdb])
    assert diff.deletes() == []
