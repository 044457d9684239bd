import re
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.entries import BLACKHOLE, PROTOCOL_KERNEL, UNICAST, UNREACHABLE, Route
from flanneld_py.core.prefix import IPV4, IPV6, parse_address, parse_prefix
from flanneld_py.core.underlay import (
    AddressOf,
    Interface,
    NoUplinkError,
    UplinkWish,
    find_direct_device,
    find_route,
    follow_uplink,
    pick_uplink,
)


def interface(ifindex, name, *addresses, is_up=True, passing=()):
    entries = []
    for text in addresses:
        address, length = text.split("/")
        entries.append(AddressOf(ip_address(address), int(length), text not in passing))
    return Interface(ifindex, name, 1500, is_up, tuple(entries))


def route(dst, ifindex, gateway="", metric=0, kind=UNICAST, nexthop_id=0):
    via = parse_address(gateway)[1] if gateway else 0
    return Route(parse_prefix(dst), metric, nexthop_id, via, ifindex, False, PROTOCOL_KERNEL, kind)


ETH0 = interface(2, "eth0", "192.168.1.5/24", "fd30::5/64")
ETH1 = interface(3, "eth1", "172.30.0.11/16", "172.30.0.99/16", "fe80::1/64", "fd31::11/64", passing=("fe80::1/64",))
DOWN = interface(4, "down0", "10.9.9.9/24", is_up=False)
BARE = interface(5, "bare0")
INTERFACES = (BARE, ETH0, ETH1, DOWN)
ROUTES = (
    route("0.0.0.0/0", 2, "192.168.1.1", metric=100),
    route("0.0.0.0/0", 3, "172.30.0.1", metric=200),
    route("192.168.1.0/24", 2),
    route("172.30.0.0/16", 3),
    route("203.0.113.0/24", 3, "172.30.0.1"),
    route("::/0", 3, "fd31::1", metric=1024),
    route("fd30::/64", 2, metric=256),
    route("fd31::/64", 3, metric=256),
)


def pick(wish=None, interfaces=INTERFACES, routes=ROUTES, *, ipv4=True, ipv6=False):
    return pick_uplink(wish or UplinkWish(), interfaces, routes, ipv4=ipv4, ipv6=ipv6)


def test_default_route_with_the_smallest_metric():
    uplink = pick()
    assert uplink.interface == ETH0
    assert uplink.source == uplink.public_ip == ip_address("192.168.1.5")
    assert uplink.source_ipv6 is uplink.public_ipv6 is None
    assert uplink.reason == "it has the default route"


def test_default_route_of_ipv6_where_there_is_no_ipv4():
    uplink = pick(ipv4=False, ipv6=True)
    assert uplink.interface == ETH1
    assert uplink.source_ipv6 == ip_address("fd31::11")
    assert uplink.public_ip is None


def test_dual_stack_takes_both_addresses_of_one_interface():
    uplink = pick(UplinkWish(ifaces=("eth1",)), ipv6=True)
    assert (str(uplink.source), str(uplink.source_ipv6)) == ("172.30.0.11", "fd31::11")


@pytest.mark.parametrize(
    ("wish", "name", "reason"),
    [
        (UplinkWish(ifaces=("eth1",)), "eth1", "--iface=eth1"),
        (UplinkWish(ifaces=("172.30.0.99",)), "eth1", "--iface=172.30.0.99"),
        (UplinkWish(ifaces=("fd31::11",)), "eth1", "--iface=fd31::11"),
        (UplinkWish(ifaces=("wlan0", "eth1", "eth0")), "eth1", "--iface=eth1"),
        (UplinkWish(ifaces=("eth1",), iface_patterns=(re.compile("eth0"),)), "eth1", "--iface=eth1"),
        (UplinkWish(ifaces=("wlan0",), iface_patterns=(re.compile("^eth0$"),)), "eth0", "--iface-regex=^eth0$"),
        (UplinkWish(iface_patterns=(re.compile(r"^172\.30\."),)), "eth1", r"--iface-regex=^172\.30\."),
        (UplinkWish(iface_patterns=(re.compile("nothing"), re.compile("h1"))), "eth1", "--iface-regex=h1"),
        (UplinkWish(can_reach=ip_address("203.0.113.9")), "eth1", "--iface-can-reach=203.0.113.9"),
        (UplinkWish(can_reach=ip_address("8.8.8.8")), "eth0", "--iface-can-reach=8.8.8.8"),
        (UplinkWish(can_reach=ip_address("fd30::9")), "eth0", "--iface-can-reach=fd30::9"),
        (
            UplinkWish(iface_patterns=(re.compile("no"),), can_reach=ip_address("172.30.7.7")),
            "eth1",
            "--iface-can-reach=172.30.7.7",
        ),
        (UplinkWish(public_ip=ip_address("172.30.0.11")), "eth1", "it has the public address 172.30.0.11"),
        (UplinkWish(public_ip=ip_address("198.51.100.7")), "eth0", "it has the default route"),
    ],
)
def test_choice_of_the_interface(wish, name, reason):
    uplink = pick(wish)
    assert (uplink.interface.name, uplink.reason) == (name, reason)


