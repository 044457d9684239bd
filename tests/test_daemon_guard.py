"""The guard as the real daemon keeps it: what reaches a pod over a real vxlan device, and what does not."""

import re
import shutil
import socket
import subprocess

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.attacked_node import MEMBER, MEMBERS_POD, PORT, STRANGER, VALUE, attack
from tests.test_daemon import PREFIX, cluster, empty_cluster
from tests.test_daemon_rules import make_pod
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

__all__ = ["attack", "cluster", "empty_cluster"]


def bombard(attacked):
    """All that a stranger, and a member that lies, may try."""
    for inner in (MEMBERS_POD, attacked.pod_address, "203.0.113.5", STRANGER):
        attacked.send(STRANGER, inner, b"stranger")
    attacked.send(MEMBER, "203.0.113.5", b"liar")
    attacked.send(MEMBER, attacked.pod_address, b"liar")
    attacked.send(MEMBER, attacked.node.address, b"liar")
    attacked.send(STRANGER, MEMBERS_POD, b"broadcast", mac="ff:ff:ff:ff:ff:ff")
    attacked.send(STRANGER, MEMBERS_POD, b"wrong VNI", vni=2)


def test_without_the_guard_strangers_reach_pods(attack):
    attacked = attack("--guard=off")
    attacked.send(STRANGER, MEMBERS_POD, b"stranger")
    assert attacked.came_before(b"last") == [b"stranger"]
    assert attacked.guard["mode"] == "off"


def test_nothing_of_a_stranger_reaches_a_pod(attack):
    attacked = attack()
    attacked.daemon.says("guard armed: mode=drop")
    bombard(attacked)
    assert attacked.came_before(b"last") == []
    guard = attacked.guard
    assert guard["mode"] == "drop"
    assert guard["dropped"] == {"stranger": 5, "no IP": 0, "foreign inner source": 3, "fragment": 0, "pod": 0}


def test_a_member_reaches_a_pod_by_its_own_address_and_by_what_is_allowed(attack):
    attacked = attack("--guard-allow=203.0.113.0/24,198.51.100.0/24")
    attacked.daemon.says("guard armed")
    attacked.send(MEMBER, MEMBER, b"node")
    attacked.send(MEMBER, "203.0.113.5", b"outside")
    assert attacked.came_before(b"last") == [b"node", b"outside"]


def test_to_log_is_to_let_pass_and_count(attack):
    attacked = attack("--guard=log")
    attacked.daemon.says("guard armed: mode=log")
    attacked.send(STRANGER, MEMBERS_POD, b"stranger")
    assert attacked.came_before(b"last") == [b"stranger"]
    assert attacked.guard["dropped"]["stranger"] == 1


def test_members_come_and_go_with_their_leases(attack):
    attacked = attack()
    attacked.daemon.says("guard armed")
    other = VALUE.replace(MEMBER, STRANGER).replace("7a:", "7e:")
    attacked.cluster.ctl("put", f"{PREFIX}/subnets/10.5.251.0-24", other)
    wait_until(lambda: "10.5.251.0/24" in attacked.node.routes())
    # Whoever has a route has been admitted before it.
    attacked.send(STRANGER, "10.5.251.9", b"new member")
    assert attacked.came_before(b"last") == [b"new member"]
    attacked.cluster.ctl("del", f"{PREFIX}/subnets/10.5.251.0-24")
    wait_until(lambda: attacked.cluster and "10.5.251.0" not in members(attacked.node))
    attacked.send(STRANGER, "10.5.251.9", b"no member any more")
    assert attacked.came_before(b"end") == []


def members(node):
    return nft(node, "list", "table", "inet", "flannel-guard-flannel.1")


def nft(node, *words):
    if shutil.which("nft") is None:
        pytest.skip("no nft: apt-get install nftables")
    done = node.namespace.run(lambda: subprocess.run(["nft", *words], check=False, capture_output=True, text=True))
    return done.stdout


def test_two_nodes_talk_also_by_their_own_addresses(cluster, make_namespace):
    one, two = cluster.add_node(), cluster.add_node()
    first, second = one.start().is_ready(), two.start().is_ready()
    wait_until(lambda: second.key.replace("-", "/") in one.routes() and first.key.replace("-", "/") in two.routes())
    pod = make_pod(one, make_namespace(), first.subnet_env["FLANNEL_SUBNET"])
    address = f"{first.key.partition('-')[0].rpartition('.')[0]}.10"
    with pod.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("", PORT))
        listening.settimeout(10)
        for source in (two.address, second.key.partition("-")[0]):
            with two.namespace.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sending:
                sending.bind((source, 0))
                sending.sendto(b"hello", (address, PORT))
            assert listening.recvfrom(100)[1][0] == source


