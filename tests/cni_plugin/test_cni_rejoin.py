"""Somebody deletes the bridge: the next ADD makes it anew, and puts the containers that were on it on it again."""

import pytest
from pyroute2 import IPRoute

pytestmark = pytest.mark.kernel

BRIDGE = "cni0"


@pytest.fixture
def both(node):
    """A node of both families with one container, as (node, container, result)."""
    node.write_env("10.5.0.0/16", "10.5.2.1/24", "fd42::/48", "fd42:0:0:1::1/64")
    pod = node.make_pod()
    return node, pod, node.call("ADD", "c1", pod.path)


def delete_bridge():
    with IPRoute() as writer:
        writer.link("del", ifname=BRIDGE)


def read_ends():
    """The master, alias and options of all veth devices here."""
    with IPRoute() as reader:
        bridge = reader.link_lookup(ifname=BRIDGE)[0]
        found = [link for link in reader.get_links() if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"]
    return {
        link.get_attr("IFLA_IFALIAS").split("/")[1]: (
            link.get_attr("IFLA_MASTER") == bridge,
            link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_MODE"),
            link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_ISOLATED"),
        )
        for link in found
    }


def read_mac(device):
    with IPRoute() as reader:
        return reader.link("get", ifname=device)[0].get_attr("IFLA_ADDRESS")


def test_a_container_is_on_the_bridge_again_whose_mac_is_the_same(both):
    node, pod, result = both
    before = node.host.run(read_ends)
    assert before["c1"][0]
    mac = node.host.run(read_mac, BRIDGE)
    node.host.run(delete_bridge)
    node.call("ADD", "c2", node.make_pod().path)
    assert node.host.run(read_ends) == {**before, "c2": before["c1"]}
    assert node.host.run(read_mac, BRIDGE) == mac
    assert node.call("CHECK", "c1", pod.path, node.config(prevResult=result)) is None


def test_the_options_of_ports_are_those_of_the_network(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/24")
    config = node.config(delegate={"hairpinMode": True, "portIsolation": True})
    node.call("ADD", "c1", node.make_pod().path, config)
    node.host.run(delete_bridge)
    node.call("ADD", "c2", node.make_pod().path, config)
    assert node.host.run(read_ends) == dict.fromkeys(("c1", "c2"), (True, 1, 1))


def test_a_container_with_an_address_of_an_earlier_lease_stays_apart(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/24")
    node.call("ADD", "c1", node.make_pod().path)
    node.host.run(delete_bridge)
    node.write_env("10.5.0.0/16", "10.5.3.1/24")
    node.call("ADD", "c2", node.make_pod().path)
    assert {name: is_port for name, (is_port, *_) in node.host.run(read_ends).items()} == {"c1": False, "c2": True}
