"""Two nodes with WireGuard in user space: what goes on when a key is exchanged, and when a process is killed."""

import os
import shutil
import socket
import uuid
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from flanneld_py.core.plan import plan_change
from flanneld_py.core.prefix import IPV4, parse_prefix
from flanneld_py.core.wireguard import DeviceChange, Endpoint, clamp_private_key, format_wireguard_key, public_key_of
from flanneld_py.kernel.wireguard import Way, WireguardDriver, device_entry, prefix_entry
from flanneld_py.kernel.wireguard_uapi import UapiControl, socket_path, start_process
from tests.host import number
from tests.waiting import wait_until

BUILT = Path(__file__).parents[2] / ".cache" / "peers"
PROGRAM = shutil.which("wireguard-go", path=f"{BUILT}:{os.environ['PATH']}")

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(PROGRAM is None, reason="no wireguard-go: apt-get install wireguard-go, or make peers"),
    pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="no /dev/net/tun: modprobe tun"),
]

NETWORK = "10.5.0.0/16"
PATIENCE = 2.0
"""Under the 5 s after which WireGuard tries a handshake again: nobody has to wait for that."""


class Node:
    def __init__(self, namespace, index):
        self.namespace, self.index = namespace, index
        self.address, self.public_ip = f"10.5.{index}.1", f"172.30.0.{index}"
        self.name = f"wg{uuid.uuid4().hex[:10]}"
        self.control = UapiControl(self.name)
        self.entries = []

    def start(self, key):
        self.namespace.run(start_process, PROGRAM, self.name)
        self.namespace.run(self._bring_up)
        self.take_key(key)

    def take_key(self, key):
        self.key = key
        self.driver = WireguardDriver({self.name: self.control}, key, bytes(32))
        self.control.change(DeviceChange(key, 51820, ()))

    def _bring_up(self):
        with IPRoute() as ipr:
            device = ipr.link_lookup(ifname=self.name)[0]
            ipr.addr("add", index=device, address=self.address, prefixlen=32)
            ipr.link("set", index=device, state="up")
            ipr.route("add", dst=NETWORK, oif=device)

    def learn(self, other):
        """Hear of another node's lease."""
        way = Way(format_wireguard_key(public_key_of(other.key)), Endpoint(IPV4, number(other.public_ip), 51820), 0)
        wanted = [
            device_entry(self.name, public_key_of(self.key), 51820),
            prefix_entry(self.name, parse_prefix(f"10.5.{other.index}.0/24"), way),
        ]
        assert self.driver.apply(plan_change(self.driver.read(), wanted)) == {}

    def open(self):
        def bind():
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.settimeout(PATIENCE)
            opened.bind((self.address, 7000))
            return opened

        return self.namespace.run(bind)

    def end(self):
        def delete():
            with IPRoute() as ipr:
                for device in ipr.link_lookup(ifname=self.name):
                    ipr.link("del", index=device)

        self.namespace.run(delete)
        wait_until(lambda: not socket_path(self.name).exists())


@pytest.fixture
def pair(make_namespace):
    one, two = Node(make_namespace(), 1), Node(make_namespace(), 2)

    def wire():
        with IPRoute() as ipr:
            ipr.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": two.namespace.path})

    one.namespace.run(wire)
    for node in (one, two):

        def plug_in(node=node):
            with IPRoute() as ipr:
                device = ipr.link_lookup(ifname="eth0")[0]
                ipr.addr("add", index=device, address=node.public_ip, prefixlen=24)
                ipr.link("set", index=device, state="up")

        node.namespace.run(plug_in)
        node.start(clamp_private_key(bytes([node.index]) * 32))
    one.learn(two)
    two.learn(one)
    yield one, two
    for node in (one, two):
        node.end()


def test_new_key_is_used_at_once_and_nothing_is_lost(pair):
    one, two = pair
    with one.open() as ours, two.open() as theirs:
        ours.sendto(b"before", (two.address, 7000))
        assert theirs.recv(100) == b"before"
        # As at a restart: the device has the new key first, then the lease tells it.
        one.take_key(clamp_private_key(bytes([9]) * 32))
        ours.sendto(b"meanwhile", (two.address, 7000))
        two.learn(one)
        theirs.sendto(b"after", (one.address, 7000))
        assert ours.recv(100) == b"after"
        assert theirs.recv(100) == b"meanwhile"
    assert [peer.public_key for peer in two.control.read().peers] == [public_key_of(one.key)]


def test_process_that_was_ended_is_started_again(pair):
    one, two = pair
    one.end()
    one.start(one.key)
    one.learn(two)
    with one.open() as ours, two.open() as theirs:
        ours.sendto(b"back", (two.address, 7000))
        assert theirs.recv(100) == b"back"
