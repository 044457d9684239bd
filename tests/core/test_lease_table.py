import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.lease import Lease, LeaseAttrs
from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.lease_table import LeaseTable
from flanneld_py.core.peer import Members, Peer
from flanneld_py.core.prefix import parse_prefix

OWN = "10.5.1.0-24"
HOSTS, HOSTS6 = (parse_prefix(text).address for text in ("172.30.0.0/16", "fd30::/64"))
MEMBERS = Members(
    own_key=OWN,
    own_public=(HOSTS + 101, None),
    networks=(parse_prefix("10.5.0.0/16"), parse_prefix("fd42::/48")),
    own_subnets=(parse_prefix("10.5.1.0/24"),),
    underlay=(),
    lengths=(24, 64),
)


def make_lease(node=1, subnet=None, ipv6_subnet=None):
    attrs = LeaseAttrs(HOSTS + node, HOSTS6 + 9 if ipv6_subnet else None, "vxlan")
    return Lease(parse_prefix(subnet or f"10.5.{node + 1}.0/24"), ipv6_subnet and parse_prefix(ipv6_subnet), attrs)


def read_peers(lease):
    if lease.attrs.backend_type != "vxlan":
        raise ValueError("its backend is another")
    pairs = ((lease.subnet, lease.attrs.public_ip), (lease.ipv6_subnet, lease.attrs.public_ipv6))
    return tuple(Peer(subnet, address) for subnet, address in pairs if subnet is not None)


ONE, TWO, THREE = make_lease(1), make_lease(2), make_lease(3)
PEERS_ONE, PEERS_TWO, PEERS_THREE = read_peers(ONE), read_peers(TWO), read_peers(THREE)
OUTSIDE = make_lease(subnet="10.9.0.0/24")


def make_table():
    return LeaseTable(read_peers, MEMBERS)


@pytest.fixture
def table():
    table = make_table()
    table.apply([LeaseSnapshot({"a": ONE, "b": TWO}, {"bad": "no JSON"})])
    return table


def test_nothing_is_known_before_the_first_snapshot():
    table = make_table()
    assert not table.complete
    assert table.apply([LeasePut("a", ONE)]) == {"a": ()}
    assert not table.complete
    table.apply([LeaseSnapshot({}, {})])
    assert table.complete
    assert not table.peers


def test_first_snapshot_changes_all_that_it_names():
    table = make_table()
    assert table.apply([LeaseSnapshot({"a": ONE, "b": TWO}, {"bad": "no JSON"})]) == {"a": (), "b": ()}
    assert table.peers == {"a": PEERS_ONE, "b": PEERS_TWO}
    assert list(table) == [*PEERS_ONE, *PEERS_TWO]
    assert table.rejected == {"bad": "no JSON"}


def test_later_snapshot_changes_only_what_differs(table):
    assert table.apply([LeaseSnapshot({"b": TWO, "c": THREE}, {})]) == {"a": PEERS_ONE, "c": ()}
    assert table.peers == {"b": PEERS_TWO, "c": PEERS_THREE}
    assert not table.rejected


def test_snapshot_in_parts_takes_nothing_away_before_its_last(table):
    assert table.apply([LeaseSnapshot({"c": THREE}, {}, first=True, last=False)]) == {"c": ()}
    assert table.peers == {"a": PEERS_ONE, "b": PEERS_TWO, "c": PEERS_THREE}
    assert table.apply([LeaseSnapshot({}, {"bad": "no JSON"}, first=False, last=False)]) == {}
    assert table.apply([LeaseSnapshot({"b": TWO}, {}, first=False, last=True)]) == {"a": PEERS_ONE}
    assert table.peers == {"b": PEERS_TWO, "c": PEERS_THREE}
    assert table.rejected == {"bad": "no JSON"}


def test_table_is_complete_with_the_last_part():
    table = make_table()
    table.apply([LeaseSnapshot({"a": ONE}, {}, last=False)])
    assert not table.complete
    table.apply([LeaseSnapshot({}, {}, first=False)])
    assert table.complete


