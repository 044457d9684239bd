from pathlib import Path

import pytest

from netns_lab.errors import UsageError
from netns_lab.names import addresses, find_place, node_end_points, pod_end_points, substitute
from netns_lab.pods import Pod
from netns_lab.topology import default_topology, load_topology, parse_topology

TOPOLOGY = parse_topology(load_topology(default_topology()))
PODS = (Pod("pod-a", "node1", "pod-a-1", {"ips": [{"address": "10.244.3.2/24"}]}),)


def test_names_stand_for_addresses():
    assert addresses(TOPOLOGY, PODS) == {
        "node1": "172.20.1.11",
        "node2": "172.20.1.12",
        "node3": "172.20.2.11",
        "pod-a": "10.244.3.2",
    }


def test_only_whole_words_after_the_command_are_replaced():
    by_name = addresses(TOPOLOGY, PODS)
    assert substitute(["ping", "-c", "1", "pod-a"], by_name) == ["ping", "-c", "1", "10.244.3.2"]
    assert substitute(["node1", "http://node1/", "node1"], by_name) == ["node1", "http://node1/", "172.20.1.11"]
    assert substitute([], by_name) == []


def test_a_pod_runs_in_its_own_network_on_its_node():
    place = find_place("pod-a", TOPOLOGY, PODS)
    assert place.network == Path("/run/netns/pod-a")
    assert place.mount == find_place("node1", TOPOLOGY, PODS).mount


def test_the_router_and_etcd_are_places_too():
    assert find_place("router", TOPOLOGY, PODS).network == Path("/run/netns/router")
    assert find_place("etcd", TOPOLOGY, PODS).mount is None


def test_the_only_member_of_etcd_is_called_as_its_place_and_each_of_several_has_that_place():
    assert [member.name for member in TOPOLOGY.etcd] == ["etcd"]
    three = parse_topology(load_topology(default_topology()) | {"etcd": {"members": 3}})
    assert [member.name for member in three.etcd] == ["etcd1", "etcd2", "etcd3"]
    assert find_place("etcd2", three, PODS) == find_place("etcd", three, PODS)


def test_an_unknown_name_is_told_with_those_that_there_are():
    with pytest.raises(
        UsageError, match="'pod-x' is not in this lab; there are router, etcd, node1, node2, node3, pod-a"
    ):
        find_place("pod-x", TOPOLOGY, PODS)


def test_end_points_of_the_matrix():
    assert [(end.name, end.address) for end in pod_end_points(PODS)] == [("pod-a", "10.244.3.2")]
    assert [end.address for end in node_end_points(TOPOLOGY)] == ["172.20.1.11", "172.20.1.12", "172.20.2.11"]
