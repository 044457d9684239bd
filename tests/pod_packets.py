"""Packets between addresses that two nodes take for their own, as pods there would have them."""

import socket
import threading
from ipaddress import ip_interface

from tests.host import IPV4, IPV6
from tests.waiting import wait_until

KEYS = {IPV4: "FLANNEL_SUBNET", IPV6: "FLANNEL_IPV6_SUBNET"}
SOCKETS = {IPV4: (socket.AF_INET, socket.IPPROTO_IP, 11), IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6, 25)}
"""Of each family the sockets', and the option by which a socket hears of errors (IP_RECVERR, IPV6_RECVERR)."""


def subnet(daemon, family):
    return ip_interface(daemon.subnet_env[KEYS[family]]).network


def pod_address(node, daemon, family):
    """An address of the node's subnet that is in use on the node."""
    address = str(subnet(daemon, family)[9])
    length = 32 if family == IPV4 else 128
    flags = {} if family == IPV4 else {"flags": 0x02}
    node.do(
        lambda ipr: ipr.addr("add", index=ipr.link_lookup(ifname="lo")[0], address=address, prefixlen=length, **flags)
    )
    # The kernel takes an IPv6 address into use in its own time, and knows no way to it until then.
    wait_until(lambda: address in node.local_addresses(family))
    return address


def ask(node, source, family, address):
    """Send one packet, once, and return the answer to it; it goes by the tunnel in both directions."""

    def send():
        kind, level, option = SOCKETS[family]
        with socket.socket(kind, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.bind((source, 0))
            client.connect((address, 7))
            client.setsockopt(level, option, 1)
            client.send(b"first")
            return client.recv(100)

    return node.namespace.run(send)


class Echo:
    """Answers one packet to an address that the node takes for its own, as a pod there would."""

    def __init__(self, node, family, address):
        self._ready = threading.Event()
        self._thread = threading.Thread(target=node.namespace.run, args=(self._serve, family, address))

    def _serve(self, family, address):
        with socket.socket(SOCKETS[family][0], socket.SOCK_DGRAM) as server:
            server.settimeout(20)
            server.bind((address, 7))
            self._ready.set()
            data, sender = server.recvfrom(100)
            server.sendto(data, sender)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(20)

    def __exit__(self, *_):
        self._thread.join()
