"""antiSpoof and macspoofchk: what a pod sends with another's MAC or address arrives nowhere."""

import contextlib
import errno
import socket
import struct

import pytest
from pyroute2 import IPRoute

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import port_guard

pytestmark = pytest.mark.kernel

GUARDED = {"hairpinMode": True, "isDefaultGateway": True, "antiSpoof": True}
MAC_ONLY = {"hairpinMode": True, "isDefaultGateway": True, "macspoofchk": True}
ETH_P_ALL = 3


@pytest.fixture(autouse=True)
def _has_nftables(make_namespace):
    try:
        make_namespace().run(port_guard.ensure_guard, "lo", bytes(6), None)
    except KernelError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT}:
            raise
        pytest.skip("this kernel has no nftables for network devices: modprobe nf_tables")


@contextlib.contextmanager
def listening(pod, address):
    def listen():
        found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        found.bind((address, 9999))
        found.settimeout(20)
        return found

    with pod.run(listen) as found:
        yield found


def send(source, destination, text):
    with socket.socket(socket.AF_INET6 if ":" in destination else socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.bind((source, 0))
        sending.sendto(text, (destination, 9999))


def add_address(address, length):
    with IPRoute() as writer:
        index = writer.link_lookup(ifname="eth0")[0]
        flags = {"flags": 0x02} if ":" in address else {}
        writer.addr("add", index=index, address=address, prefixlen=length, **flags)


def set_mac(mac):
    with IPRoute() as writer:
        writer.link("set", index=writer.link_lookup(ifname="eth0")[0], address=mac)


def read_mac():
    with IPRoute() as reader:
        return reader.link("get", ifname="eth0")[0].get_attr("IFLA_ADDRESS")


@pytest.fixture
def pods(node):
    node.write_env("10.5.0.0/16", "10.5.2.1/24", "fd42::/48", "fd42:0:0:1::1/64", mtu=1430)
    made = [node.make_pod(), node.make_pod()]
    node.call("ADD", "c0", made[0].path)
    return node, *made


OWN = {4: ("10.5.2.3", "10.5.2.2"), 6: ("fd42:0:0:1::3", "fd42:0:0:1::2")}
OTHERS = {4: ("10.5.2.99", 24), 6: ("fd42:0:0:1::99", 64)}


@pytest.mark.parametrize("family", [4, 6])
def test_anothers_address_arrives_nowhere(pods, family):
    node, receiver, sender = pods
    node.call("ADD", "c1", sender.path, node.config(delegate=GUARDED))
    own, destination = OWN[family]
    foreign = OTHERS[family]
    sender.run(add_address, *foreign)
    with listening(receiver, destination) as found:
        sender.run(send, own, destination, b"first")
        assert found.recvfrom(9)[0] == b"first"
        sender.run(send, foreign[0], destination, b"spoofed")
        sender.run(send, own, destination, b"last")
        assert found.recvfrom(9)[0] == b"last"


@pytest.mark.parametrize("delegate", [GUARDED, MAC_ONLY], ids=["antiSpoof", "macspoofchk"])
def test_anothers_mac_arrives_nowhere(pods, delegate):
    node, receiver, sender = pods
    node.call("ADD", "c1", sender.path, node.config(delegate=delegate))
    own, destination = OWN[4]
    mac = sender.run(read_mac)
    with listening(receiver, destination) as found:
        sender.run(send, own, destination, b"first")
        assert found.recvfrom(9)[0] == b"first"
        sender.run(set_mac, "02:00:00:00:00:99")
        sender.run(send, own, destination, b"spoofed")
        sender.run(set_mac, mac)
        sender.run(send, own, destination, b"last")
        assert found.recvfrom(9)[0] == b"last"


def test_macspoofchk_leaves_addresses_alone(pods):
    node, receiver, sender = pods
    node.call("ADD", "c1", sender.path, node.config(delegate=MAC_ONLY))
    sender.run(add_address, *OTHERS[4])
    with listening(receiver, OWN[4][1]) as found:
        sender.run(send, OTHERS[4][0], OWN[4][1], b"foreign")
        assert found.recvfrom(9)[0] == b"foreign"


def frames(mac):
    """What a pod must not send, by name; each as a whole frame to everybody."""
    source = bytes.fromhex(mac.replace(":", ""))
    head = b"\xff" * 6 + source
    sender = source + socket.inet_aton("10.5.2.77")
    arp = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + sender + b"\xff" * 6 + socket.inet_aton("10.5.2.2")
    ip6 = (
        struct.pack(">IHBB", 6 << 28, 16, 58, 255) + bytes.fromhex("fe80" + "00" * 13 + "07") + b"\xff\x02" + bytes(13)
    )
    advertisement = ip6 + b"\x01" + bytes.fromhex("86000000400000ff0000000000000000")
    return {
        "ARP for another": head + b"\x08\x06" + arp,
        "a router advertisement": head + b"\x86\xdd" + advertisement,
        "neither IP nor ARP": head + b"\x88\xb5" + bytes(50),
        "a VLAN": head + b"\x81\x00\x00\x05\x08\x00" + bytes(50),
    }


def test_other_frames_arrive_nowhere(pods):
    node, receiver, sender = pods
    node.call("ADD", "c1", sender.path, node.config(delegate=GUARDED))
    forbidden = frames(sender.run(read_mac))

    def open_raw():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        raw.bind(("eth0", ETH_P_ALL))
        raw.settimeout(20)
        return raw

    with receiver.run(open_raw) as hearing, sender.run(open_raw) as saying:
        for frame in forbidden.values():
            saying.send(frame)
        sender.run(send, *OWN[4], b"the last thing that is said")
        heard = []
        while not heard or b"the last thing that is said" not in heard[-1]:
            heard.append(hearing.recv(2000))
    source = bytes.fromhex(sender.run(read_mac).replace(":", ""))
    assert [frame[12:14] for frame in heard if frame[6:12] == source][-1] == b"\x08\x00"
    assert not [frame for frame in heard if frame in forbidden.values()]


def test_check_misses_a_guard_that_is_gone(pods):
    node, _, sender = pods
    config = node.config(delegate=GUARDED)
    result = node.call("ADD", "c1", sender.path, config)
    config["prevResult"] = result
    node.call("CHECK", "c1", sender.path, config)
    node.host.run(port_guard.drop_guard, result["interfaces"][1]["name"])
    assert "has lost its guard" in node.refused("CHECK", "c1", sender.path, config)["msg"]


def test_guards_go_with_their_devices(pods):
    node, receiver, sender = pods
    node.call("DEL", "c0", receiver.path)
    near = [
        node.call("ADD", f"c{number}", pod.path, node.config(delegate=GUARDED))["interfaces"][1]["name"]
        for number, pod in enumerate((receiver, sender))
    ]
    assert node.host.run(port_guard.read_guarded) == set(near)
    node.call("DEL", "c0", receiver.path)
    assert node.host.run(port_guard.read_guarded) == {near[1]}
    node.call("DEL", "c1", sender.path)
    assert node.host.run(port_guard.read_guarded) == set()
    node.host.run(port_guard.drop_guard, near[0])
