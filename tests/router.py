"""A node between a pod of its own, a pod elsewhere and a host outside; datagrams tell what each sees of another."""

import socket
from pathlib import Path

from pyroute2 import IPRoute

from flanneld_py.core.prefix import IPV4, IPV6, parse_prefix
from tests.waiting import wait_until

_FAMILIES = {IPV4: socket.AF_INET, IPV6: socket.AF_INET6}
_SO_MARK = 36
PORT = 7000
ARRIVES = 0.5
"""Seconds in which a datagram that passes is there; only what must not pass takes them."""


class Addresses:
    """Who has which address, in one family."""

    def __init__(self, family):
        self.family = family
        four = family == IPV4
        self.network = parse_prefix("10.5.0.0/16" if four else "fd42::/48")
        self.own = parse_prefix("10.5.2.0/24" if four else "fd42:0:0:2::/64")
        self.node, self.outside = ("172.30.0.11", "172.30.0.99") if four else ("fd30::11", "fd30::99")
        self.pod, self.remote = ("10.5.2.10", "10.5.3.10") if four else ("fd42:0:0:2::10", "fd42:0:0:3::10")
        self.bridge, self.tunnel = ("10.5.2.1", "10.5.2.0") if four else ("fd42:0:0:2::1", "fd42:0:0:2::")
        self.length, self.subnet_length, self.full = (16, 24, 32) if four else (64, 64, 128)
        self.group = "224.1.2.3" if four else "ff15::1"


class Router:
    """`host` is the node's namespace, in which the rules are; `places` are those of all, by name."""

    def __init__(self, make_namespace, family=IPV4):
        self.at = at = Addresses(family)
        self.host = make_namespace()
        self.places = {"node": self.host, **{name: make_namespace() for name in ("pod", "remote", "outside")}}
        self._sockets = []
        for place in self.places.values():
            with place.entered():
                # Addresses are in use at once, rather than after a question to everybody.
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0", encoding="ascii")
        self._wire("eth0", "outside", (at.node, at.length), (at.outside, at.length), at.node)
        self._wire("cni0", "pod", (at.bridge, at.subnet_length), (at.pod, at.subnet_length), at.bridge)
        self._wire("tun0", "remote", (at.tunnel, at.full), (at.remote, at.full), None)
        with self.host.entered():
            self._forward()
        # The kernel takes links and addresses into use in its own time.
        for sender, receiver in (("pod", "outside"), ("pod", "remote"), ("outside", "pod")):
            wait_until(lambda pair=(sender, receiver): self.source_seen(*pair))

    def _forward(self):
        name = "ipv4/ip_forward" if self.at.family == IPV4 else "ipv6/conf/all/forwarding"
        Path("/proc/sys/net", name).write_text("1", encoding="ascii")

    def _wire(self, name, other, near, far, gateway):
        at, namespace = self.at, self.places[other]

        def make_near():
            with IPRoute() as ipr:
                ipr.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": namespace.path})
                index = ipr.link_lookup(ifname=name)[0]
                ipr.addr("add", index=index, address=near[0], prefixlen=near[1], flags=0x02)
                ipr.link("set", index=index, state="up")
                ipr.link("set", index=ipr.link_lookup(ifname="lo")[0], state="up")
                if name == "tun0":
                    ipr.route("add", dst=str(at.network), oif=index)
                return dict(ipr.link("get", index=index)[0]["attrs"])["IFLA_ADDRESS"]

        def make_far(mac):
            with IPRoute() as ipr:
                index = ipr.link_lookup(ifname="eth0")[0]
                ipr.addr("add", index=index, address=far[0], prefixlen=far[1], flags=0x02)
                ipr.link("set", index=index, state="up")
                via = {"gateway": gateway} if gateway else {}
                everything = "0.0.0.0/0" if at.family == IPV4 else "::/0"
                ipr.route("add", family=_FAMILIES[at.family], dst=everything, oif=index, **via)
                if gateway is None:
                    # What leaves towards the node finds it by this, without a question to everybody.
                    for address in (at.tunnel, at.pod, at.node, at.outside):
                        ipr.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=0x80)

        mac = self.host.run(make_near)
        namespace.run(make_far, mac)

    def close(self):
        for opened in self._sockets:
            opened.close()

    def _open(self, place):
        opened = self.places[place].run(socket.socket, _FAMILIES[self.at.family], socket.SOCK_DGRAM)
        opened.settimeout(ARRIVES)
        self._sockets.append(opened)
        return opened

    def source_seen(self, sender, receiver, *, to=None, bind=None, mark=0, prepare=None):
        """Have one send a datagram to another; return the source address that the other sees, None if it sees none."""
        at = self.at
        listening, sending = self._open(receiver), self._open(sender)
        listening.bind(("" if at.family == IPV4 else "::", PORT))
        if bind:
            sending.bind((bind, 0))
        if mark:
            sending.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        if prepare:
            prepare(sending, listening)
        try:
            sending.sendto(b"hello", (to or getattr(at, receiver), PORT))
            return listening.recvfrom(100)[1][0]
        except OSError:
            return None
        finally:
            sending.close()
            listening.close()
