"""A network changes its backend node by node, and its pods reach each other all the while."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns_lab.change_daemon import ETCD, FLANNELD, daemon, devices

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(300)]

NODES = ("n1", "n2", "n3")
NETWORK = {"Network": "10.244.0.0/16", "EnableIPv6": True, "IPv6Network": "fd10:244::/48"}
TOPOLOGY = """
[underlay]
left = "172.20.1.0/24"
[nodes]
n1 = {underlay = "left"}
n2 = {underlay = "left"}
n3 = {underlay = "left"}
[network]
Network = "10.244.0.0/16"
EnableIPv6 = true
IPv6Network = "fd10:244::/48"
Backend = {Type = "vxlan"}
"""


def test_from_vxlan_to_host_gw_node_by_node(lab, wait_for):
    lab.up(TOPOLOGY)
    lab.await_reach()
    config = json.dumps(NETWORK | {"Backend": {"Type": "host-gw"}})
    put = ("etcdctl", f"--endpoints={ETCD}", "put", "/coreos.com/network/config", config)
    lab.run("exec", "n1", "--", *put)
    with ExitStack() as stack:
        for node in NODES:
            stack.enter_context(daemon(lab, node))
            lab.await_reach()
            assert "all 12 pairs reach each other, no packet lost" in lab.run("ping").stdout
            wait_for(lambda node=node: devices(lab, node) == set())
            status = lab.run("exec", node, "--", f"{Path(FLANNELD).with_name('flannelctl')}", "status", "--json").stdout
            assert json.loads(status)["unreachable"] == {}
