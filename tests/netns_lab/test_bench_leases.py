import json
from ipaddress import IPv4Address, IPv4Network

import pytest

from netns_lab.bench.leases import (
    NETWORK,
    NODE_KEYS,
    NODE_RANGE,
    PEER_KEYS,
    capacity,
    expected_entries,
    in_hundreds,
    make_leases,
    network_config,
    subnet_length,
)


def test_a_lease_is_written_as_a_daemon_writes_it():
    [lease] = make_leases(1, 24)
    assert lease.key == "/coreos.com/network/subnets/10.1.0.0-24"
    assert lease.value == (
        '{"PublicIP":"100.64.0.1","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"02:f1:00:00:00:00"}}'
    )
    json.loads(lease.value)


@pytest.mark.parametrize("count", [1, 1_000, 50_000, 100_000])
def test_leases_are_distinct_and_lie_in_the_network_beside_the_nodes(count):
    length = subnet_length(count)
    leases = make_leases(count, length)
    for values in zip(*((lease.key, lease.public_ip, lease.mac) for lease in leases), strict=True):
        assert len(set(values)) == count
    for lease in (leases[0], leases[-1]):
        subnet = IPv4Network((lease.subnet, length))
        assert subnet.subnet_of(NETWORK)
        assert not subnet.overlaps(NODE_RANGE)
        assert IPv4Address(lease.public_ip) in IPv4Network("100.64.0.0/10")
        assert not lease.mac[0] & 1


def test_a_number_always_gives_the_same_lease():
    assert make_leases(5, 25, first=3) == make_leases(8, 25)[3:]


def test_the_length_grows_with_the_count_up_to_what_fits():
    assert [subnet_length(count) for count in (0, capacity(24), capacity(24) + 1, 100_000)] == [24, 24, 25, 25]
    with pytest.raises(ValueError, match="room"):
        subnet_length(capacity(28) + 1)


@pytest.mark.parametrize("length", [24, 25, 28])
def test_nodes_are_kept_in_their_range(length):
    config = json.loads(network_config(length))
    for key in ("SubnetMin", "SubnetMax"):
        subnet = IPv4Network((config[key], length))
        assert subnet.subnet_of(NODE_RANGE)
        assert f"{PEER_KEYS}{subnet.network_address}".startswith(NODE_KEYS)


def test_expected_entries_are_keyed_as_the_kernel_does():
    expected = expected_entries(make_leases(1, 24))
    mac = bytes.fromhex("02f100000000")
    assert expected.routes == {bytes([10, 1, 0, 0, 24])}
    assert expected.neighbours == {bytes([10, 1, 0, 0]) + mac}
    assert expected.forwarding == {mac + bytes([100, 64, 0, 1])}


def test_hundreds():
    assert [len(hundred) for hundred in in_hundreds(make_leases(250, 24))] == [100, 100, 50]