def test_snapshot_that_is_broken_off_is_begun_anew(table):
    table.apply([LeaseSnapshot({"c": THREE}, {}, last=False)])
    assert table.apply([LeaseSnapshot({"a": ONE}, {})]) == {"b": PEERS_TWO, "c": PEERS_THREE}
    assert table.peers == {"a": PEERS_ONE}


def test_same_snapshot_changes_nothing(table):
    assert table.apply([LeaseSnapshot({"a": ONE, "b": TWO}, {"bad": "no JSON"})]) == {}


def test_put_is_a_change_only_when_its_peers_are_others(table):
    assert table.apply([LeasePut("a", ONE)]) == {}
    assert table.apply([LeasePut("a", THREE), LeasePut("c", ONE)]) == {"a": PEERS_ONE, "c": ()}
    assert table.peers == {"a": PEERS_THREE, "b": PEERS_TWO, "c": PEERS_ONE}


def test_change_and_back_within_a_batch_is_none(table):
    assert table.apply([LeasePut("a", THREE), LeasePut("a", ONE)]) == {}


def test_removal_of_what_was_never_there_is_no_change(table):
    assert table.apply([LeaseRemoved("x"), LeaseRemoved("a"), LeaseRemoved("a")]) == {"a": PEERS_ONE}
    assert table.peers == {"b": PEERS_TWO}


def test_a_broken_value_keeps_what_was_there(table):
    assert table.apply([LeaseRejected("a", "no PublicIP")]) == {}
    assert table.peers["a"] == PEERS_ONE
    assert table.rejected["a"] == "no PublicIP"


def test_deleting_a_broken_key_takes_its_peers_along(table):
    table.apply([LeaseRejected("a", "no PublicIP")])
    assert table.apply([LeaseRemoved("a")]) == {"a": PEERS_ONE}
    assert "a" not in table.peers
    assert "a" not in table.rejected


def test_deleting_a_key_that_never_held_a_lease_is_forgotten_without_a_change(table):
    assert table.apply([LeaseRemoved("bad")]) == {}
    assert not table.rejected


def test_mending_a_broken_key(table):
    table.apply([LeaseRejected("a", "no PublicIP")])
    assert table.apply([LeasePut("a", ONE)]) == {}
    assert table.apply([LeasePut("bad", THREE)]) == {"bad": ()}
    assert not table.rejected


def test_a_key_broken_while_away_keeps_what_was_there(table):
    assert table.apply([LeaseSnapshot({"b": TWO}, {"a": "no JSON"})]) == {}
    assert table.peers == {"a": PEERS_ONE, "b": PEERS_TWO}
    assert table.rejected == {"a": "no JSON"}


def test_events_of_one_batch_apply_in_their_order(table):
    changed = table.apply([LeaseRemoved("a"), LeasePut("a", THREE), LeaseSnapshot({"c": ONE}, {}), LeasePut("d", TWO)])
    assert changed == {"a": PEERS_ONE, "b": PEERS_TWO, "c": (), "d": ()}
    assert table.peers == {"c": PEERS_ONE, "d": PEERS_TWO}


def test_own_lease_is_no_peer(table):
    assert table.apply([LeasePut(OWN, make_lease(101, "10.5.1.0/24"))]) == {}
    assert OWN not in table.skipped


def test_a_lease_of_two_families_is_two_peers(table):
    table.apply([LeasePut("a", make_lease(ipv6_subnet="fd42:0:0:2::/64"))])
    assert [str(peer.subnet) for peer in table.peers["a"]] == ["10.5.2.0/24", "fd42:0:0:2::/64"]


def test_a_refused_lease_is_named_and_hurts_nobody(table):
    other = ONE._replace(attrs=LeaseAttrs(HOSTS + 1, None, "udp"))
    assert table.apply([LeasePut("x", OUTSIDE), LeasePut("y", other)]) == {}
    assert list(table) == [*PEERS_ONE, *PEERS_TWO]
    assert table.skipped == {"x": "10.9.0.0/24 lies outside the network", "y": "its backend is another"}


