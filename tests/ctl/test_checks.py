"""Judgements on facts in their variations; that what is wrong is seen for real, test_ctl_doctor and its like show."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flanneld_py.core.subnet_env import parse_subnet_env
from flanneld_py.ctl.checks import judge_all
from flanneld_py.ctl.checks.facts import Facts
from flanneld_py.ctl.node_view import NodeView
from flanneld_py.kernel.barriers import Barrier
from flanneld_py.kernel.link import IFF_UP, Link

ENV = parse_subnet_env(
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
)
DAEMON = {
    "ready": True,
    "missing": [],
    "store": {"type": "etcd", "endpoints": ["http://a:2379"], "trouble": None},
    "lease": {"key": "10.5.1.0-24", "seconds_left": 80_000.0},
    "skipped": {},
    "failing": [],
}
WELL = Facts(
    now=0.0,
    daemon=DAEMON,
    published={},
    peers=(),
    subnet_file=Path("/run/flannel/subnet.env"),
    env=ENV,
    view=NodeView((), (), (), (), (), ()),
    settings={"net/ipv4/ip_forward": "1", "net/ipv4/neigh/default/gc_thresh3": "1024"},
    filter_rules=(),
    barriers=(),
    claimed=frozenset(),
    conflists=None,
    conf_dir=Path("/etc/cni/net.d"),
    plugins=None,
    bin_dir=Path("/opt/cni/bin"),
    has_kubelet=False,
    expiries={},
    resolved={4: 10, 6: 10},
    probes={},
    offloaded=frozenset(),
    release="6.1.0",
    store_time=None,
    unbridged=frozenset(),
)


def found(**changes):
    return {finding.check: finding for finding in judge_all(replace(WELL, **changes))}


def test_a_node_that_is_well():
    assert found() == {}


def test_a_neighbour_table_that_is_nearly_full():
    finding = found(resolved={4: 1000, 6: 10})["neighbours"]
    assert finding.mend[-1] == "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096"
    assert finding.safe


@pytest.mark.parametrize(("port", "check"), [(0, "forward-chain"), (8472, "tunnel-port")])
def test_a_chain_that_stops_packets(port, check):
    finding = found(barriers=[Barrier("inet other input", "it is dropped in input", "nft insert …", port)])[check]
    assert "inet other input" in finding.evidence
    assert finding.mend == ("nft insert …",)


def test_br_netfilter_counts_where_there_is_a_kubelet():
    assert "bridge-nf" not in found()
    assert found(has_kubelet=True)["bridge-nf"].mend[0] == "modprobe br_netfilter"


def test_many_skipped_leases_are_a_few_findings():
    daemon = DAEMON | {"skipped": {f"10.9.{index}.0-24": "it lies outside" for index in range(100)}}
    findings = judge_all(replace(WELL, daemon=daemon))
    assert [finding.check for finding in findings] == ["skipped-lease"] * 4
    assert findings[-1].evidence == "97 more leases"


@pytest.mark.parametrize(
    ("store", "mend"),
    [
        (
            {"type": "etcd", "endpoints": ["http://a:1", "http://b:1"]},
            "etcdctl --endpoints=http://a:1,http://b:1 endpoint health",
        ),
        ({"type": "kubernetes"}, "kubectl get --raw /readyz"),
    ],
)
def test_a_store_that_is_away(store, mend):
    assert found(daemon=DAEMON | {"store": store | {"trouble": "refused"}})["store"].mend == (mend,)


def test_a_lease_that_ends_and_one_that_does_not():
    lease = DAEMON["lease"]
    assert "lease" in found(daemon=DAEMON | {"lease": lease | {"seconds_left": 100.0}})
    assert found(daemon=DAEMON | {"lease": lease | {"seconds_left": None}}) == {}


def test_findings_are_plain_data():
    assert json.dumps([finding._asdict() for finding in judge_all(replace(WELL, daemon=None))])


def way(sent=10, lost=0, mtu=1500, wanted=1500):
    return {"sent": sent, "lost": lost, "silent": 0, "round_trip": 300, "mtu": mtu, "wanted": wanted}


def probed(state, underlay=None, overlay=None):
    peer = {
        "subnet": "10.5.2.0/24",
        "public_ip": "172.30.0.12",
        "state": state,
        "underlay": underlay or way(),
        "overlay": overlay or way(mtu=1450, wanted=1450),
    }
    return {"problem": "", "peers": [peer]}


def test_a_path_that_takes_packets_apart_is_a_warning_and_one_that_loses_them_an_error():
    daemon = DAEMON | {"backend": {"type": "host-gw"}, "uplink": {"name": "eth0", "sources": []}}
    uplink = NodeView((Link(2, "eth0", IFF_UP, 1500, b"", "", {}, 0, 0),), (), (), (), (), ())
    finding = found(daemon=daemon, view=uplink, probes=probed("narrow", way(mtu=1400)))["path-mtu"]
    assert (finding.severity, finding.mend) == ("warning", ("ip link set dev eth0 mtu 1400, on all nodes",))
    vxlan = DAEMON | {"backend": {"type": "vxlan"}}
    finding = found(daemon=vxlan, probes=probed("narrow", None, way(mtu=1350, wanted=1450)))["path-mtu"]
    assert (finding.severity, finding.mend) == ("error", ("flannelctl net set Backend.MTU=1400",))


@pytest.mark.parametrize(
    ("backend", "mend"),
    [
        ("udp", "on 172.30.0.12: iptables -I INPUT -p udp --dport 8285 -j ACCEPT"),
        ("ipip", "on 172.30.0.12: iptables -I INPUT -p 4 -j ACCEPT"),
        (
            "host-gw",
            "let packets with addresses of 10.5.0.0/16 pass between the nodes (in a cloud: its route and checks)",
        ),
    ],
)
def test_what_a_firewall_has_to_let_in_for_each_backend(backend, mend):
    finding = found(daemon=DAEMON | {"backend": {"type": backend}}, probes=probed("no overlay"))["tunnel-cut"]
    assert finding.mend[0] == mend


def test_loss_that_probes_have_found():
    assert "overlay 5 of 10" in found(probes=probed("lossy", overlay=way(lost=5)))["path-loss"].evidence


def test_what_is_wrong_on_this_node_explains_what_probes_find():
    rules = ["-A INPUT -p udp --dport 8472 -j DROP"]
    assert found(probes=probed("no overlay"), filter_rules=["-P FORWARD DROP", *rules]).keys() == {"forward-policy"}


def test_somebody_who_changes_our_entries():
    assert "another flanneld" in found(daemon=DAEMON | {"rival": "another flanneld"})["rival"].evidence


def test_pods_that_have_lost_their_bridge():
    one, bridge = (Link(index, name, IFF_UP, 1450, b"", "", {}, 0, 0) for index, name in ((7, "veth1"), (8, "cni0")))
    lost = {"unbridged": frozenset({7})}
    told = found(view=WELL.view._replace(links=(one,)), **lost)["pod-bridge"]
    assert (told.mend, told.safe) == (("start a pod on this node, which makes the bridge",), False)
    told = found(view=WELL.view._replace(links=(one, bridge)), **lost)["pod-bridge"]
    assert (told.mend, told.safe) == (("ip link set dev veth1 master cni0",), True)