def test_public_addresses_are_published_in_place_of_the_interfaces_own():
    wish = UplinkWish(("eth1",), public_ip=ip_address("198.51.100.7"), public_ipv6=ip_address("2001:db8::7"))
    uplink = pick(wish, ipv6=True)
    assert (str(uplink.public_ip), str(uplink.public_ipv6)) == ("198.51.100.7", "2001:db8::7")
    assert (str(uplink.source), str(uplink.source_ipv6)) == ("172.30.0.11", "fd31::11")


@pytest.mark.parametrize(
    "wish",
    [
        UplinkWish(ifaces=("172.30.0.99",)),
        UplinkWish(ifaces=("wlan0", "172.30.0.99")),
        UplinkWish(iface_patterns=(re.compile(r"\.99$"),)),
        UplinkWish(public_ip=ip_address("172.30.0.99")),
    ],
)
def test_address_named_by_the_operator_is_the_source(wish):
    uplink = pick(wish)
    assert uplink.interface == ETH1
    assert str(uplink.source) == str(uplink.public_ip) == "172.30.0.99"


def test_name_that_the_operator_gave_first_is_not_narrowed_by_what_was_not_needed():
    assert str(pick(UplinkWish(("eth1",), (r"\.99$",))).source) == "172.30.0.11"


def test_pattern_that_matches_several_addresses_takes_a_global_one():
    assert str(pick(UplinkWish(iface_patterns=(re.compile("^f"),)), ipv4=False, ipv6=True).source_ipv6) == "fd30::5"
    only = (ETH1,)
    assert (
        str(pick(UplinkWish(iface_patterns=(re.compile("^f"),)), only, ipv4=False, ipv6=True).source_ipv6) == "fd31::11"
    )


def test_pattern_looks_at_addresses_of_its_family_only():
    with pytest.raises(NoUplinkError):
        pick(UplinkWish(iface_patterns=(re.compile("^fd31"),)))
    assert pick(UplinkWish(iface_patterns=(re.compile("^fd31"),)), ipv4=False, ipv6=True).interface == ETH1


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (UplinkWish(ifaces=("wlan0",)), "no interface matches wlan0; there are: bare0, eth0, eth1, down0"),
        (UplinkWish(("wlan0",), (re.compile("^x"),)), "no interface matches wlan0, ^x; there are"),
        (UplinkWish(ifaces=("bare0",)), "interface bare0 (--iface=bare0) has no IPv4 address"),
        (UplinkWish(ifaces=("down0",)), "interface down0 (--iface=down0) is down"),
    ],
)
def test_no_uplink_says_what_was_looked_for(wish, words):
    with pytest.raises(NoUplinkError) as caught:
        pick(wish)
    assert words in str(caught.value)


def test_no_uplink_without_any_route():
    with pytest.raises(NoUplinkError, match="no default route; name the interface with --iface"):
        pick(routes=())
    with pytest.raises(NoUplinkError, match=r"no interface matches 8\.8\.8\.8"):
        pick(UplinkWish(can_reach=ip_address("8.8.8.8")), routes=())


def test_no_uplink_that_lacks_one_of_two_families():
    with pytest.raises(NoUplinkError, match=r"down0 .* has no IPv6 address"):
        pick(UplinkWish(ifaces=("down0",)), ipv6=True)


def test_global_address_before_a_passing_one():
    both = interface(2, "a", "fe80::1/64", "fd30::1/64", passing=("fe80::1/64",))
    assert both.address(IPV6) == ip_address("fd30::1")
    assert [str(prefix) for prefix in both.prefixes] == ["fd30::/64"]
    lone = interface(2, "a", "fe80::1/64", passing=("fe80::1/64",))
    assert lone.address(IPV6) == ip_address("fe80::1")
    assert lone.address(IPV4) is None