def test_a_refused_lease_that_is_mended_or_deleted_is_forgotten(table):
    table.apply([LeasePut("x", OUTSIDE), LeasePut("y", OUTSIDE), LeasePut("z", OUTSIDE)])
    table.apply([LeasePut("x", THREE), LeaseRemoved("y")])
    assert set(table.skipped) == {"z"}
    table.apply([LeaseSnapshot({"x": THREE}, {})])
    assert not table.skipped


def test_a_lease_that_turns_bad_is_a_peer_no_more(table):
    assert table.apply([LeasePut("a", OUTSIDE)]) == {"a": PEERS_ONE}
    assert "a" not in table.peers


KEYS = st.sampled_from("abcd")
LEASES = st.integers(0, 3).map(make_lease) | st.just(OUTSIDE)
EVENTS = st.one_of(
    st.builds(LeasePut, KEYS, LEASES),
    st.builds(LeaseRemoved, KEYS),
    st.builds(LeaseRejected, KEYS, st.just("bad")),
    st.builds(LeaseSnapshot, st.dictionaries(KEYS, LEASES), st.just({}), st.booleans(), st.booleans()),
)


@given(st.lists(st.lists(EVENTS, max_size=4), max_size=6))
def test_just_the_differences_are_reported_with_what_was(batches):
    table = make_table()
    for events in batches:
        before = dict(table.peers)
        changed = table.apply(events)
        after = table.peers
        assert changed == {key: before.get(key, ()) for key in before | after if before.get(key) != after.get(key)}


@given(st.lists(EVENTS, max_size=12))
def test_batching_makes_no_difference(events):
    at_once, one_by_one = make_table(), make_table()
    at_once.apply(events)
    for event in events:
        one_by_one.apply([event])
    assert at_once.peers == one_by_one.peers
    assert at_once.rejected == one_by_one.rejected
    assert at_once.skipped == one_by_one.skipped


# Overlaps

EVENTS = {
    "10.5.2.0-24": make_lease(1, "10.5.2.0/24"),
    "10.5.2.0-25": make_lease(2, "10.5.2.0/25"),
    "10.5.2.128-25": make_lease(3, "10.5.2.128/25"),
    "10.5.2.0-23": make_lease(4, "10.5.2.0/23"),
    "10.5.3.0-24": make_lease(5, "10.5.3.0/24"),
    "10.5.2.0-24&fd42:0:0:2::-64": make_lease(6, "10.5.2.0/24", "fd42:0:0:2::/64"),
    "10.5.9.0-28": make_lease(8, "10.5.9.0/28"),
    "10.5.9.0-29": make_lease(9, "10.5.9.0/29"),
}


def test_the_usual_length_goes_before_others_then_the_longer_then_by_key():
    table = make_table()
    table.apply([LeaseSnapshot({}, {}), *(LeasePut(key, lease) for key, lease in EVENTS.items())])
    assert table.peers.keys() == {"10.5.2.0-24", "10.5.3.0-24", "10.5.9.0-29"}
    assert table.skipped["10.5.2.0-25"] == "10.5.2.0/25 overlaps 10.5.2.0/24 of lease 10.5.2.0-24, which goes before it"
    assert table.count_skipped() == {"overlap": 5}


def test_two_leases_of_one_node_are_no_conflict():
    table = make_table()
    table.apply([LeasePut("10.5.2.0-24", make_lease(1)), LeasePut("10.5.2.0-25", make_lease(1, "10.5.2.0/25"))])
    assert table.peers.keys() == {"10.5.2.0-24", "10.5.2.0-25"}


