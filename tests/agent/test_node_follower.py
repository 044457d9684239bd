"""What is done when the uplink becomes another; a whole daemon shows it in tests/test_daemon_changes.py."""

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest

from flanneld_py.agent import node_follower
from flanneld_py.agent.node_follower import NodeFollower
from flanneld_py.agent.startup import Node
from flanneld_py.backends.registry import parse_backend
from flanneld_py.core.lease import LeaseAttrs
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.underlay import AddressOf, Interface, UplinkWish, pick_uplink
from flanneld_py.store.subnet_manager import LeaseRequest
from tests.fakes.memory_store import MemoryStore

WISH = UplinkWish(ifaces=("eth0",))
BEFORE = Interface(2, "eth0", 1500, True, (AddressOf(ip_address("172.30.0.11"), 16, True),))


@pytest.mark.parametrize(
    ("after", "reconnects"),
    [
        (replace(BEFORE, mtu=1400), 0),
        (replace(BEFORE, ifindex=3), 0),
        (replace(BEFORE, addresses=(AddressOf(ip_address("172.30.0.12"), 16, True),)), 1),
    ],
    ids=["mtu", "device", "address"],
)
async def test_the_store_is_connected_to_anew_before_a_new_address_is_published(monkeypatch, after, reconnects):
    config = parse_network_config('{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}')
    uplink = pick_uplink(WISH, [BEFORE], [], ipv4=True, ipv6=False)
    store = MemoryStore().manager(random.Random(0))  # noqa: S311 - repeatable
    request = LeaseRequest(config, LeaseAttrs(int(uplink.source), None, "host-gw"))
    node = Node(config, uplink, parse_backend(config)(uplink), request, held=None)
    monkeypatch.setattr(node_follower, "read_interfaces", lambda sock: [after])
    monkeypatch.setattr(node_follower, "read_routes", lambda sock: [])
    seen = []
    follower = NodeFollower(
        None, store, WISH, node, lambda node: seen.append((store.reconnects, node.uplink.interface))
    )
    await follower._look_at_host()
    assert seen == [(reconnects, after)]
