"""A node with a pod that somebody on the underlay attacks, through its tunnel port, with any packet at all."""

import json
import socket

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.test_daemon import PREFIX, vtep_mac
from tests.test_daemon_rules import make_pod
from tests.underlay_wire import vxlan

MEMBER, STRANGER = "172.30.0.77", "172.30.0.66"
MEMBERS_POD, MEMBERS_SUBNET = "10.5.250.9", "10.5.250.0-24"
VALUE = (
    f'{{"PublicIP":"{MEMBER}","PublicIPv6":null,"BackendType":"vxlan",'
    '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
)
UDP_VALUE = f'{{"PublicIP":"{MEMBER}","PublicIPv6":null}}'
PORT = 7000


class Attacked:
    """A node with a pod, a member that exists only by its lease, and a place on the underlay to send as anybody."""

    def __init__(self, cluster, make_namespace, *words, nftables=False, backend="vxlan"):
        config = {"Network": "10.5.0.0/16", "EnableNFTables": nftables, "Backend": {"Type": backend}}
        cluster.set_config(json.dumps(config))
        self.cluster, self.node = cluster, cluster.add_node()
        cluster.ctl("put", f"{PREFIX}/subnets/{MEMBERS_SUBNET}", VALUE if backend == "vxlan" else UDP_VALUE)
        self.words = words
        self.daemon = self.start()
        subnet = self.daemon.subnet_env["FLANNEL_SUBNET"]
        self.pod = make_pod(self.node, make_namespace(), subnet)
        self.pod_address = f"{subnet.rpartition('.')[0]}.10"
        self.listening = self.pod.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self.listening.bind(("", PORT))
        self.listening.settimeout(10)
        self.out = cluster.namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
        self.out.bind(("br0", 0))
        self.node_mac = self.node.link("eth0").get_attr("IFLA_ADDRESS")

    def start(self):
        self.daemon = self.node.start(*self.words).is_ready()
        return self.daemon

    def close(self):
        self.out.close()
        self.listening.close()

    def send(self, outer, inner, text, **keys):
        """Send a packet of the network to the pod."""
        keys.setdefault("mac", vtep_mac(self.node))
        carried = IP(src=inner, dst=self.pod_address) / UDP(sport=1, dport=PORT) / Raw(text)
        self.throw(IP(src=outer, dst=self.node.address) / vxlan(carried, **keys))

    def throw(self, packet):
        """Send any packet to the node, as from anybody on the underlay."""
        self.out.send(bytes(Ether(src="02:00:00:00:00:66", dst=self.node_mac) / packet))

    def came_before(self, text):
        """What reached the pod before this, which the member sends."""
        self.send(MEMBER, MEMBERS_POD, text)
        return list(iter(lambda: self.listening.recv(100), text))

    @property
    def guard(self):
        path = self.daemon.subnet_file.with_suffix(".sock")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
            asking.sendall(b"status\n")
            return json.loads(b"".join(iter(lambda: asking.recv(65536), b"")))["guard"]


@pytest.fixture
def attack(cluster, make_namespace):
    made = []

    def make(*words, **options):
        made.append(Attacked(cluster, make_namespace, *words, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