def test_who_was_held_back_comes_in_when_the_other_goes():
    table = make_table()
    table.apply([LeaseSnapshot({"10.5.2.0-24": ONE}, {})])
    other = make_lease(2, "10.5.2.0/25")
    assert table.apply([LeasePut("10.5.2.0-25", other)]) == {}
    assert list(table.take_news()) == ["10.5.2.0-25"]
    assert table.apply([LeasePut("10.5.2.0-25", other)]) == {}
    assert table.take_news() == {}
    assert table.apply([LeaseRemoved("10.5.2.0-24")]) == {"10.5.2.0-24": PEERS_ONE, "10.5.2.0-25": ()}
    assert table.peers == {"10.5.2.0-25": read_peers(other)}
    assert table.skipped == {}
    assert table.apply([LeasePut("10.5.2.0-24", ONE)]) == {"10.5.2.0-24": (), "10.5.2.0-25": read_peers(other)}


@given(
    st.lists(st.tuples(st.sampled_from(list(EVENTS)), st.booleans()), max_size=30), st.randoms(use_true_random=False)
)
def test_the_order_in_which_leases_come_makes_no_difference(history, random):
    table, there = make_table(), set()
    table.apply([LeaseSnapshot({}, {})])
    for key, is_put in history:
        before = dict(table.peers)
        changed = table.apply([LeasePut(key, EVENTS[key]) if is_put else LeaseRemoved(key)])
        names = before.keys() | table.peers.keys()
        assert changed == {
            name: before.get(name, ()) for name in names if before.get(name, ()) != table.peers.get(name, ())
        }
        there = there | {key} if is_put else there - {key}
    names = sorted(there)
    random.shuffle(names)
    other = make_table()
    other.apply([LeaseSnapshot({name: EVENTS[name] for name in names}, {})])
    assert (table.peers, table.skipped.keys()) == (other.peers, other.skipped.keys())
    peers = [peer for peers in table.peers.values() for peer in peers]
    assert not any(
        one.subnet.overlaps(two.subnet) and one.public_ip != two.public_ip
        for place, one in enumerate(peers)
        for two in peers[:place]
    )


# Grace


@pytest.fixture
def patient():
    table = LeaseTable(read_peers, MEMBERS, grace=300.0)
    table.apply([LeaseSnapshot({"a": ONE, "b": TWO}, {"bad": "no JSON"})], 1000.0)
    return table


def test_what_a_new_snapshot_lacks_stays_for_a_while(patient):
    assert patient.apply([LeaseSnapshot({}, {})], 1100.0) == {}
    assert patient.apply([LeaseSnapshot({}, {})], 1200.0) == {}
    assert patient.peers == {"a": PEERS_ONE, "b": PEERS_TWO}
    assert patient.rejected == {}
    assert patient.next_expiry() == 1400.0
    assert patient.expire(1399.0) == {}
    assert patient.expire(1400.0) == {"a": PEERS_ONE, "b": PEERS_TWO}
    assert patient.next_expiry() is None
    assert not patient.peers


def test_what_is_told_of_again_counts_at_once(patient):
    patient.apply([LeaseSnapshot({}, {})], 1100.0)
    moved = make_lease(9, "10.5.2.0/24")
    assert patient.apply([LeasePut("a", moved), LeaseRemoved("b")], 1101.0) == {"a": PEERS_ONE, "b": PEERS_TWO}
    assert patient.peers == {"a": read_peers(moved)}
    assert not patient.missing


def test_a_deletion_that_is_told_counts_at_once(patient):
    assert patient.apply([LeaseRemoved("a")], 1100.0) == {"a": PEERS_ONE}


def test_a_new_owner_goes_before_one_that_the_store_lacks(patient):
    patient.apply([LeaseSnapshot({}, {})], 1100.0)
    rival = make_lease(9, "10.5.2.0/25")
    patient.apply([LeasePut("z", rival)], 1101.0)
    assert patient.peers == {"z": read_peers(rival), "b": PEERS_TWO}


def test_an_empty_answer_at_the_start_is_no_reason_to_prune():
    table = LeaseTable(read_peers, MEMBERS, grace=300.0)
    table.apply([LeaseSnapshot({OWN: make_lease(101, "10.5.1.0/24")}, {})], 1000.0)
    assert table.prune_after == 1300.0
    table.apply([LeasePut("a", ONE)], 1001.0)
    assert table.prune_after == 0.0
