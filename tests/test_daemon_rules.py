"""The rules as the real daemon keeps them: written, restored, the same over restarts."""

import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress

import pytest
from pyroute2 import IPRoute

from tests.test_daemon import HUB, cluster, empty_cluster
from tests.test_rule_drivers import listen_to_nf_tables
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

__all__ = ["cluster", "empty_cluster"]

NFTABLES = '{"Network":"10.5.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}'
ECHO_PORT = 7000
FORWARD_POLICY = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"
HANDLE = re.compile(r" # handle [0-9]+")


def run(node, *words, text=None):
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]}: apt-get install {words[0]}")
    done = node.namespace.run(lambda: subprocess.run(words, check=False, capture_output=True, text=True, input=text))
    assert done.returncode == 0, done.stderr
    return done.stdout


def rules_of(node):
    """All there is, with the handles that tell a rule from one that was made anew."""
    return run(node, "nft", "-a", "list", "ruleset")


def holds_again(node, listing, whole):
    done = node.namespace.run(lambda: subprocess.run(listing, check=False, capture_output=True, text=True))
    return done.stdout == whole


@pytest.fixture
def nft_node(cluster):
    cluster.set_config(NFTABLES)
    return cluster.add_node()


def test_what_others_change_is_restored_as_soon_as_the_kernel_tells(nft_node):
    daemon = nft_node.start("--ip-masq", "--iptables-resync=1h").is_ready()
    assert daemon.subnet_env["FLANNEL_IPMASQ"] == "true"
    listing = ("nft", "list", "table", "ip", "flannel-ipv4")
    whole = run(nft_node, *listing)
    assert "masquerade" in whole
    for damage in ("flush ruleset", "flush chain ip flannel-ipv4 postrtg", "add rule ip flannel-ipv4 forward drop"):
        run(nft_node, "nft", "-f", "-", text=damage)
        wait_until(lambda: holds_again(nft_node, listing, whole))
    daemon.says("traffic rules restored: by=nftables")


def test_iptables_is_looked_at_each_resync(cluster):
    node = cluster.add_node()
    run(node, "iptables", "--version")
    node.start("--ip-masq", "--iptables-resync=100ms").is_ready()
    assert "MASQUERADE --random-fully" in run(node, "iptables-save", "-t", "nat")
    assert "FLANNEL-FWD" in run(node, "iptables-save", "-t", "filter")
    run(node, "iptables", "-t", "nat", "-F")
    wait_until(lambda: "MASQUERADE --random-fully" in run(node, "iptables-save", "-t", "nat"))


def test_the_former_way_is_left_when_the_configuration_asks_for_another(cluster):
    node = cluster.add_node()
    run(node, "iptables", "--version")
    node.start("--ip-masq").is_ready().stop()
    cluster.set_config(NFTABLES)
    daemon = node.start("--ip-masq").is_ready()
    daemon.says("traffic rules removed: by=iptables")
    assert "FLANNEL" not in run(node, "iptables-save")
    assert "table ip flannel-ipv4" in rules_of(node)
    daemon.stop()
    cluster.set_config(NFTABLES.replace("true", "false"))
    node.start("--ip-masq").is_ready().says("traffic rules removed: by=nftables")
    assert "flannel-ipv4" not in rules_of(node)


def test_rules_are_the_same_after_restarts_beside_a_foreign_table_and_nothing_is_written(nft_node):
    run(nft_node, "nft", "-f", "-", text="table ip other { chain c { type filter hook forward priority 0; }; }")
    nft_node.start("--ip-masq").is_ready().says("guard armed")
    before = rules_of(nft_node)
    with nft_node.namespace.run(listen_to_nf_tables) as told:
        for _ in range(3):
            nft_node.daemons[-1].stop()
            nft_node.start("--ip-masq", "--resync-interval=20ms", "--iptables-resync=20ms").is_ready()
        daemon = nft_node.daemons[-1]
        daemon.says("guard armed")
        # The guard sleeps while there is no daemon; what connections live by is never touched.
        changes = list(drain(told))
        assert any(b"flannel-guard-flannel.1" in change for change in changes)
        assert not any(b"flannel-ipv4" in change or b"other" in change for change in changes)
        reconciled = count(daemon, "flanneld_reconcile_duration_seconds_count")
        wait_until(lambda: count(daemon, "flanneld_reconcile_duration_seconds_count") > reconciled + 100)
        assert list(drain(told)) == []
    # The guard's are numbered anew; that nobody else's were written has been seen above.
    assert HANDLE.sub("", rules_of(nft_node)) == HANDLE.sub("", before)


def drain(told):
    """Yield all that has been told of changes of tables."""
    with suppress(BlockingIOError):
        while True:
            yield told.recv(1 << 16, socket.MSG_DONTWAIT)


def count(daemon, name):
    _, page = daemon.ask("/metrics")
    return next((float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"{name} ")), 0.0)


