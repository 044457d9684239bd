"""Two hosts on one wire: a node that listens, and somebody who can send it any packet at all."""

import socket
from pathlib import Path

from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from tests.waiting import wait_until

NODE = {4: "172.30.0.11", 6: "fd30::11"}
FAR = {4: "172.30.0.99", 6: "fd30::99"}
_LAYERS = {4: IP, 6: IPv6}


def ip(family, src, dst, **fields):
    return _LAYERS[family](src=src, dst=dst, **fields)


def vxlan(inner, vni=1, mac="02:00:00:00:00:01"):
    """What a VTEP sends behind the outer IP header."""
    frame = inner if inner.haslayer(Ether) else Ether(src="02:00:00:00:00:77", dst=mac) / inner
    return UDP(sport=40000, dport=8472) / VXLAN(vni=vni, flags="Instance") / frame


class Wire:
    def __init__(self, make_namespace):
        self.node, self.far = make_namespace(), make_namespace()
        far_path = self.far.path
        for place in (self.node, self.far):
            with place.entered():
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0", encoding="ascii")

        def make_node():
            with IPRoute() as ipr:
                ipr.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": far_path})
                return self._up(ipr, NODE)

        def make_far():
            with IPRoute() as ipr:
                return self._up(ipr, FAR)

        self.node_mac, self.far_mac = self.node.run(make_node), self.far.run(make_far)
        wait_until(lambda: self.node.run(self._is_up) and self.far.run(self._is_up))
        self._out = self.far.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
        self._out.bind(("eth0", 0))
        self.opened = [self._out]
        """What is closed with it."""

    @staticmethod
    def _up(ipr, addresses):
        index = ipr.link_lookup(ifname="eth0")[0]
        for family, length in ((4, 16), (6, 64)):
            ipr.addr("add", index=index, address=addresses[family], prefixlen=length, flags=0x02)
        ipr.link("set", index=index, state="up")
        return ipr.link("get", index=index)[0].get_attr("IFLA_ADDRESS")

    @staticmethod
    def _is_up():
        with IPRoute() as ipr:
            up = ipr.link("get", ifname="eth0")[0].get_attr("IFLA_OPERSTATE") == "UP"
            local = {route.get_attr("RTA_DST") for route in ipr.get_routes(family=10, table=255)}
            return up and bool(local & {NODE[6], FAR[6]})

    def send(self, packet):
        self._out.send(bytes(Ether(src=self.far_mac, dst=self.node_mac) / packet))

    def listen(self, family, port):
        """A socket on the node's port: what is not dropped before comes out of it."""
        made = self.node.run(socket.socket, socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind(("", port))
        made.settimeout(10)
        return made

    def close(self):
        for one in self.opened:
            one.close()
