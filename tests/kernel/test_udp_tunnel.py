"""The data path of the udp backend between a real TUN device and a real socket; the far side stands for all peers."""

import errno
import fcntl
import os
import socket
import threading
import time
from functools import partial

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from flanneld_py.core.ip_packet import checksum
from flanneld_py.core.peer_traffic import PeerTraffic
from flanneld_py.core.prefix import host_prefix, parse_interface
from flanneld_py.kernel.device import Device, ensure_device
from flanneld_py.kernel.link import delete_link
from flanneld_py.kernel.tun import KIND, attach_tun, make_tun, tun_options
from flanneld_py.kernel.udp_sockets import open_icmp, open_udp
from flanneld_py.kernel.udp_tunnel import UdpTunnel
from flanneld_py.kernel.udp_ways import Ways
from tests.agent.on_demand_node import FAR_ADDRESS, PEERS, NodeHost
from tests.host import ADDRESS, number, parse_prefix
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="no /dev/net/tun: modprobe tun"),
]

PORT = 8285
OWN, PEER, SECOND = "10.5.1.0", "172.30.1.2", "172.30.1.3"
MTU = 1472
PATIENCE = 5.0


class Node:
    """A node with a running data path; `far` gets what it sends to any peer."""

    def __init__(self, namespace, far_namespace):
        self.host = NodeHost(namespace, far_namespace)
        self.far_namespace = far_namespace
        self.ways = Ways(PORT)
        self.ensure()
        self.bound = namespace.run(open_udp, ADDRESS, PORT)
        self.icmp = namespace.run(open_icmp, OWN)
        self.tunnel = UdpTunnel("flannel0", self.bound, self.icmp, self.ways, MTU)
        namespace.run(self.tunnel.start)
        self.far = far_namespace.run(self._open_far)
        wait_until(self._is_attached)

    @staticmethod
    def _open_far():
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        opened.settimeout(PATIENCE)
        opened.bind(("", PORT))
        return opened

    def _is_attached(self):
        # A TUN device has a carrier while somebody is attached to it.
        return self.host.link("flannel0").get_attr("IFLA_CARRIER") == 1

    def ensure(self):
        """Have the device, and the network's route over it."""
        address = host_prefix(parse_interface(f"{OWN}/24")[0])
        make = partial(self.host.namespace.run, make_tun, "flannel0")
        device = Device("flannel0", KIND, b"", MTU, (address,), tun_options(), (), make)
        made = ensure_device(self.host.sock, device)
        if made.created and hasattr(self, "tunnel"):
            self.tunnel.look_again()
        self.host.do(lambda ipr: ipr.route("replace", dst="10.5.0.0/16", oif=made.ifindex))
        return made

    def open_inner(self, port=0):
        def open_socket():
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.settimeout(PATIENCE)
            opened.bind((OWN, port))
            return opened

        return self.host.namespace.run(open_socket)

    def receive(self):
        """The next packet that comes to a peer, and from where."""
        while True:
            data, sender = self.far.recvfrom(1 << 16)
            # The kernel's own chatter on a new device aside.
            if IP(data).dst.startswith("10.5."):
                return IP(data), sender

    def carries(self):
        """Whether packets go out and come in."""
        with self.open_inner(6000) as inner:
            inner.sendto(b"out", ("10.5.2.9", 6000))
            assert bytes(self.receive()[0][UDP].payload) == b"out"
            packet = IP(src="10.5.2.9", dst=OWN) / UDP(sport=5000, dport=6000) / Raw(b"in")
            self.far.sendto(bytes(packet), (ADDRESS, PORT))
            return inner.recv(100) == b"in"

    def close(self):
        self.tunnel.stop()
        self.far.close()
        self.host.close()


@pytest.fixture
def node(make_namespace):
    made = Node(make_namespace(), make_namespace())
    made.ways.put(parse_prefix("10.5.2.0/24"), number(PEER))
    yield made
    made.close()


def refusal(inner):
    """The errno that a socket is told of."""
    try:
        inner.recv(100)
    except TimeoutError:
        return None
    except OSError as error:
        return error.errno
    return 0


def is_sound(packet):
    return checksum(bytes(packet)[:20]) in {0, 0xFFFF}


