"""The probe's messages, who may ask, and what is made of the answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core import probe
from flanneld_py.core.peer import Peer
from flanneld_py.core.prefix import IPV4, IPV6, bits, parse_address, parse_prefix, prefix_around
from flanneld_py.core.probe_members import ProbeMembers, RateLimit
from flanneld_py.core.probe_results import (
    LOSSY,
    NARROW,
    NO_ANSWER,
    NO_OVERLAY,
    NO_UNDERLAY,
    OK,
    OVERLAY,
    UNDERLAY,
    UNTRIED,
    WAITING,
    MtuSearch,
    PeerResult,
    WayRecord,
    WayResult,
)

TOKEN = b"01234567"
SUBNET = parse_prefix("10.5.2.0/24")
ways = st.builds(WayResult, *[st.integers(0, 255)] * 3, st.integers(0, 2**32 - 1), *[st.integers(0, 65535)] * 2)


@st.composite
def subnets(draw):
    family = draw(st.sampled_from((IPV4, IPV6)))
    length = draw(st.integers(0, bits(family)))
    return prefix_around(family, draw(st.integers(0, 2 ** bits(family) - 1)), length)


def test_a_request_is_as_long_as_asked_and_its_answer_never_longer():
    for size in (probe.SMALLEST, 1422):
        request = probe.encode_request(TOKEN, size)
        assert len(request) == size
        assert probe.decode_message(request)[:3] == (probe.REQUEST, TOKEN, size)
        answer = probe.encode_answer(TOKEN)
        assert len(answer) <= len(request)
        assert probe.decode_message(answer)[:2] == (probe.ANSWER, TOKEN)


@given(st.lists(st.builds(PeerResult, subnets(), ways, ways), max_size=40), st.integers(0, 2**32 - 1))
def test_a_row_comes_back_as_it_was(peers, offset):
    request = probe.encode_row_request(TOKEN, offset)
    asked, room = probe.read_row_request(probe.decode_message(request))
    assert asked == offset
    part = probe.RowPart(5000, offset, tuple(peers[:room]))
    answer = probe.encode_row(TOKEN, part)
    assert len(answer) <= len(request)
    assert probe.decode_row(probe.decode_message(answer)) == part


@given(st.binary(max_size=80))
def test_anything_may_come(data):
    for message in (probe.decode_message(data), probe.decode_message(probe.encode_answer(TOKEN) + data)):
        if message is None:
            continue
        _, room = probe.read_row_request(message)
        assert room * 42 <= message.size
        try:
            part = probe.decode_row(message)
        except ValueError:
            continue
        assert len(part.peers) * 42 <= message.size


def test_a_short_request_for_a_row_gets_nothing():
    request = probe.encode_row_request(TOKEN, 0)[: probe.SMALLEST]
    assert probe.read_row_request(probe.decode_message(request)) == (0, 0)


def find_way(source, destination):
    public, public_ipv6 = parse_address("172.30.0.12")[1], parse_address("fd00::12")[1]
    peers = [Peer(SUBNET, public), Peer(parse_prefix("fc00:0:0:2::/64"), public_ipv6)]
    members = ProbeMembers(peers, [parse_prefix("10.5.1.0/24"), parse_prefix("fc00:0:0:1::/64")])
    family, value = parse_address(source)
    return members.find_way(family, value, parse_address(destination)[1])


@pytest.mark.parametrize(
    ("source", "destination", "way"),
    [
        ("172.30.0.12", "172.30.0.11", UNDERLAY),
        ("10.5.2.0", "10.5.1.0", OVERLAY),
        ("10.5.2.1", "10.5.1.1", OVERLAY),
        ("fd00::12", "fd00::11", UNDERLAY),
        ("fc00:0:0:2::", "fc00:0:0:1::", OVERLAY),
        ("10.5.2.7", "10.5.1.0", ""),  # a pod
        ("172.30.0.13", "172.30.0.11", ""),  # a stranger
        ("172.30.0.12", "10.5.1.0", ""),  # a member, by an address that it has not there
        ("10.5.2.0", "172.30.0.11", ""),
        ("10.5.1.7", "10.5.1.0", ""),  # a pod of this node
    ],
)
def test_members_ask_by_their_own_addresses(source, destination, way):
    assert find_way(source, destination) == way


def test_a_rate_begins_anew_with_each_second():
    limit = RateLimit(2)
    assert [limit.allow("a", 5.0), limit.allow("a", 5.9), limit.allow("b", 5.9), limit.allow("a", 5.99)] == [
        True,
        True,
        True,
        False,
    ]
    assert limit.allow("a", 6.0)


def search(family, wanted, carried):
    """Return what a search finds on a path that carries so much, and the sizes that it tried."""
    looking, tried = MtuSearch(family, wanted), []
    while looking.size:
        tried.append(looking.size)
        looking.note(arrived=looking.size <= carried)
    return looking.found, tried


@given(st.integers(600, 9000), st.integers(500, 9000))
def test_the_largest_packet_is_found(wanted, carried):
    found, tried = search(IPV4, wanted, carried)
    assert found == (min(wanted, carried) if carried >= 576 else 0)
    assert len(tried) <= 3 * 14


def test_a_path_that_is_wide_enough_costs_one_packet_and_a_lost_one_is_no_narrow_path():
    assert search(IPV4, 1450, 1500) == (1450, [1450])
    looking = MtuSearch(IPV4, 1450)
    for arrived in (False, False, True):
        looking.note(arrived=arrived)
    assert (looking.found, looking.size) == (1450, 0)


def record(outcomes):
    made = WayRecord()
    for outcome in outcomes:
        made.note_answer(0.001) if outcome == "+" else made.note_loss()
    return made.result(1500)


def test_loss_is_counted_over_the_last_probes():
    assert record("+++-")[:3] == (4, 1, 1)
    assert record("-" * 300)[:3] == (32, 32, 255)
    assert record("+" * 40)[:3] == (32, 0, 0)


def test_an_outage_that_is_over_is_no_loss():
    assert record("++++-----+")[:3] == (5, 0, 0)
    assert record("+-+--+")[:3] == (6, 3, 0)
    assert record("-" * 300 + "+")[:3] == (1, 0, 0)
    assert record("-+")[:3] == (1, 0, 0)


def test_times_are_smoothed():
    made = WayRecord()
    made.note_answer(0.008)
    made.note_answer(0.016)
    assert made.result(1500).round_trip == 9000


@pytest.mark.parametrize(
    ("underlay", "overlay", "state"),
    [
        ("", "", WAITING),
        ("-", "-", WAITING),
        ("---", "---", NO_ANSWER),
        ("+", "+", OK),
        ("+", None, OK),
        ("---", None, NO_ANSWER),
        ("+++", "---", NO_OVERLAY),
        ("---", "+", NO_UNDERLAY),
        ("+++--", "+++", LOSSY),
        ("+" * 20 + "-", "+" * 20, OK),
        ("+++---", "+++---", NO_ANSWER),
        ("+++---+", "+++---+", OK),
        ("+", "--", WAITING),
    ],
)
def test_states(underlay, overlay, state):
    result = PeerResult(SUBNET, record(underlay), UNTRIED if overlay is None else record(overlay))
    assert result.state == state
    assert result.describe()["state"] == state


def test_a_way_that_carries_less_than_is_wanted_is_narrow():
    whole = record("+")
    assert PeerResult(SUBNET, whole._replace(mtu=1400), whole).state == NARROW
    assert PeerResult(SUBNET, whole._replace(mtu=1500), whole).state == OK
