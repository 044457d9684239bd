"""Probes over a router: of both address families, through WireGuard, and beside a daemon that answers none."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.netns_lab.topologies import LEFT, RIGHT, topology
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

PEERS = Path(__file__).parents[2] / ".cache" / "peers"
SEARCH_PATH = f"{PEERS}:{os.environ['PATH']}"
PROBING = [Path(sys.executable).with_name("flanneld"), "--probe-interval=1"]
BOTH_PROBE = {"n1": PROBING, "n2": PROBING}
FLANNELCTL = str(Path(sys.executable).with_name("flannelctl"))


def row(lab):
    told = lab.run("exec", "n1", "--", FLANNELCTL, "probe", "--json")
    return json.loads(told.stdout)


def test_both_families_are_measured(lab):
    families = {"EnableIPv6": True, "IPv6Network": "fd10:244::/48"}
    lab.up(topology(LEFT, RIGHT, daemons=BOTH_PROBE, network=families))
    wait_until(lambda: [peer["state"] for peer in row(lab)] == ["ok", "ok"], 60)
    by_family = {":" in peer["subnet"]: peer for peer in row(lab)}
    for peer in by_family.values():
        assert (peer["underlay"]["mtu"], peer["overlay"]["mtu"]) == (1500, 1430)
    matrix = json.loads(lab.run("exec", "n1", "--", FLANNELCTL, "probe", "--all", "--json").stdout)
    assert len(matrix) == 4
    assert all(len(one["row"]) == 1 for one in matrix)


def test_through_wireguard(lab):
    if shutil.which("wireguard-go", path=SEARCH_PATH) is None or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no wireguard-go, or no /dev/net/tun")
    lab.environment["PATH"] = SEARCH_PATH
    lab.up(topology(LEFT, RIGHT, daemons=BOTH_PROBE, backend="wireguard"))
    wait_until(lambda: [peer["state"] for peer in row(lab)] == ["ok"], 60)
    assert (row(lab)[0]["underlay"]["mtu"], row(lab)[0]["overlay"]["mtu"]) == (1500, 1420)


def test_go_flannel_gives_no_answer_and_is_no_fault(lab):
    flannel = PEERS / "flannel"
    if not flannel.exists():
        pytest.skip("Go flannel is not built: make peers")
    lab.up(topology(LEFT, RIGHT, daemons={"n1": PROBING, "n2": [flannel, "--iptables-forward-rules=false"]}))
    wait_until(lambda: [peer["state"] for peer in row(lab)] == ["no answer"], 60)
