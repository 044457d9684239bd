import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core import prefix as prefixes
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, parse_prefix

NETWORKS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ipaddress.ip_network(pair, strict=False))


def ours(network):
    return Prefix(network.version, int(network.network_address), network.prefixlen)


@given(NETWORKS)
def test_text_and_back_as_the_standard_library_does_it(network):
    prefix = ours(network)
    assert str(prefix) == str(network)
    assert parse_prefix(str(network)) == prefix
    assert prefix.base == network.network_address
    assert prefix.last == int(network.broadcast_address)
    assert prefix.size == network.num_addresses
    assert prefixes.host_mask(prefix.family, prefix.length) == int(network.hostmask)


@given(NETWORKS, NETWORKS)
def test_relations_as_the_standard_library_judges_them(one, other):
    assert ours(one).overlaps(ours(other)) == (one.version == other.version and one.overlaps(other))
    assert ours(one).contains(ours(other)) == (one.version == other.version and other.subnet_of(one))


@given(NETWORKS, st.data())
def test_holds_every_address_between_base_and_last(network, data):
    prefix = ours(network)
    inside = data.draw(st.integers(prefix.address, prefix.last))
    assert prefix.holds(inside)
    for outside in (prefix.address - 1, prefix.last + 1):
        if 0 <= outside < 1 << prefixes.bits(prefix.family):
            assert not prefix.holds(outside)


@given(st.ip_addresses())
def test_address_and_back(address):
    family, value = prefixes.parse_address(str(address))
    assert (family, value) == (address.version, int(address))
    assert prefixes.make_address(family, value) == address
    assert prefixes.format_address(family, value) == str(address)
    host = prefixes.host_prefix(address)
    assert (host.base, host.size) == (address, 1)


@given(st.lists(NETWORKS, max_size=5), NETWORKS, st.data())
def test_gap_around_an_address_is_free_and_cannot_be_larger(taken, network, data):
    whole, others = ours(network), [ours(other) for other in taken]
    address = data.draw(st.integers(whole.address, whole.last))
    gap = prefixes.gap_around(whole, address, others)
    assert whole.contains(gap)
    assert gap.holds(address)
    if any(other.family == whole.family and other.holds(address) for other in others):
        assert gap.size == 1
        return
    assert not any(other.overlaps(gap) for other in others)
    if gap != whole:
        larger = prefixes.prefix_around(whole.family, address, gap.length - 1)
        assert any(other.overlaps(larger) for other in others)


def test_prefix_around_an_address():
    assert str(prefixes.make_prefix(ipaddress.ip_address("10.5.2.77"), 24)) == "10.5.2.0/24"
    assert str(prefixes.make_prefix(ipaddress.ip_address("fd42::77"), 64)) == "fd42::/64"


def test_host_with_its_length():
    assert prefixes.parse_host("10.5.2.1/24") == (IPV4, 0x0A050201, 24)
    assert prefixes.parse_host("fd42::1/64") == (IPV6, (0xFD42 << 112) + 1, 64)


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "10.5.2.0", "10.5.2.0/", "10.5.2.0/33", "10.5.2.0/-1", "10.5.2.0/+8", "10.5.2.0/ 8", "10.5.2/24"),
        *("10.5.2.0/255.255.255.0", "10.05.2.0/24", "10.5.2.256/24", "10.5.2.0.0/24", "10.5.2.0/0024", "x/24"),
        *("fd42::/129", "fd42::%lo/64", ":/64", " 10.5.2.0/24", "10.5.2.0/\u00b24", "1\u0660.5.2.0/24"),
    ],
)
def test_what_is_no_prefix(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ
        parse_prefix(text)


def test_host_bits_are_told_with_the_network():
    with pytest.raises(ValueError, match=r"'10\.5\.2\.1/24' has host bits set: the network is 10\.5\.2\.0/24"):
        parse_prefix("10.5.2.1/24")


@given(st.text(max_size=24))
def test_any_text_is_read_or_refused(text):
    try:
        prefix = parse_prefix(text)
    except ValueError:
        return
    assert ipaddress.ip_network(text) == ipaddress.ip_network(str(prefix))
