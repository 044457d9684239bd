import pytest
from pyroute2 import IPRoute

from flanneld_py.kernel import bridge, link, veth
from flanneld_py.kernel.netlink_socket import NetlinkSocket

pytestmark = pytest.mark.kernel

MAC = bytes.fromhex("02000a050201")
LOW_MAC = bytes.fromhex("020000000001")


def read_link(name):
    with IPRoute() as reader:
        return reader.link("get", ifname=name)[0]


def in_namespace(namespace, work):
    def run():
        with NetlinkSocket() as sock:
            return work(sock)

    return namespace.run(run)


def add_port(namespace, make_namespace, **options):
    pod = make_namespace()

    def work(sock):
        master = link.read_link(sock, "br0").ifindex
        create = veth.encode_create(
            veth.VethEnd("port0", LOW_MAC), veth.VethEnd("eth0", MAC), mtu=0, far_namespace=pod.fd
        )
        return sock.execute_batch((create, *bridge.encode_port("port0", master, **options)))

    assert in_namespace(namespace, work) == {}
    return pod


def test_a_bridge_is_created_once_and_keeps_its_mac(namespace, make_namespace):
    for mac in (MAC, LOW_MAC):
        in_namespace(namespace, lambda sock, mac=mac: bridge.create_bridge(sock, "br0", mac, 1400))
    found = namespace.run(read_link, "br0")
    assert found.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    assert found.get_attr("IFLA_MTU") == 1400
    # A bridge that nobody gave a MAC takes that of a port if it is lower.
    add_port(namespace, make_namespace, hairpin=False, isolated=False)
    assert namespace.run(read_link, "br0").get_attr("IFLA_ADDRESS") == MAC.hex(":")


@pytest.mark.parametrize(("hairpin", "isolated"), [(False, False), (True, False), (False, True), (True, True)])
def test_port_options(namespace, make_namespace, hairpin, isolated):
    in_namespace(namespace, lambda sock: bridge.create_bridge(sock, "br0", MAC, 0))
    add_port(namespace, make_namespace, hairpin=hairpin, isolated=isolated)
    data = namespace.run(read_link, "port0").get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    assert data.get_attr("IFLA_BRPORT_MODE") == hairpin
    assert data.get_attr("IFLA_BRPORT_ISOLATED") == isolated
    port = in_namespace(namespace, lambda sock: bridge.read_port(sock, "port0"))
    assert (port.is_hairpin, port.is_isolated) == (hairpin, isolated)
    assert port.link.master == namespace.run(read_link, "br0")["index"]


def test_a_port_forwards_once_both_ends_are_up(namespace, make_namespace):
    in_namespace(namespace, lambda sock: bridge.create_bridge(sock, "br0", MAC, 0))
    pod = add_port(namespace, make_namespace, hairpin=False, isolated=False)

    def bring_up(name):
        return lambda sock: sock.execute(
            link.encode_set(link.read_link(sock, name).ifindex, flags=link.IFF_UP), f"bring {name} up"
        )

    in_namespace(namespace, bring_up("br0"))
    # Linux before 6.8 takes a new device for working until it has looked. Both loops end by the test's time limit.
    while in_namespace(namespace, lambda sock: bridge.read_port(sock, "port0")).is_forwarding:
        pass
    in_namespace(pod, bring_up("eth0"))
    while not in_namespace(namespace, lambda sock: bridge.read_port(sock, "port0")).is_forwarding:
        pass


def test_what_is_no_port_reads_as_none(namespace):
    assert in_namespace(namespace, lambda sock: bridge.read_port(sock, "lo")) is None
    assert in_namespace(namespace, lambda sock: bridge.read_port(sock, "absent")) is None
