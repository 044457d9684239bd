import pytest

from netns_lab.errors import TopologyError
from netns_lab.topology import IPV4, IPV6, default_topology, load_topology, parse_topology
from netns_lab.variation import vary

VALUES = load_topology(default_topology())


def changed(backend=None, families=None, *, whole=True):
    return parse_topology(vary(VALUES, backend, families, whole=whole))


def test_nothing_changes_unless_it_is_asked_for():
    assert vary(VALUES, None, None, whole=True) == VALUES


def test_ipv6_only_reaches_from_the_underlay_to_etcd():
    topology = changed(families=(IPV6,))
    assert topology.network["EnableIPv4"] is False
    assert topology.network["EnableIPv6"] is True
    assert topology.network["IPv6Network"] == "fd10:244::/48"
    assert [str(node.address) for node in topology.nodes] == [
        "fd20:0:0:1::b/64",
        "fd20:0:0:1::c/64",
        "fd20:0:0:2::b/64",
    ]
    assert [str(gateway) for gateway in topology.underlays[1].gateways] == ["fd20:0:0:2::1/64"]
    assert topology.etcd[0].client_url == "http://[fd20::b]:2379"


def test_dual_stack_has_both_and_a_name_stands_for_ipv4():
    topology = changed(families=(IPV4, IPV6))
    assert [str(address) for address in topology.nodes[0].addresses] == ["172.20.1.11/24", "fd20:0:0:1::b/64"]
    assert str(topology.nodes[0].address) == "172.20.1.11/24"
    assert topology.etcd[0].client_url == "http://192.0.2.11:2379"


def test_a_network_of_ones_own_is_kept():
    values = VALUES | {"network": {"ipv6network": "fd99::/48", "enableipv6": False}}
    assert vary(values, None, (IPV6,), whole=True)["network"] == {
        "ipv6network": "fd99::/48",
        "EnableIPv4": False,
        "EnableIPv6": True,
    }


def test_another_backend_brings_no_keys_of_the_former():
    assert changed("ipip").network["Backend"] == {"Type": "ipip"}


def test_nodes_move_together_for_a_backend_without_a_tunnel():
    assert {node.underlay.name for node in changed("host-gw").nodes} == {"left"}
    assert {node.underlay.name for node in changed("host-gw", whole=False).nodes} == {"left", "right"}


def test_what_is_no_table_is_named():
    with pytest.raises(TopologyError, match="network: must be a table, not 7"):
        vary({"network": 7}, "vxlan", None, whole=True)
