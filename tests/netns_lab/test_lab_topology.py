from ipaddress import IPv4Interface, IPv4Network
from itertools import islice

import pytest

from netns_lab.errors import TopologyError, UsageError
from netns_lab.topology import default_topology, load_topology, parse_topology, pod_names

SMALL = """
[underlay]
left = "172.20.1.0/24"
right = "172.20.2.0/24"
[nodes.a]
underlay = "left"
[nodes.b]
underlay = "right"
pods = 2
daemon = ["/bin/other", "-v"]
[nodes.c]
underlay = "left"
pods = 0
[network]
Network = "10.0.0.0/8"
Backend = {Type = "vxlan", Anything = 1}
"""


def test_the_default_topology_has_direct_and_tunnelled_peers():
    topology = parse_topology(load_topology(default_topology()))
    assert [node.underlay.name for node in topology.nodes] == ["left", "left", "right"]
    assert topology.network["Backend"] == {"Type": "vxlan", "DirectRouting": True}
    assert all(node.pods and node.daemon is None for node in topology.nodes)


def test_addresses_follow_the_order_in_the_file():
    topology = parse_topology(load_topology(SMALL))
    assert [node.address for node in topology.nodes] == [
        IPv4Interface("172.20.1.11/24"),
        IPv4Interface("172.20.2.11/24"),
        IPv4Interface("172.20.1.12/24"),
    ]
    assert topology.nodes[0].underlay.gateways == (IPv4Interface("172.20.1.1/24"),)
    assert topology.underlays[1].subnets == (IPv4Network("172.20.2.0/24"),)


def test_pods_are_named_in_order_and_a_node_may_have_its_own_number():
    topology = parse_topology(load_topology(SMALL))
    assert [node.pods for node in topology.nodes] == [("pod-a",), ("pod-b", "pod-c"), ()]


def test_pod_names_do_not_end_at_z():
    assert list(islice(pod_names(), 25, 29)) == ["pod-z", "pod-aa", "pod-ab", "pod-ac"]


def test_the_network_is_handed_on_as_it_stands():
    assert parse_topology(load_topology(SMALL)).network == {
        "Network": "10.0.0.0/8",
        "Backend": {"Type": "vxlan", "Anything": 1},
    }


def test_another_daemon_is_a_list_of_words():
    assert parse_topology(load_topology(SMALL)).nodes[1].daemon == ("/bin/other", "-v")


def test_three_etcd_members_have_an_address_each():
    members = parse_topology(load_topology("etcd = {members = 3}\n" + SMALL)).etcd
    assert [member.client_url for member in members] == [
        "http://192.0.2.11:2379",
        "http://192.0.2.12:2379",
        "http://192.0.2.13:2379",
    ]


def test_an_unknown_node_is_named():
    with pytest.raises(UsageError, match="no node is named z; there are a, b, c"):
        parse_topology(load_topology(SMALL)).find_node("z")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[underlay]", "mtoo = 1500\n[underlay]"), "mtoo: unknown key; there are mtu, pods, "),
        (("[underlay]", "mtu = 12\n[underlay]"), "mtu: must be 576 to 65535, not 12"),
        (("[underlay]", 'mtu = "big"\n[underlay]'), "mtu: must be an integer, not 'big'"),
        (("[underlay]", "mtu = true\n[underlay]"), "mtu: must be an integer, not True"),
        (("[underlay]", "pods = -1\n[underlay]"), "pods: must be 0 or more, not -1"),
        (("[underlay]", "etcd = {members = 2}\n[underlay]"), "etcd.members: must be 1 or 3, not 2"),
        (("[underlay]", "etcd = {member = 3}\n[underlay]"), "etcd.member: unknown key; there are members"),
        (("[underlay]", "etcd = 3\n[underlay]"), "etcd: must be a table, not 3"),
        (('"172.20.1.0/24"', '"172.20.1.1/24"'), "underlay.left: must be an IPv4 subnet such as "),
        (('"172.20.1.0/24"', "1"), "underlay.left: must be a string, not 1"),
        (('"172.20.2.0/24"', '"172.20.0.0/16"'), "underlay.right: 172.20.0.0/16 overlaps left, 172.20.1.0/24"),
        (('"172.20.2.0/24"', '"192.0.2.0/30"'), "underlay.right: 192.0.2.0/30 overlaps etcd-net"),
        (("left =", "etcd ="), "underlay.etcd: is a name that the lab uses itself"),
        (
            ('underlay = "right"', 'underlay = "rihgt"'),
            "nodes.b.underlay: no underlay is named 'rihgt'; there are left, ",
        ),
        (('underlay = "right"', ""), "nodes.b.underlay: is missing; it is a string"),
        (("[nodes.c]", "[nodes.C_]"), "nodes.C_: a name is 1 to 15 of a-z, 0-9 and -, a letter first"),
        (("[nodes.c]", "[nodes.router]"), "nodes.router: is a name that the lab uses itself"),
        (("[nodes.c]", "[nodes.right]"), "nodes.right: is the name of an underlay or a pod of this lab already"),
        (("[nodes.c]", "[nodes.pod-b]"), "nodes.pod-b: is the name of an underlay or a pod of this lab already"),
        (("pods = 2", "pod = 2"), "nodes.b.pod: unknown key; there are underlay, pods, daemon"),
        (('["/bin/other", "-v"]', '"/bin/other"'), "nodes.b.daemon: must be a list of words, not '/bin/other'"),
        (('["/bin/other", "-v"]', "[]"), "nodes.b.daemon: must be a list of words, the command first"),
        (('["/bin/other", "-v"]', "[1]"), "nodes.b.daemon: must be a list of words, the command first"),
        (("[network]", "[netwerk]"), "network: is missing; it is a table"),
        (("[underlay]", "[underlay"), "not TOML: "),
        (('"172.20.2.0/24"', '"172.20.2.0/29"'), "nodes.b.underlay: right (172.20.2.0/29) is too small"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(change, message):
    with pytest.raises(TopologyError) as caught:
        parse_topology(load_topology(SMALL.replace(*change)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_lab_without_nodes_is_refused():
    with pytest.raises(TopologyError, match="nodes: a lab needs at least one node"):
        parse_topology(load_topology('underlay = {a = "10.0.0.0/24"}\nnodes = {}\nnetwork = {}'))
