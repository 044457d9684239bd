"""ipip and wireguard in whole labs: how packets travel, what heals, what a restart of ipip costs, Go flannel."""

import json
import subprocess
import sys
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP

from flanneld_py.kernel.wireguard_netlink import has_wireguard
from tests.netns_lab.carriers import GO_FLANNEL, needs_go_flannel, require
from tests.netns_lab.change_daemon import daemon, devices
from tests.netns_lab.exercise import exercise
from tests.netns_lab.test_lab_overlay import UPLINKS, Capture, pods_of, same_underlay
from tests.netns_lab.topologies import LEFT, RIGHT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.guest, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
DEVICES = {"ipip": "flannel.ipip", "wireguard": "flannel-wg"}
MTUS = {"ipip": 1480, "wireguard": 1420}


@pytest.fixture(params=DEVICES)
def backend(request, lab):
    require(lab, request.param)
    return request.param


def bring_up(lab, backend, **options):
    lab.up(topology(LEFT, LEFT, RIGHT, backend=backend, **options))
    lab.await_reach()


def break_by_ip(lab, *words):
    lab.run("exec", "n1", "--", "ip", *words)


@contextmanager
def steady_packets(lab):
    """Datagrams from n1's pod to n3's and back; none may be lost. Ends when told to."""
    script, steady = HERE / "probe.py", HERE / "steady.py"
    names = {node: address for address, node in pods_of(lab).items()}
    pods = {json.loads(file.read_text())["node"]: file.stem for file in (lab.root / "pods").glob("*.json")}
    with running(lab, pods["n3"], script, "serve") as server:
        # Whoever sends before that is refused.
        assert server.stdout.readline() == "serving\n"
        with running(lab, pods["n1"], steady, names["n3"], stdin=subprocess.PIPE) as sender:
            assert sender.stdout.readline() == "sending\n"
            yield
            told, _ = sender.communicate(timeout=60)
            assert told.startswith("lost 0 of "), told


@contextmanager
def running(lab, pod, *command, **how):
    """A Python script in a pod, which ends with this."""
    process = lab.start("exec", pod, "--", sys.executable, *command, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ipip_is_the_pods_packet_in_another_one(lab):
    require(lab, "ipip")
    bring_up(lab, "ipip", DirectRouting=True)
    with Capture(lab) as capture:
        assert "all 6 pairs reach each other, no packet lost" in lab.run("ping").stdout
    clear, tunnelled = set(), set()
    for frame in capture.frames():
        if IP in frame and frame[IP].proto == 4:
            outer = frame[IP]
            inner = IP(bytes(outer.payload))
            if ICMP in inner and inner[ICMP].type == 8:
                tunnelled.add((inner.src, inner.dst, outer.src, outer.dst))
        elif ICMP in frame and frame[ICMP].type == 8:
            clear.add((frame[IP].src, frame[IP].dst))
    pods = pods_of(lab)
    pairs = list(permutations(pods, 2))
    assert clear == {(a, b) for a, b in pairs if same_underlay(pods[a], pods[b])}
    assert tunnelled == {
        (a, b, UPLINKS[pods[a]], UPLINKS[pods[b]]) for a, b in pairs if not same_underlay(pods[a], pods[b])
    }


def test_what_is_broken_heals(lab, backend):
    bring_up(lab, backend)
    device = DEVICES[backend]
    network = "10.244.0.0/16" if backend == "wireguard" else pod_subnet(lab, "n3")
    for words in (
        ("link", "del", device),
        ("link", "set", device, "down"),
        ("link", "set", device, "mtu", "1300"),
        ("addr", "flush", "dev", device, "primary"),  # in one round; without the word, until none comes back
        ("route", "del", network),
    ):
        break_by_ip(lab, *words)
        lab.await_reach()
        assert devices(lab, "n1") == {device}
    link = json.loads(lab.run("exec", "n1", "--", "ip", "-json", "link", "show", device).stdout)
    assert link[0]["mtu"] == MTUS[backend]


def pod_subnet(lab, node):
    address = next(address for address, home in pods_of(lab).items() if home == node)
    return f"{address.rpartition('.')[0]}.0/24"


def test_a_restart_loses_nothing(lab):
    require(lab, "ipip")
    bring_up(lab, "ipip")
    with steady_packets(lab), daemon(lab, "n1"):
        pass


@needs_go_flannel
def test_go_flannel_is_reached_and_reaches_us(lab, backend):
    if backend == "wireguard" and not has_wireguard():
        pytest.skip("this kernel has no WireGuard: make test-kernels has one that does")
    go = [str(GO_FLANNEL), "--iptables-forward-rules=false"]
    bring_up(lab, backend, daemons={"n3": go})
    exercise(lab, mtu=MTUS[backend])
