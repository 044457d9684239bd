"""Who hears of a new container's addresses, and when; what others hear is read off the wire of another container."""

import json
import socket
from ipaddress import ip_address

import pytest
from pyroute2 import IPRoute

from tests.waiting import SECONDS, wait_until

pytestmark = pytest.mark.kernel

ETH_P_ALL = 3
BRIDGE = "cni0"
OLD_MAC = "02:00:00:00:00:99"
NEXT = ("10.5.2.3", "fd42:0:0:1::3")
"""The addresses of the second container on a node."""


def listen():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind(("eth0", ETH_P_ALL))
    wire.settimeout(SECONDS)
    return wire


def announced_by(frame):
    """The address and MAC that a gratuitous ARP or an unsolicited neighbour advertisement announces, None for others.

    RFC 826, RFC 5227 (3); RFC 4861 (4.4).
    """
    kind = frame[12:14]
    if kind == b"\x08\x06" and frame[28:32] == frame[38:42]:
        return str(ip_address(frame[28:32])), frame[22:28].hex(":")
    if kind == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136 and frame[38] == 0xFF:
        return str(ip_address(frame[62:78])), frame[80:86].hex(":")
    return None


def hear(wire, *wanted):
    """Read until all that is wanted has been announced; a time-out ends it."""
    missing = set(wanted)
    while missing:
        missing.discard(announced_by(wire.recv(2048)))


def neighbours(device):
    with IPRoute() as reader:
        index = reader.link_lookup(ifname=device)[0]
        entries = [entry for entry in reader.get_neighbours() if entry["ifindex"] == index]
        found = {entry.get_attr("NDA_DST"): entry.get_attr("NDA_LLADDR") for entry in entries}
        return {address: found.get(address) for address in NEXT}


def remember(device):
    """Take the next container's addresses for those of an earlier holder."""
    with IPRoute() as writer:
        index = writer.link_lookup(ifname=device)[0]
        for address in NEXT:
            family = {4: socket.AF_INET, 6: socket.AF_INET6}[ip_address(address).version]
            writer.neigh("add", family=family, ifindex=index, dst=address, lladdr=OLD_MAC, state="reachable")


@pytest.fixture
def both(node):
    """A node of both families with one container, as (node, container)."""
    node.write_env("10.5.0.0/16", "10.5.2.1/24", "fd42::/48", "fd42:0:0:1::1/64")
    pod = node.make_pod()
    node.call("ADD", "c1", pod.path)
    return node, pod


def add_next(node):
    """Add a second container and return its MAC."""
    result = node.call("ADD", "c2", node.make_pod().path)
    assert [entry["address"].partition("/")[0] for entry in result["ips"]] == list(NEXT)
    return result["interfaces"][-1]["mac"]


def test_other_containers_hear_of_a_new_one(both):
    node, pod = both
    with pod.run(listen) as wire:
        mac = add_next(node)
        hear(wire, *((address, mac) for address in NEXT))


def test_whoever_remembers_an_earlier_holder_of_the_addresses_learns_of_the_new_one(both):
    node, pod = both
    node.host.run(remember, BRIDGE)
    pod.run(remember, "eth0")
    mac = add_next(node)
    wanted = dict.fromkeys(NEXT, mac)
    assert node.host.run(neighbours, BRIDGE) == wanted
    wait_until(lambda: pod.run(neighbours, "eth0") == wanted)


def test_a_daemon_that_ends_announces_what_is_left(ringing_node):
    node, pod = ringing_node, ringing_node.make_pod()
    node.call("ADD", "c1", pod.path)
    with pod.run(listen) as wire:
        result = node.call("ADD", "c2", node.make_pod().path)
        node.stop_daemon()
        hear(wire, (NEXT[0], result["interfaces"][-1]["mac"]))


def test_a_container_that_goes_at_once_leaves_nothing_to_announce(ringing_node):
    node, pod = ringing_node, ringing_node.make_pod()
    config = json.dumps(node.config()).encode()
    variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}
    for verb in ("ADD", "DEL") * 5:
        assert node.execute(verb, config, **variables)[0] == 0
    node.settle()
    node.stop_daemon()
    assert node.held() == []
    assert "not announced" not in node.log.read_text()


def test_the_end_on_the_host_has_no_address(node):
    node.call("ADD", "c1", node.make_pod().path)

    def addresses():
        with IPRoute() as reader:
            ports = {link["index"] for link in reader.get_links() if link.get_attr("IFLA_IFNAME").startswith("veth")}
            assert len(ports) == 1
            return [entry.get_attr("IFA_ADDRESS") for entry in reader.get_addr() if entry["index"] in ports]

    assert node.host.run(addresses) == []