def test_no_stranger_gets_in_while_the_daemon_restarts(attack):
    attacked = attack()
    for _ in range(3):
        attacked.daemon.says("guard armed")
        bombard(attacked)
        attacked.daemon.stop()
        bombard(attacked)
        assert attacked.came_before(b"last") == []
        attacked.start()
        bombard(attacked)
        assert attacked.came_before(b"last") == []
    attacked.daemon.says("guard armed")
    # Nothing is left of the wait.
    assert "awaited" not in members(attacked.node)


def test_a_daemon_that_does_not_come_back_leaves_nothing_that_drops(attack):
    attacked = attack()
    attacked.daemon.says("guard armed")
    attacked.daemon.stop()
    text = members(attacked.node)
    assert re.search(r"udp timeout (30|29)s expires \d+s", text), text
    # Its time passes at once.
    nft(attacked.node, "flush", "set", "inet", "flannel-guard-flannel.1", "awaited")
    attacked.send(STRANGER, MEMBERS_POD, b"nobody guards")
    assert attacked.came_before(b"last") == [b"nobody guards"]
    assert MEMBER in members(attacked.node)
    attacked.start().says("guard armed")
    bombard(attacked)
    assert attacked.came_before(b"last") == []


def test_a_daemon_that_is_killed_leaves_it_armed_and_the_next_one_writes_nothing_again(attack):
    attacked = attack()
    attacked.daemon.says("guard armed")
    before = nft(attacked.node, "-a", "list", "chain", "inet", "flannel-guard-flannel.1", "tunnel")
    attacked.daemon.kill()
    bombard(attacked)
    assert attacked.came_before(b"last") == []
    attacked.start()
    after = nft(attacked.node, "-a", "list", "chain", "inet", "flannel-guard-flannel.1", "tunnel")
    assert [line.partition("handle")[2] for line in after.splitlines()] == [
        line.partition("handle")[2] for line in before.splitlines()
    ]
    assert "guard armed" not in attacked.daemon.log


@pytest.mark.parametrize(
    "damage",
    [
        ("flush", "ruleset"),
        ("flush", "chain", "inet", "flannel-guard-flannel.1", "tunnel"),
        ("flush", "set", "inet", "flannel-guard-flannel.1", "members4-24"),
    ],
)
def test_what_others_change_of_it_is_put_right(attack, damage):
    attacked = attack()
    attacked.daemon.says("guard armed")
    whole = members(attacked.node)
    nft(attacked.node, *damage)
    wait_until(lambda: members(attacked.node) == whole)
    bombard(attacked)
    assert attacked.came_before(b"last") == []


def test_it_goes_where_it_is_switched_off_or_cannot_be(attack):
    attacked = attack()
    attacked.daemon.says("guard armed")
    attacked.daemon.stop()
    attacked.words = ("--guard=off",)
    attacked.start().says("guard removed: device=flannel.1")
    assert members(attacked.node) == ""
    attacked.daemon.stop()
    attacked.words = ("--on-demand",)
    attacked.start().says("guard is off: on demand, only members in use are known")
    assert attacked.guard["reason"].startswith("on demand")


def test_another_port_of_the_configuration_is_guarded_from_the_next_start_on(attack):
    attacked = attack()
    attacked.daemon.says("guard armed")
    attacked.daemon.stop()
    text = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4789}}'
    attacked.cluster.set_config(text)
    attacked.start().says("guard armed")
    wait_until(lambda: "dport 4789" in members(attacked.node))
    assert "dport 8472" not in members(attacked.node)


def sent_by_pod(attacked, *ports):
    """Have the pod send to the member, to each port in turn; return by port whose datagrams got to the underlay."""
    attacked.node.do(
        lambda ipr: ipr.neigh(
            "replace", dst=MEMBER, lladdr="02:00:00:00:00:77", ifindex=attacked.node.uplink, state=0x80
        )
    )
    seen = {}
    with attacked.cluster.namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0x0300) as wire:
        wire.bind((f"node{attacked.node.number}", 3))
        wire.settimeout(10)
        with attacked.pod.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sending:
            for port in ports:
                sending.sendto(b"smuggled", (MEMBER, port))
        while ports[-1] not in seen:
            frame = Ether(wire.recv(2000))
            if frame.haslayer(UDP) and b"smuggled" in bytes(frame):
                seen[frame[UDP].dport] = frame[IP].src
    return seen


@pytest.mark.parametrize("nftables", [True, False], ids=["nftables", "iptables"])
def test_masquerading_lends_no_pod_its_nodes_name_at_other_nodes_tunnels(attack, nftables):
    """Masqueraded, what a pod sends to another node's tunnel port would come from a member there."""
    attacked = attack("--ip-masq", "--guard=off", nftables=nftables)
    assert sent_by_pod(attacked, 8472, 8473) == {8472: attacked.node.address, 8473: attacked.node.address}
    attacked.daemon.stop()
    attacked.words = ("--ip-masq",)
    attacked.start().says("guard armed")
    assert sent_by_pod(attacked, 8472, 8473) == {8473: attacked.node.address}
    assert attacked.guard["dropped"]["pod"] == 1
