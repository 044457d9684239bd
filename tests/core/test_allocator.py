"""Which subnets a node should lease."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flanneld_py.core.allocator import fits_config, is_same_node, overlap, pick_own, pick_subnets
from flanneld_py.core.lease import LeaseAttrs, parse_key
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.prefix import IPV4, Prefix, parse_prefix

SIXTEEN = parse_network_config('{"Network":"10.5.0.0/20","SubnetLen":24,"SubnetMin":"10.5.0.0"}')
DUAL = parse_network_config('{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd05::/48"}')
HUGE = parse_network_config('{"Network":"10.0.0.0/8","SubnetLen":28,"SubnetMin":"10.0.0.0"}')
IPV6_ONLY = parse_network_config('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd05::/16"}')


def seeded(seed=0):
    return random.Random(seed)  # noqa: S311 - repeatable


def taken(*texts):
    return [(parse_prefix(text), None) for text in texts]


def test_every_free_subnet_can_be_picked_and_no_other():
    held = taken("10.5.0.0/24", "10.5.4.0/22", "10.5.9.64/26", "10.5.15.0/24", "10.6.0.0/24", "192.168.0.0/24")
    picked = {str(pick_subnets(SIXTEEN, held, (), seeded(seed))[0]) for seed in range(500)}
    assert picked == {f"10.5.{third}.0/24" for third in (1, 2, 3, 8, 10, 11, 12, 13, 14)}


@pytest.mark.parametrize("cover", ["10.5.0.0/20", "10.0.0.0/8", "0.0.0.0/0"])
def test_a_lease_over_the_whole_range_leaves_nothing(cover):
    assert pick_subnets(SIXTEEN, taken(cover), (), seeded()) is None


def test_nothing_is_left_when_all_are_taken():
    held = [(SIXTEEN.ipv4.subnet_at(place), None) for place in range(16)]
    assert pick_subnets(SIXTEEN, held, [held[3]], seeded()) is None
    assert pick_subnets(SIXTEEN, held[:3] + held[4:], (), seeded()) == held[3]


def test_bounds_are_kept():
    config = parse_network_config(
        '{"Network":"10.5.0.0/16","SubnetMin":"10.5.7.0","SubnetMax":"10.5.8.0","SubnetLen":24}'
    )
    picked = {pick_subnets(config, (), (), seeded(seed)) for seed in range(50)}
    assert {str(ipv4) for ipv4, _ in picked} == {"10.5.7.0/24", "10.5.8.0/24"}


def test_preferred_goes_by_family_and_order():
    wanted = [parse_key("10.5.1.0-24"), parse_key("10.5.2.0-24&fd05:0:0:9::-64")]
    assert pick_subnets(DUAL, (), wanted, seeded()) == (wanted[0][0], wanted[1][1])
    held = [parse_key("10.5.1.0-24&fd05:0:0:9::-64")]
    ipv4, ipv6 = pick_subnets(DUAL, held, wanted, seeded())
    assert ipv4 == wanted[1][0]
    assert ipv6 != wanted[1][1]


def test_families_that_are_off_are_not_given():
    assert pick_subnets(SIXTEEN, (), [parse_key("10.5.1.0-24&fd05::-64")], seeded()) == parse_key("10.5.1.0-24")
    ipv4, ipv6 = pick_subnets(IPV6_ONLY, (), (), seeded())
    assert ipv4 is None
    assert IPV6_ONLY.ipv6.fits(ipv6)


def test_size_of_the_network_costs_nothing():
    rng = seeded()
    held = [(HUGE.ipv4.subnet_at(place), None) for place in rng.sample(range(HUGE.ipv4.count), 50_000)]
    ipv4, _ = pick_subnets(HUGE, held, (), rng)
    assert (ipv4, None) not in set(held)
    assert HUGE.ipv4.fits(ipv4)


subnets = st.builds(
    lambda place, length: Prefix(IPV4, (0x0A050000 + (place << 4)) & (0xFFFFFFFF << (32 - length)), length),
    st.integers(-64, 1088),
    st.integers(18, 28),
)


@settings(deadline=None)
@given(st.lists(subnets, max_size=40), st.lists(subnets, max_size=3), st.integers(0, 2**32))
def test_what_is_picked_is_free_and_fits_and_none_means_none(held, wanted, seed):
    held, wanted = [(one, None) for one in held], [(one, None) for one in wanted]
    free = [
        subnet
        for subnet in map(SIXTEEN.ipv4.subnet_at, range(SIXTEEN.ipv4.count))
        if not any(subnet.overlaps(other) for other, _ in held)
    ]
    picked = pick_subnets(SIXTEEN, held, wanted, seeded(seed))
    if picked is None:
        assert not free
        return
    assert picked[0] in free
    liked = [subnet for subnet, _ in wanted if subnet in free]
    if liked:
        assert picked[0] == liked[0]


@pytest.mark.parametrize(
    ("key", "config", "fits"),
    [
        ("10.5.1.0-24", SIXTEEN, True),
        ("10.5.1.0-25", SIXTEEN, False),
        ("10.5.16.0-24", SIXTEEN, False),
        ("10.5.1.0-24&fd05::-64", SIXTEEN, False),
        ("10.5.1.0-24", DUAL, False),
        ("10.5.1.0-24&fd05:0:0:1::-64", DUAL, True),
        ("10.5.0.0-24&fd05:0:0:1::-64", DUAL, False),
        ("0.0.0.0-0&fd05:0:0:1::-64", DUAL, False),
        ("0.0.0.0-0&fd05:1::-64", IPV6_ONLY, True),
    ],
)
def test_a_lease_fits_when_it_has_just_the_families_that_are_on(key, config, fits):
    assert fits_config(config, parse_key(key)) == fits


def test_of_our_own_leases_the_preferred_then_the_first_that_fits():
    own = [parse_key(key) for key in ("10.6.1.0-24", "10.5.1.0-24", "10.5.2.0-24")]
    assert pick_own(SIXTEEN, own, ()) == own[1]
    assert pick_own(SIXTEEN, own, [own[0], own[2]]) == own[2]
    assert pick_own(SIXTEEN, own[:1], own) is None


def test_a_node_is_known_by_its_address():
    ours = LeaseAttrs(1, 2, "vxlan")
    assert is_same_node(ours, LeaseAttrs(1, None, "udp"))
    assert not is_same_node(ours, LeaseAttrs(3, 2, "vxlan"))
    assert not is_same_node(ours, LeaseAttrs(None, 2, "vxlan"))
    alone = LeaseAttrs(None, 2, "vxlan")
    assert is_same_node(alone, LeaseAttrs(None, 2, "udp"))
    assert not is_same_node(alone, LeaseAttrs(None, 3, "vxlan"))
    assert not is_same_node(alone, ours)
    assert not is_same_node(LeaseAttrs(None, None, ""), LeaseAttrs(None, None, ""))


def test_leases_overlap_in_either_family():
    one = parse_key("10.5.1.0-24&fd05::-64")
    assert overlap(one, parse_key("10.5.1.64-26"))
    assert overlap(one, parse_key("10.5.2.0-24&fd05::-60"))
    assert not overlap(one, parse_key("10.5.2.0-24&fd05:0:0:1::-64"))
    assert not overlap(one, parse_key("0.0.0.0-0&fd06::-64"))
