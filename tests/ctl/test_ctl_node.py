"""flannelctl on nodes with real daemons, after they have gone, and with entries taken away."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flanneld_py.core.prefix import IPV4
from flanneld_py.kernel import port_guard
from flanneld_py.kernel.iptables import find_iptables
from flanneld_py.kernel.nf_tables_socket import read_tables
from tests.test_daemon import CONFIG, PREFIX, cluster, empty_cluster, leads_to, vtep_mac
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

FLANNELCTL = Path(sys.executable).with_name("flannelctl")


def run(node, *words, folder=None, wrapper=(), environ=None):
    """Run flannelctl on a node, by a program that runs programs if one is given; return (status, output, errors)."""
    subnet_file = (folder or node.folder) / "subnet.env"
    command = [*wrapper, FLANNELCTL, *words, f"--subnet-file={subnet_file}"]
    done = node.namespace.run(
        lambda: subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=30, env=os.environ | (environ or {})
        )
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def pair(cluster):
    """Two nodes whose kernels lead to each other, and the second's key."""
    one, two = cluster.add_node(), cluster.add_node()
    one.start().is_ready()
    key = two.start().is_ready().key
    wait_until(lambda: leads_to(one, two, key))
    return one, two, key


def test_status_and_peers_of_a_running_daemon(pair):
    one, two, key = pair
    status, text, _ = run(one, "status", "--json")
    told = json.loads(text)
    assert status == 0
    assert told["peers"] == 1
    assert told["store"]["endpoint"].startswith("http://172.30.0.1:")
    assert told["devices"] == [{"name": "flannel.1", "mac": vtep_mac(one)}]
    status, text, _ = run(one, "peers", "--json")
    assert status == 0
    assert json.loads(text) == [
        {
            "subnet": key.replace("-", "/"),
            "public_ip": two.address,
            "way": "tunnel",
            "state": "ok",
            "probed": "",
            "device": "flannel.1",
            "gateway": key.partition("-")[0],
            "mac": vtep_mac(two),
            "remote": two.address,
            "received_bytes": 0,
            "received_packets": 0,
            "sent_bytes": None,
            "sent_packets": None,
            "counted_by": "guard",
        }
    ]


def test_what_the_guard_let_in_from_a_peer(pair):
    one, two, _ = pair
    wait_until(lambda: "guard armed" in one.daemons[-1].log)
    target = json.loads(run(one, "status", "--json")[1])["lease"]["key"].partition("-")[0]

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"x" * 1000, (target, 9))

    two.namespace.run(send)
    # Outer headers of 20, 8 and 8 bytes, and inner ones of 14, 20 and 8.
    size, packets = 1078, 1
    wait_until(lambda: json.loads(run(one, "peers", "--json")[1])[0]["received_bytes"] == size)
    assert json.loads(run(one, "peers", "--json")[1])[0]["received_packets"] == packets
    _, table, _ = run(one, "peers")
    assert table.splitlines()[0].split() == ["SUBNET", "PUBLIC", "IP", "WAY", "DEVICE", "STATE", "RECEIVED"]
    assert table.splitlines()[1].endswith("1.08 kB")
    whole = run(one, "peers", two.address)[1]
    assert "received   1.08 kB in 1 packets\n  sent       -\n  counted by guard\n" in whole


def test_the_store_is_found_by_the_daemon(pair):
    one, two, key = pair
    status, text, _ = run(one, "leases", "--json")
    assert status == 0
    assert {lease["public_ip"] for lease in json.loads(text)["leases"]} == {one.address, two.address}
    status, text, _ = run(one, "net", "show")
    assert (status, text.splitlines()[0]) == (0, CONFIG)
    status, _, errors = run(one, "lease", "release", one.address)
    assert status == 1
    assert "is this node's own" in errors
    two.daemons[-1].kill()
    assert run(one, "lease", "release", two.address)[0] == 0
    wait_until(lambda: key.replace("-", "/") not in one.routes())
    assert run(one, "peers", "--json")[1].strip() == "[]"


@pytest.mark.parametrize("named", ["address", "subnet", "pod"])
def test_one_peer_by_any_of_its_names(pair, named):
    one, two, key = pair
    name = {"address": two.address, "subnet": key, "pod": key.replace(".0-24", ".77")}[named]
    status, text, _ = run(one, "peers", name)
    assert status == 0
    assert f"remote     {two.address}" in text
    assert run(one, "peers", "10.99.0.1")[0] == 1


