"""All leases of a cluster: found by an address just as a look at each of them would."""

from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.lease import Lease, LeaseAttrs, encode_key
from flanneld_py.core.lease_index import LeaseIndex
from flanneld_py.core.misses import Miss
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, gap_around, prefix_around

LENGTHS = {IPV4: 24, IPV6: 64}


def subnets(family, base, usual):
    """Some subnets close together, so that they overlap often."""
    lengths = st.integers(usual - 2, usual + 2)
    offsets = st.integers(0, (1 << 12) - 1).map(lambda offset: base + (offset << (128 - 72 if family == IPV6 else 0)))
    return st.builds(lambda offset, length: prefix_around(family, offset, length), offsets, lengths)


ipv4 = subnets(IPV4, 0x0A050000, 24)
ipv6 = subnets(IPV6, 0xFD05 << 112, 64)
attrs = st.builds(
    LeaseAttrs,
    st.none() | st.integers(1, (1 << 32) - 1),
    st.none() | st.integers(1, (1 << 128) - 1),
    st.text(max_size=8),
    st.none() | st.text(max_size=40),
    st.none() | st.text(max_size=40),
)
leases = st.builds(Lease, ipv4, st.none() | ipv6, attrs, st.booleans()) | st.builds(
    Lease, st.none(), ipv6, attrs, st.booleans()
)
keys = st.integers(0, 9).map("n{}".format)


def addresses(family, base, step):
    return st.integers(0, (1 << 13) - 1).map(lambda offset: Miss(family, base + (offset << step)))


misses = addresses(IPV4, 0x0A050000, 0) | addresses(IPV6, 0xFD05 << 112, 128 - 72)


@given(st.lists(st.tuples(keys, st.none() | leases), max_size=30), st.lists(misses, min_size=1, max_size=10))
def test_finds_what_a_look_at_each_lease_would(steps, asked):
    index, plain = LeaseIndex(LENGTHS), {}
    for key, lease in steps:
        if lease is None:
            index.remove(key)
            plain.pop(key, None)
        else:
            index.put(key, lease)
            plain[key] = lease
    assert sorted(index) == sorted(plain)
    assert len(index) == len(plain)
    assert {key: index.get(key) for key in (*plain, "other")} == {**plain, "other": None}
    for miss in asked:
        ranks = [
            (subnet.length != LENGTHS[miss.family], -subnet.length, key)
            for key, lease in plain.items()
            for subnet in lease.subnets
            if miss.is_in(subnet)
        ]
        found = index.find(miss)
        assert found == ((min(ranks)[2], plain[min(ranks)[2]]) if ranks else None)
        around = prefix_around(miss.family, miss.address, LENGTHS[miss.family])
        taken = [subnet for lease in plain.values() for subnet in lease.subnets]
        assert index.gap_around(around, miss.address) == gap_around(around, miss.address, taken)


def test_what_is_read_again_is_as_it_was():
    lease = Lease(
        Prefix(IPV4, 0x0A050200, 24), Prefix(IPV6, 0xFD05 << 112, 64), LeaseAttrs(1, 2, "vxlan", "{}", "{}"), True
    )
    index = LeaseIndex(LENGTHS)
    index.put(encode_key(*lease[:2]), lease)
    key, found = index.find(Miss(IPV6, (0xFD05 << 112) + 7))
    assert (key, found) == ("10.5.2.0-24&fd05::-64", lease)
    assert (type(found), type(found.subnet), type(found.attrs)) == (Lease, Prefix, LeaseAttrs)