@pytest.mark.parametrize("nftables", ["true", "false"])
def test_two_networks_of_one_node_leave_each_others_rules_alone(cluster, nftables):
    node = cluster.add_node()
    run(node, "iptables", "--version")
    configs = [
        f'{{"Network":"10.{net}.0.0/16","EnableNFTables":{nftables},"Backend":{{"Type":"vxlan","VNI":{net}}}}}'
        for net in (5, 6)
    ]
    daemons = []
    for net, config in zip((5, 6), configs, strict=True):
        cluster.ctl("put", f"/net{net}/config", config)
        words = (f"--etcd-prefix=/net{net}", f"--healthz-port={8000 + net}")
        folder = node.folder / f"net{net}"
        daemons.append((node.start(*words, "--ip-masq", "--iptables-resync=50ms", folder=folder), words, folder))
        daemons[-1][0].is_ready().says("guard armed")
    daemons[1][0].says("traffic rules: another flanneld")
    assert "table ip flannel-ipv4-flannel.6" in rules_of(node)
    assert ("table ip flannel-ipv4 " in rules_of(node)) == (nftables == "true")
    with node.namespace.run(listen_to_nf_tables) as told:
        # Each one's restart writes nothing of the other's, nor anew what is its own.
        for index in (1, 0):
            daemon, words, folder = daemons[index]
            daemon.stop()
            again = node.start(*words, "--ip-masq", "--iptables-resync=50ms", folder=folder).is_ready()
            again.says("guard armed")
            daemons[index] = (again, words, folder)
        changes = list(drain(told))
        assert not any(b"flannel-ipv4" in change or b"FLANNEL" in change for change in changes)
    # Alone, the second one takes the host's chains, and its own tables away.
    for daemon, *_ in daemons:
        daemon.stop()
    _, words, folder = daemons[1]
    again = node.start(*words, "--ip-masq", folder=folder).is_ready()
    again.says("traffic rules removed: by=nftables aside")
    assert "10.6.0.0/16" in rules_of(node)
    assert "flannel-ipv4-flannel.6" not in rules_of(node)


def test_who_else_drops_forwarded_packets_is_named(nft_node):
    text = "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; reject; }; }"
    run(nft_node, "nft", "-f", "-", text=text)
    run(nft_node, "nft", "-f", "-", text=FORWARD_POLICY)
    daemon = nft_node.start().is_ready()
    daemon.says("by=nftables chain inet firewalld filter_FORWARD")
    daemon.says("remedy=firewall-cmd --zone=trusted --add-source=10.5.0.0/16 && firewall-cmd --permanent")
    daemon.says("by=nftables chain ip filter FORWARD reason=it is dropped in FORWARD")


def test_who_drops_forwarded_packets_but_ours_is_not_named(nft_node):
    rules = "ip saddr 10.5.0.0/16 accept; ip daddr 10.5.0.0/16 accept;"
    run(nft_node, "nft", "-f", "-", text=FORWARD_POLICY.replace("policy drop;", f"policy drop; {rules}"))
    assert "forwarded packets are stopped" not in nft_node.start().is_ready().log


def test_a_blackhole_lies_behind_the_own_subnet(cluster):
    node = cluster.add_node()

    def blackholes():
        return [
            (route.get_attr("RTA_DST"), route["dst_len"], route.get_attr("RTA_PRIORITY"))
            for route in node.do(lambda ipr: list(ipr.get_routes(family=2, table=254)))
            if route["type"] == 6
        ]

    daemon = node.start("--ip-blackhole-route").is_ready()
    own = daemon.key.partition("-")[0]
    assert blackholes() == [(own, 24, 0xFFFFFFFF)]
    daemon.stop()
    assert blackholes()
    node.start().is_ready()
    assert blackholes() == []


def test_no_connection_of_a_pod_is_lost_over_ten_restarts(nft_node, make_namespace):
    node, cluster = nft_node, nft_node.cluster
    daemon = node.start("--ip-masq").is_ready()
    pod = make_pod(node, make_namespace(), daemon.subnet_env["FLANNEL_SUBNET"])
    server = cluster.namespace.run(socket.create_server, (HUB, ECHO_PORT))
    seen = set()

    def serve():
        while True:
            try:
                connection, peer = server.accept()
            except OSError:
                return
            seen.add(peer[0])
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    lasting = pod.run(socket.create_connection, (HUB, ECHO_PORT), 5)
    made, stop = [], threading.Event()

    def connect_again_and_again():
        while not stop.is_set():
            with pod.run(socket.create_connection, (HUB, ECHO_PORT), 5) as connection:
                ask(connection)
            made.append(time.monotonic())

    asking = threading.Thread(target=connect_again_and_again)
    asking.start()
    try:
        for _ in range(10):
            node.daemons[-1].stop()
            node.start("--ip-masq").is_ready()
            ask(lasting)
            assert asking.is_alive()
    finally:
        stop.set()
        asking.join()
        lasting.close()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    assert seen == {node.address}
    assert len(made) > 100


def echo(connection):
    with connection:
        while data := connection.recv(100):
            connection.sendall(data)


def ask(connection):
    connection.sendall(b"still there?")
    assert connection.recv(100) == b"still there?"


def make_pod(node, namespace, subnet):
    """A pod as the plugin wires one: its only way leads over the bridge's address, the node forwards."""
    gateway = subnet.partition("/")[0]
    address = f"{gateway.rpartition('.')[0]}.10"

    def near():
        with IPRoute() as ipr:
            ipr.link("add", ifname="cni0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": namespace.path})
            index = ipr.link_lookup(ifname="cni0")[0]
            ipr.addr("add", index=index, address=gateway, prefixlen=24)
            ipr.link("set", index=index, state="up")

    def far():
        with IPRoute() as ipr:
            index = ipr.link_lookup(ifname="eth0")[0]
            ipr.addr("add", index=index, address=address, prefixlen=24)
            ipr.link("set", index=index, state="up")
            ipr.route("add", dst="0.0.0.0/0", gateway=gateway)

    node.namespace.run(near)
    namespace.run(far)
    return namespace