def test_with_the_daemon_down_the_kernel_tells(pair):
    one, two, key = pair
    one.daemons[-1].stop()
    status, text, errors = run(one, "status")
    assert status == 1
    assert "no daemon answers" in errors
    assert "FLANNEL_NETWORK" in text
    assert "1, of which 0 lack an entry" in text
    status, text, _ = run(one, "peers", "--json")
    assert status == 0
    assert json.loads(text)[0]["remote"] == two.address
    device = one.index("flannel.1")
    one.do(lambda ipr: ipr.fdb("del", ifindex=device, lladdr=vtep_mac(two), dst=two.address))
    status, text, _ = run(one, "peers", "--json")
    assert status == 3
    assert json.loads(text)[0]["state"] == "no forwarding entry"
    one.do(lambda ipr: ipr.neigh("del", ifindex=device, dst=key.partition("-")[0]))
    assert json.loads(run(one, "peers", "--json")[1])[0]["state"] == "no neighbour"


def test_cleanup_refuses_while_in_use_and_then_takes_all(pair, tmp_path):
    one, _, _ = pair
    one.daemons[-1].stop()
    one.start("--ip-masq").is_ready()
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("bin", "conf", "state")]
    for name in ("bin", "conf"):
        (tmp_path / name).mkdir()
    install = [FLANNELCTL, "cni", "install", "--with-interpreter", *folders[:2]]
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "conf" / "20-other.conflist").write_text("{}")
    (tmp_path / "state" / "networks" / "cbr0").mkdir(parents=True)
    foreign = one.do(lambda ipr: ipr.link("add", ifname="other0", kind="bridge") and ipr.link_lookup(ifname="other0"))
    status, _, errors = run(one, "cleanup", *folders)
    assert status == 1
    assert f"flanneld (pid {one.daemons[-1].process.pid}) runs" in errors
    one.daemons[-1].stop()
    another = tmp_path / "flanneld"  # as a daemon of Go flannel, which holds no lock
    shutil.copy("/bin/sleep", another)
    process = one.namespace.run(subprocess.Popen, [another, "60"])
    status, _, errors = run(one, "cleanup", *folders)
    process.kill()
    process.wait()
    assert status == 1
    assert f"flanneld (pid {process.pid}) runs in this network" in errors
    bridge = make_bridge_with_port(one)
    status, _, errors = run(one, "cleanup", *folders)
    assert status == 1
    assert "1 pods are on cni0 (pod0" in errors
    one.namespace.run(lambda: port_guard.ensure_guard("pod0", bytes(6), None))
    one.do(lambda ipr: ipr.link("del", index=one.index("pod0")))
    assert run(one, "cleanup", "--dry-run", *folders)[0] == 0
    assert one.index("flannel.1")
    assert one.index("cni0") == bridge
    assert run(one, "cleanup", *folders)[0] == 0
    assert (one.index("flannel.1"), one.index("cni0"), [one.index("other0")]) == (None, None, foreign)
    assert not [route for route in one.routes().values() if route[0] == 119]
    for program, words in (("iptables-save", ""), ("nft", "list ruleset")):
        if shutil.which(program):
            assert "flannel" not in one.ip(words, program).lower()
    assert not [name for _, name in one.namespace.run(read_tables) if name.startswith("flannel")]
    iptables = find_iptables((IPV4,))
    assert iptables is None or not one.namespace.run(iptables.holds_any)
    assert not (one.folder / "subnet.env").exists()
    assert [path.name for path in (tmp_path / "bin").iterdir()] == []
    assert [path.name for path in (tmp_path / "conf").iterdir()] == ["20-other.conflist"]
    assert not (tmp_path / "state" / "networks" / "cbr0").exists()
    assert json.loads(run(one, "cleanup", "--json", *folders)[1]) == {}


def make_bridge_with_port(node):
    def make(ipr):
        ipr.link("add", ifname="cni0", kind="bridge", state="up")
        ipr.link("add", ifname="pod0", kind="veth", peer="pod1")
        index = ipr.link_lookup(ifname="cni0")[0]
        ipr.link("set", index=ipr.link_lookup(ifname="pod0")[0], master=index)
        return index

    return node.do(make)


def test_a_lease_that_the_daemon_skips_is_in_the_status(cluster):
    cluster.ctl("put", f"{PREFIX}/subnets/10.9.9.0-24", '{"PublicIP":"172.30.9.9"}')
    node = cluster.add_node()
    node.start().is_ready()
    assert "10.9.9.0/24 lies outside the network" in run(node, "status")[1]
