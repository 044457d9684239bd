"""Probes between real daemons: what is measured on ways that are whole, narrow or cut, and who gets an answer."""

import json
import shutil
import socket
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flanneld_py.core import probe
from tests.ctl.test_ctl_node import run
from tests.test_daemon import cluster, empty_cluster
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

PROBE = "--probe-interval=1"
CONFIGS = {
    "vxlan": '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}',
    "host-gw": '{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}',
    "udp": '{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}',
    "direct": '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}',
}
MTUS = {"vxlan": 1450, "host-gw": 1500, "udp": 1472, "direct": 1450}


def probes(node, *words):
    """Return the row of a node, by public address."""
    _, text, errors = run(node, "probe", "--json", *words)
    assert not errors
    return {one["public_ip"]: one for one in json.loads(text)}


def comes_to(node, peer, state):
    def is_there():
        found = probes(node).get(peer.address)
        return found is not None and found["state"] == state

    wait_until(is_there, 40)
    return probes(node)[peer.address]


def shell(node, *commands):
    for command in commands:
        node.namespace.run(lambda: subprocess.run(command, shell=True, check=True, capture_output=True))  # noqa: B023, S602


def start_pair(cluster, *words):
    one, two = cluster.add_node(), cluster.add_node()
    for node in (one, two):
        node.start(PROBE, *words).is_ready()
    return one, two


@pytest.mark.parametrize("backend", CONFIGS)
def test_both_ways_are_measured(cluster, backend):
    cluster.set_config(CONFIGS[backend])
    one, two = start_pair(cluster)
    if backend == "host-gw":
        for node in (one, two):
            address = node.daemons[0].key.replace(".0-", ".1/")
            shell(node, "ip link add cni0 type bridge", f"ip addr add {address} dev cni0", "ip link set cni0 up")
        wait_until(lambda: probes(one).get(two.address, {"overlay": {"mtu": 0}})["overlay"]["mtu"])
    found = comes_to(one, two, "ok")
    assert found["underlay"]["mtu"] == found["underlay"]["wanted"] == 1500 if backend != "direct" else 1500
    assert found["overlay"]["mtu"] == found["overlay"]["wanted"] == MTUS[backend]
    for way in ("underlay", "overlay"):
        assert found[way]["lost"] == 0
        assert 0 < found[way]["round_trip"] < 1_000_000
    status, text, _ = run(one, "probe", two.address)
    assert status == 0
    assert two.address in text


def test_the_whole_matrix(cluster):
    one, two = start_pair(cluster)
    three = cluster.add_node()
    three.start().is_ready()  # as one of Go flannel: no answers
    comes_to(one, two, "ok")
    comes_to(two, one, "ok")
    comes_to(two, three, "no answer")
    comes_to(one, three, "no answer")
    status, text, errors = run(one, "probe", "--all", "--json")
    assert (status, errors) == (0, "")
    rows = {row["subnet"]: row["row"] for row in json.loads(text)}
    keys = {node: node.daemons[0].key.replace("-", "/") for node in (one, two, three)}
    assert rows.keys() == set(keys.values())
    assert {peer["subnet"]: peer["state"] for peer in rows[keys[two]]} == {keys[one]: "ok", keys[three]: "no answer"}
    assert rows[keys[three]] is None
    _, text, _ = run(one, "probe", "--all")
    assert "silent / silent" in text
    assert text.count("?") >= 2
    assert run(three, "probe")[0] == 1


def test_a_port_that_is_filtered_between_is_seen_and_its_mend_as_well(cluster):
    if shutil.which("iptables") is None:
        pytest.skip("no iptables")
    one, two = start_pair(cluster)
    comes_to(one, two, "ok")
    shell(two, "iptables -A INPUT -p udp --dport 8472 -j DROP")
    comes_to(one, two, "no overlay")
    assert run(one, "probe")[0] == 3
    shell(two, "iptables -D INPUT -p udp --dport 8472 -j DROP", "iptables -A INPUT -i eth0 -p udp --dport 8475 -j DROP")
    comes_to(one, two, "no underlay")
    assert run(one, "probe")[0] == 0
    shell(two, "iptables -F INPUT")
    assert comes_to(one, two, "ok")["underlay"]["lost"] == 0
    two.daemons[0].stop()
    comes_to(one, two, "no answer")
    assert run(one, "probe")[0] == 0


def test_a_path_that_carries_less_is_measured(cluster):
    if shutil.which("iptables") is None:
        pytest.skip("no iptables")
    one, two = start_pair(cluster)
    comes_to(one, two, "ok")
    # As a path does that loses what is too large and tells nobody.
    shell(two, "iptables -A INPUT -p udp -m length --length 1401:65535 -j DROP")
    comes_to(one, two, "narrow")
    wait_until(lambda: [probes(one)[two.address][way]["mtu"] for way in ("underlay", "overlay")] == [1400, 1350])
    assert run(one, "probe")[0] == 3
    shell(two, "iptables -F INPUT")
    comes_to(one, two, "ok")


def ask(node, source, target):
    """Send a request by a socket of a node with a source address; return whether an answer comes."""

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            sock.settimeout(0.5)
            sock.sendto(probe.encode_request(b"01234567"), (target, probe.PORT))
            try:
                return sock.recv(100) == probe.encode_answer(b"01234567")
            except TimeoutError:
                return False

    return node.namespace.run(send)


def refused(node):
    _, text = node.daemons[0].ask("/metrics")
    lines = [line for line in text.splitlines() if line.startswith("flanneld_probe_refused_total")]
    return {line.partition('"')[2].partition('"')[0]: float(line.split()[-1]) for line in lines}


def test_members_alone_are_answered(cluster):
    one, two = start_pair(cluster)
    comes_to(one, two, "ok")
    assert [peer["probed"] for peer in json.loads(run(one, "peers", "--json")[1])] == ["ok"]
    base = {node: node.daemons[0].key.partition("-")[0] for node in (one, two)}
    assert ask(two, two.address, one.address)
    assert ask(two, base[two], base[one])
    before = refused(one)
    assert not ask(two, two.address, base[one])
    pod = base[two].removesuffix("0") + "77"
    shell(two, f"ip addr add {pod}/32 dev lo", "ip addr add 172.30.99.99/16 dev eth0")
    assert not ask(two, pod, base[one])
    assert not ask(two, "172.30.99.99", one.address)
    assert refused(one)["stranger"] == before["stranger"] + 3

    def flood():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((two.address, 0))
            for _ in range(500):
                sock.sendto(probe.encode_request(b"01234567"), (one.address, probe.PORT))
            sock.sendto(b"what is this?", (one.address, probe.PORT))

    two.namespace.run(flood)
    wait_until(lambda: refused(one)["unreadable"] == before["unreadable"] + 1)
    assert refused(one)["too many"] > before["too many"]
    _, text = one.daemons[0].ask("/metrics")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["flanneld_probe_peers", "ok"] == 1
    assert (
        found["flanneld_probe_sent_total", "overlay"] >= found["flanneld_probe_round_trip_seconds_count", "overlay"] > 0
    )
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "metrics"], input=text, text=True, check=True, capture_output=True)


def test_a_port_that_is_taken_stops_nothing_else(cluster):
    node = cluster.add_node()

    def take():
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("", probe.PORT))
        return taken

    with node.namespace.run(take):
        daemon = node.start(PROBE).is_ready()
        daemon.says("no probes are sent or answered")
        status, _, errors = run(node, "probe")
    assert status == 1
    assert "UDP port 8475" in errors
