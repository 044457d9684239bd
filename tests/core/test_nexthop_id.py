from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.nexthop_id import nexthop_id, nexthop_ids
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, bits, parse_prefix

VNIS = st.integers(0, (1 << 24) - 1)


@st.composite
def networks_with_two_subnets(draw):
    family = draw(st.sampled_from([IPV4, IPV6]))
    width = bits(family)
    length = draw(st.integers(0, width - 2))
    network = Prefix(family, draw(st.integers(0, (1 << length) - 1)) << (width - length), length)

    def draw_subnet():
        subnet_length = draw(st.integers(length + 1, min(width, length + 21)))
        index = draw(st.integers(0, (1 << (subnet_length - length)) - 1))
        return Prefix(family, network.address + (index << (width - subnet_length)), subnet_length)

    return network, draw_subnet(), draw_subnet()


def test_ids_of_the_documented_range():
    assert nexthop_ids(1) == range(0x46100000, 0x46200000)
    network = parse_prefix("10.5.0.0/16")
    # 2^19 pieces would be smaller than an address: every address has its own.
    assert nexthop_id(1, network, parse_prefix("10.5.2.0/24")) == 0x46100000 + 0x200
    assert nexthop_id(1, parse_prefix("fd42::/48"), parse_prefix("fd42:0:0:2::/64")) == 0x46100000 + (1 << 19) + 16


@given(VNIS, networks_with_two_subnets())
def test_disjoint_subnets_have_different_ids(vni, drawn):
    network, one, other = drawn
    first, second = nexthop_id(vni, network, one), nexthop_id(vni, network, other)
    if first is not None and second is not None and not one.overlaps(other):
        assert first != second


@given(VNIS, networks_with_two_subnets())
def test_every_id_lies_in_the_range_of_its_vni(vni, drawn):
    network, one, _ = drawn
    ident = nexthop_id(vni, network, one)
    pieces = 1 << 19
    assert (ident is None) == (one.size < max(1, network.size // pieces))
    assert ident is None or ident in nexthop_ids(vni)
    assert 0 < nexthop_ids(vni).start < nexthop_ids(vni).stop <= 1 << 32


@given(VNIS, VNIS)
def test_ranges_of_two_vnis_are_apart(one, other):
    apart = one % 2048 != other % 2048
    first, second = nexthop_ids(one), nexthop_ids(other)
    assert apart == (first.stop <= second.start or second.stop <= first.start)


@given(VNIS, networks_with_two_subnets(), networks_with_two_subnets())
def test_families_never_share_an_id(vni, one, other):
    if one[0].family != other[0].family:
        first, second = nexthop_id(vni, one[0], one[1]), nexthop_id(vni, other[0], other[1])
        assert first is None or first != second
