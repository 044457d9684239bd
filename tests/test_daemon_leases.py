"""What becomes of the lease of a running `flanneld` on a real etcd."""

import os
import signal
from pathlib import Path

import pytest

from tests.test_daemon import CONFIG, PREFIX, cluster, empty_cluster, leads_to, vtep_mac
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

OTHER = (
    '{"PublicIP":"172.30.7.7","PublicIPv6":null,"BackendType":"vxlan",'
    '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
)


def test_a_subnet_that_another_node_takes_is_left_to_it_and_had_again_when_it_frees(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first, second = one.start().is_ready(), two.start().is_ready()
    wait_until(lambda: leads_to(one, two, second.key))
    key, ours = f"{PREFIX}/subnets/{first.key}", cluster.leases()[first.key]
    before = one.routes()
    cluster.ctl("put", key, OTHER)
    first.says(f"lease is another node's: lease {first.key} is held by 172.30.7.7")
    status, told = first.ask("/readyz")
    assert status == 503
    assert f"lease: {first.key} is held by 172.30.7.7: our pods stay as they are" in told
    assert first.ask("/healthz")[0] == 200
    assert one.routes() == before
    assert cluster.leases()[first.key] == OTHER
    cluster.ctl("del", key)
    wait_until(lambda: cluster.leases().get(first.key) == ours)
    wait_until(lambda: first.ask("/readyz")[0] == 200)
    assert first.process.poll() is None


def test_a_second_node_with_our_address_says_who_holds_it(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first = one.start("--public-ip=172.30.0.99").is_ready()
    second = two.start("--public-ip=172.30.0.99")
    second.says(f"another node that runs has our public address and holds lease {first.key}, ")
    assert not second.subnet_file.exists()
    assert list(cluster.leases()) == [first.key]
    # The first one goes for good, with all that it has.
    assert first.stop() == 0
    second.is_ready()
    assert second.key == first.key


def cpu_seconds(daemon):
    """What the daemon has used so far, in user and kernel mode (proc(5))."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


FAULTS = {
    "killed": (lambda etcd: etcd.stop(), lambda etcd: etcd.start()),
    "stopped": (lambda etcd: etcd.stop(signal.SIGTERM), lambda etcd: etcd.start()),
    "frozen": (lambda etcd: etcd.signal(signal.SIGSTOP), lambda etcd: etcd.signal(signal.SIGCONT)),
    "empty": (lambda etcd: None, lambda etcd: etcd.forget_everything()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_becomes_of_the_store_costs_no_peer_and_no_lease(cluster, fault):
    nodes = cluster.add_node(), cluster.add_node()
    daemons = [node.start().is_ready() for node in nodes]
    wait_until(lambda: leads_to(*nodes, daemons[1].key) and leads_to(*reversed(nodes), daemons[0].key))
    before, routes, used = cluster.leases(), [node.routes() for node in nodes], [cpu_seconds(one) for one in daemons]
    make, undo = FAULTS[fault]
    cluster.namespace.run(make, cluster.etcd)
    for node, table in zip(nodes, routes, strict=True):
        assert node.routes() == table
    cluster.namespace.run(undo, cluster.etcd)
    if fault == "empty":
        cluster.set_config(CONFIG)
    wait_until(lambda: cluster.leases() == before)
    assert leads_to(*nodes, daemons[1].key)
    assert leads_to(*reversed(nodes), daemons[0].key)
    assert [node.routes() for node in nodes] == routes
    assert all(now - then < 2.0 for now, then in zip(map(cpu_seconds, daemons), used, strict=True))
    assert all(daemon.process.poll() is None for daemon in daemons)


def test_a_store_without_space_is_explained_and_costs_nothing(cluster):
    nodes = cluster.add_node(), cluster.add_node()
    daemons = [node.start().is_ready() for node in nodes]
    wait_until(lambda: leads_to(*nodes, daemons[1].key))
    cluster.stop_etcd()
    # So small that the first write is too much, and the alarm is raised; it is not healthy before that is off.
    cluster.etcd.extra = ("--quota-backend-bytes=16384",)
    cluster.namespace.run(cluster.etcd.launch)
    third = cluster.add_node().start()
    third.says("its database is full: compact and defragment it, then `etcdctl alarm disarm`")
    assert leads_to(*nodes, daemons[1].key)
    cluster.stop_etcd()
    cluster.etcd.extra = ()
    cluster.namespace.run(cluster.etcd.launch)
    cluster.ctl("--dial-timeout=20s", "--command-timeout=20s", "alarm", "disarm")
    third.is_ready()


def test_node_whose_mac_somebody_publishes_takes_a_new_one_and_stays_within_reach(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first, second = one.start().is_ready(), two.start().is_ready()
    wait_until(lambda: leads_to(two, one, first.key))
    key, mac = first.key, vtep_mac(one)
    cluster.ctl("put", f"{PREFIX}/subnets/10.5.250.0-24", OTHER.replace("7a:e3:ab:24:37:fb", mac))
    first.says("another node has our VTEP's MAC, so a new one was taken and published")
    wait_until(lambda: vtep_mac(one) != mac and leads_to(two, one, key) and leads_to(one, two, second.key))
    # Either node reaches the other owner of the MAC as well, and nobody is skipped.
    for node in (one, two):
        wait_until(lambda node=node: node.fdb(node.index("flannel.1")).get(mac) == "172.30.7.7")
        wait_until(lambda node=node: "10.5.250.0/24" in node.routes())
    assert second.log.count("leases skipped") == 0
    taken = vtep_mac(one)
    assert first.stop() == 0
    again = one.start().is_ready()
    assert (again.key, vtep_mac(one)) == (key, taken)


def test_cloned_machines_come_to_have_macs_of_their_own(cluster):
    nodes = [cluster.add_node() for _ in range(3)]
    for node in nodes[:2]:
        node.make_vxlan(mac="02:00:00:00:00:01", vxlan_local=node.address)  # as Go flannel left it on both
    keys = [node.start().is_ready().key for node in nodes]
    for node in nodes:
        for other, key in zip(nodes, keys, strict=True):
            if node is not other:
                wait_until(lambda node=node, other=other, key=key: leads_to(node, other, key))
    assert len({vtep_mac(node) for node in nodes}) == 3