@pytest.mark.parametrize(
    ("address", "device"),
    [
        ("172.30.0.12", 3),
        ("192.168.1.77", 2),
        ("203.0.113.7", 0),
        ("8.8.8.8", 0),
        ("fd30::77", 2),
        ("fd77::1", 0),
    ],
)
def test_direct_means_that_the_route_has_no_gateway(address, device):
    family, value = parse_address(address)
    assert find_direct_device(ROUTES, family, value) == device


@pytest.mark.parametrize("kind", [UNREACHABLE, BLACKHOLE])
def test_a_route_that_drops_is_no_direct_way(kind):
    assert find_direct_device([route("10.0.0.0/8", 0, kind=kind)], IPV4, 0x0A000001) == 0


def test_a_route_by_nexthop_object_is_no_direct_way():
    # Whether that nexthop has a gateway the route does not say.
    assert find_direct_device([route("10.0.0.0/8", 0, nexthop_id=5)], IPV4, 0x0A000001) == 0


def test_nobody_is_reached_without_routes():
    assert find_route([], IPV4, 1) is None
    assert find_direct_device([], IPV4, 1) == 0


@given(st.lists(st.tuples(st.integers(0, 32), st.integers(0, 3)), max_size=8), st.ip_addresses(v=4))
def test_longest_prefix_then_smallest_metric(shapes, address):
    # Every one of these holds the address.
    routes = [
        route(f"{ip_address(int(address) >> (32 - length) << (32 - length))}/{length}", number, metric=metric)
        for number, (length, metric) in enumerate(shapes, 1)
    ]
    found = find_route([*routes, route("::/0", 9)], IPV4, int(address))
    best = max(((length, -metric) for length, metric in shapes), default=None)
    assert best == (None if found is None else (found.dst.length, -found.metric))


def follow(current, interfaces, routes=ROUTES):
    return follow_uplink(current, UplinkWish(), interfaces, routes)


def test_the_uplink_stays_while_it_is_what_it_was():
    current = pick()
    better = route("0.0.0.0/0", 3, "172.30.0.1", metric=1)
    assert follow(current, INTERFACES, (better, *ROUTES)) == current
    grown = interface(2, "eth0", "192.168.1.5/24", "192.168.1.6/32")
    assert follow(current, (BARE, grown, ETH1)) == replace(current, interface=grown)


@pytest.mark.parametrize(
    ("now", "source"),
    [
        (interface(2, "eth0", "192.168.1.7/24"), "192.168.1.7"),
        (interface(2, "eth0"), None),
        (interface(2, "eth0", "192.168.1.5/24", is_up=False), None),
        (interface(9, "eth0", "192.168.1.5/24"), None),
    ],
    ids=["another address", "no address", "down", "another device"],
)
def test_an_uplink_that_is_not_what_it_was_is_chosen_anew(now, source):
    routes = [entry for entry in ROUTES if entry.ifindex == 3 or source]
    if source is None and now.ifindex == 2:
        with pytest.raises(NoUplinkError):
            follow(pick(), (now,))
    uplink = follow(pick(), (now, ETH1), routes)
    assert str(uplink.source) == (source or "172.30.0.11")


def lonely(*addresses):
    return interface(3, "eth1", *addresses, passing=("fe80::1/64",))


def follow_ipv6(current, now, wish=None):
    return follow_uplink(current, wish or UplinkWish(), (now,), ROUTES)


def test_a_link_local_address_never_takes_the_place_of_another():
    current = pick(interfaces=(ETH1,), ipv4=False, ipv6=True)
    with pytest.raises(NoUplinkError, match="a link-local address only"):
        follow_ipv6(current, lonely("fe80::1/64"))


def test_a_link_local_address_is_left_for_another_that_comes():
    only_near, both = lonely("fe80::1/64"), lonely("fe80::1/64", "fd31::11/64")
    current = pick(interfaces=(only_near,), ipv4=False, ipv6=True)
    assert str(follow_ipv6(current, only_near).source_ipv6) == "fe80::1"
    assert str(follow_ipv6(current, both).source_ipv6) == "fd31::11"
    assert follow_uplink(current, UplinkWish(), (both,), ()) == replace(current, interface=both)
    named = UplinkWish(ifaces=("fe80::1",))
    assert follow_ipv6(current, both, named).source_ipv6 == current.source_ipv6