def test_device_lasts_and_is_found_as_it_is(node):
    told = node.host.link("flannel0")
    assert (told.get_attr("IFLA_MTU"), told.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND")) == (MTU, "tun")
    assert node.host.addresses(told["index"]) == {f"{OWN}/32"}
    again = node.ensure()
    assert (again.created, again.mended) == (False, ())
    with pytest.raises(OSError, match="busy"):
        node.host.namespace.run(attach_tun, "flannel0")


def test_packet_goes_out_bare_in_one_datagram(node):
    with node.open_inner(5000) as inner:
        inner.sendto(b"hello", ("10.5.2.9", 6000))
        packet, sender = node.receive()
    assert sender == (ADDRESS, PORT)
    assert (packet.src, packet.dst, packet.ttl, bytes(packet[UDP].payload)) == (OWN, "10.5.2.9", 63, b"hello")
    assert is_sound(packet)


def test_bursts_of_any_sizes_arrive_whole_and_in_order(node):
    node.ways.put(parse_prefix("10.5.3.0/24"), number(SECOND))
    sizes = [1400] * 70 + [1, 1400, 1400, 700, 1400, 1444, 1] + [64] * 70
    with node.open_inner() as inner:
        for index, size in enumerate(sizes):
            inner.sendto(bytes([index]) * size, (f"10.5.{2 + index % 5 // 4}.9", 6000))
        found = {"10.5.2.9": [], "10.5.3.9": []}
        for _ in sizes:
            packet, _ = node.receive()
            assert is_sound(packet)
            found[packet.dst].append(bytes(packet[UDP].payload))
    for place, got in enumerate(found.values()):
        sent = [bytes([index]) * size for index, size in enumerate(sizes) if index % 5 // 4 == place]
        assert got == sent


def test_packet_comes_in(node):
    with node.open_inner(6000) as inner:
        packet = IP(src="10.5.2.9", dst=OWN, ttl=33) / UDP(sport=5000, dport=6000) / Raw(b"hi")
        inner.setsockopt(socket.IPPROTO_IP, 12, 1)
        node.far.sendto(bytes(packet), (ADDRESS, PORT))
        data, ancillary, _, sender = inner.recvmsg(100, 100)
    assert (data, sender, ancillary[0][2][0]) == (b"hi", ("10.5.2.9", 5000), 32)


def test_burst_comes_in(node):
    packets = [
        bytes(IP(src="10.5.2.9", dst=OWN) / UDP(sport=5000, dport=6000) / Raw(bytes([index]) * 900))
        for index in range(40)
    ]
    with node.open_inner(6000) as inner:
        # In one call: so they arrive as one as well where the path allows it.
        segment = (socket.SOL_UDP, 103, len(packets[0]).to_bytes(2, "little"))
        node.far.sendmsg((b"".join(packets),), (segment,), 0, (ADDRESS, PORT))
        assert [inner.recv(1000)[0] for _ in packets] == list(range(40))


def test_what_goes_and_comes_is_counted_by_node(node):
    node.ways.put(parse_prefix("10.5.3.0/24"), number(SECOND))
    packet = bytes(IP(src="10.5.2.9", dst=OWN) / UDP(sport=5000, dport=6000) / Raw(b"x" * 900))
    peer = node.far_namespace.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind((PEER, 0))
    with node.open_inner(6000) as inner, peer:
        segment = (socket.SOL_UDP, 103, len(packet).to_bytes(2, "little"))
        peer.sendmsg((packet * 7,), (segment,), 0, (ADDRESS, PORT))
        # What comes from nobody's address is carried, for to refuse it is the guard's, and counted as nobody's.
        node.far.sendto(packet, (ADDRESS, PORT))
        for _ in range(8):
            assert len(inner.recv(1000)) == 900
        for place in ("10.5.2.9", "10.5.3.9", "10.5.3.9"):
            inner.sendto(b"y" * 100, (place, 6000))
        for _ in range(3):
            node.receive()
    wait_until(lambda: node.ways.read_traffic(number(SECOND)).sent_packets == 2)
    assert node.ways.read_traffic(number(PEER)) == PeerTraffic(7 * len(packet), 7, 128, 1)
    assert node.ways.read_traffic(number(SECOND)) == PeerTraffic(0, 0, 256, 2)
    assert node.ways.read_traffic(number(FAR_ADDRESS)) == PeerTraffic()


def test_what_is_no_ipv4_packet_is_passed_over(node):
    with node.open_inner(6000) as inner:
        good = bytes(IP(src="10.5.2.9", dst=OWN) / UDP(sport=5000, dport=6000) / Raw(b"good"))
        for junk in (b"", b"x", good[:19], b"\0" * 60, bytes(IPv6(src="fd00::1", dst="fd00::2") / UDP()), b"\x45" * 20):
            node.far.sendto(junk, (ADDRESS, PORT))
        node.far.sendto(good, (ADDRESS, PORT))
        assert inner.recv(100) == b"good"


@pytest.mark.parametrize(
    ("place", "ttl", "number"),
    [("10.5.7.9", 64, errno.ENETUNREACH), ("10.5.2.9", 1, errno.EHOSTUNREACH)],
    ids=["nobody's subnet", "time to live over"],
)
def test_sender_is_told_why_a_packet_goes_no_further(node, place, ttl, number):
    with node.open_inner() as inner:
        inner.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        inner.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        inner.connect((place, 6000))
        inner.send(b"lost")
        assert refusal(inner) == number


def test_subnet_that_goes_is_unreachable(node):
    with node.open_inner() as inner:
        inner.connect(("10.5.2.9", 6000))
        inner.send(b"there")
        node.receive()
        node.ways.remove(parse_prefix("10.5.2.0/24"))
        inner.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        inner.send(b"gone")
        assert refusal(inner) == errno.ENETUNREACH


def test_longest_subnet_counts(node):
    ways = Ways(PORT)
    ways.put(parse_prefix("10.5.0.0/16"), number(PEER))
    ways.put(parse_prefix("10.5.2.0/24"), number(SECOND))
    inside, outside = socket.inet_aton("10.5.2.1"), socket.inet_aton("10.5.3.1")
    assert (ways.find(inside), ways.find(outside)) == ((SECOND, PORT), (PEER, PORT))
    ways.remove(parse_prefix("10.5.2.0/24"))
    ways.remove(parse_prefix("10.5.2.0/24"))
    assert ways.find(inside) == (PEER, PORT)


def test_what_was_looked_up_is_forgotten_with_each_change(node):
    ways, address = Ways(PORT), socket.inet_aton("10.5.2.1")
    ways.put(parse_prefix("10.5.0.0/16"), number(PEER))
    ways.find(address)
    assert address in ways.cache
    ways.put(parse_prefix("10.5.2.0/24"), number(SECOND))
    assert address not in ways.cache
    ways.find(address)
    ways.remove(parse_prefix("10.5.2.0/24"))
    assert address not in ways.cache


def test_packets_that_wait_together_go_out_one_by_one(node):
    """All in one burst, which only a pipe of packets (pipe(2), O_DIRECT) has ready for sure."""
    node.ways.put(parse_prefix("10.5.3.0/24"), number(SECOND))
    sizes = [900] * 70 + [100, 900, 500, 500, 900, 900, 20, 900, MTU - 28, 40] + [30] * 10
    packets = [
        bytes(IP(src=OWN, dst=f"10.5.{2 + index // 75}.9", id=index) / UDP(dport=6000) / Raw(bytes([index]) * size))
        for index, size in enumerate(sizes)
    ]
    read_end, write_end = os.pipe2(os.O_DIRECT | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 20)
    for packet in packets:
        os.write(write_end, packet)
    tunnel = UdpTunnel("none", node.bound, node.icmp, node.ways, MTU)
    os.dup2(read_end, tunnel._tun)
    # It ends with the process, as in the daemon.
    threading.Thread(target=tunnel._send_all, daemon=True).start()
    for packet in packets:
        got, _ = node.receive()
        assert bytes(got)[20:] == packet[20:]
        assert got.ttl == 63


def test_narrow_path_is_told_to_who_forbids_fragments_and_crossed_by_the_others(node):
    node.host.do(lambda ipr: ipr.route("replace", dst=PEERS, gateway=FAR_ADDRESS, metrics={"mtu": 1300}))
    with node.open_inner() as inner:
        inner.connect(("10.5.2.9", 6000))
        inner.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, DONT
        inner.send(b"x" * 1400)
        packet, _ = node.receive()
        assert len(packet[UDP].payload) == 1400
        inner.setsockopt(socket.IPPROTO_IP, 10, 2)  # DO
        inner.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        inner.send(b"x" * 1400)
        assert refusal(inner) == errno.EMSGSIZE
        wait_until(lambda: inner.getsockopt(socket.IPPROTO_IP, 14) == 1272)  # IP_MTU
        inner.send(b"y" * 1240)
        packet, _ = node.receive()
        assert len(packet) == 1268


def test_device_that_was_deleted_is_taken_up_again(node):
    delete_link(node.host.sock, node.host.index("flannel0"))
    assert node.ensure().created
    wait_until(node._is_attached)
    assert node.carries()


def test_device_that_got_another_name_gets_its_own_back(node):
    index = node.host.index("flannel0")
    node.host.do(lambda ipr: ipr.link("set", index=index, state="down"))
    node.host.do(lambda ipr: ipr.link("set", index=index, ifname="stolen0", state="up"))
    made = node.ensure()
    assert (made.ifindex, made.created, made.mended[0]) == (index, False, "name")
    assert node.carries()


def test_device_that_went_elsewhere_is_left_for_the_new_one(node, make_namespace):
    elsewhere = make_namespace()
    index = node.host.index("flannel0")
    node.host.do(lambda ipr: ipr.link("set", index=index, net_ns_fd=elsewhere.path))
    assert node.ensure().created
    wait_until(node._is_attached)
    assert node.carries()


def test_after_a_tunnel_has_stopped_another_takes_its_place(node):
    node.tunnel.stop()
    assert not node._is_attached()
    node.bound = node.host.namespace.run(open_udp, ADDRESS, PORT)
    node.tunnel = UdpTunnel("flannel0", node.bound, node.host.namespace.run(open_icmp, OWN), node.ways, MTU)
    node.host.namespace.run(node.tunnel.start)
    wait_until(node._is_attached)
    assert node.carries()


def test_peer_that_is_not_listening_stops_nothing(node):
    node.far.close()
    with node.open_inner(6000) as inner:
        for _ in range(5):
            inner.sendto(b"lost", ("10.5.2.9", 6000))
        node.far = node.far_namespace.run(node._open_far)
        deadline = time.monotonic() + PATIENCE
        node.far.settimeout(0.05)
        while True:
            inner.sendto(b"found", ("10.5.2.9", 6000))
            try:
                assert bytes(node.receive()[0][UDP].payload) in {b"lost", b"found"}
                break
            except TimeoutError:
                assert time.monotonic() < deadline
