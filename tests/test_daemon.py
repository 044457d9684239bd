"""The real `flanneld` executable, each in a namespace of its own, on a real etcd; what others see of them."""

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyroute2 import IPRoute

from flanneld_py.kernel.guard_table import read_guards
from flanneld_py.kernel.nf_tables_socket import has_nf_tables
from tests.host import IPV4, Host
from tests.pod_packets import Echo, ask, pod_address
from tests.store.etcd_server import EtcdServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]

FLANNELD = Path(sys.executable).with_name("flanneld")
CONFIG = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'
PREFIX = "/coreos.com/network"
HUB = "172.30.0.1"
HEALTH_PORT = 8471


class HubEtcd(EtcdServer):
    """An etcd that the nodes reach over the underlay."""

    @property
    def url(self):
        return f"http://{HUB}:{self.port}"


class Cluster:
    """An underlay, a bridge in a namespace that also holds etcd, and the nodes on it."""

    def __init__(self, make_namespace, folder):
        self._make_namespace = make_namespace
        self.folder = folder
        self.namespace = make_namespace()
        hub = self.hub = Hub(self.namespace)
        hub.make_bridge()
        self.etcd = HubEtcd(folder / "etcd")
        self.etcd.folder.mkdir()
        self.nodes = []

    def start_etcd(self):
        self.namespace.run(self.etcd.start)

    def stop_etcd(self):
        self.namespace.run(self.etcd.stop)

    def ctl(self, *words):
        return self.namespace.run(self.etcd.ctl, *words)

    def set_config(self, text):
        self.ctl("put", f"{PREFIX}/config", text)

    def leases(self):
        told = json.loads(self.ctl("get", "--prefix", f"{PREFIX}/subnets/", "-w", "json"))
        records = {}
        for record in told.get("kvs", []):
            key, value = (base64.b64decode(record[name]).decode() for name in ("key", "value"))
            records[key.rpartition("/")[2]] = value
        return records

    def add_node(self):
        node = Node(self, len(self.nodes) + 11, self._make_namespace())
        self.nodes.append(node)
        return node

    def close(self):
        for node in self.nodes:
            node.close()
        self.stop_etcd()


class Hub:
    def __init__(self, namespace):
        self.namespace = namespace

    def make_bridge(self):
        def make():
            with IPRoute() as ipr:
                ipr.link("set", index=ipr.link_lookup(ifname="lo")[0], state="up")
                ipr.link("add", ifname="br0", kind="bridge", state="up")
                ipr.addr("add", index=ipr.link_lookup(ifname="br0")[0], address=HUB, prefixlen=16)

        self.namespace.run(make)

    def plug_in(self, name, namespace):
        def make():
            with IPRoute() as ipr:
                ipr.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": namespace.path})
                index = ipr.link_lookup(ifname=name)[0]
                ipr.link("set", index=index, master=ipr.link_lookup(ifname="br0")[0], state="up")

        self.namespace.run(make)


class Node(Host):
    """A node on the underlay, without a daemon at first."""

    def __init__(self, cluster, number, namespace):
        self.cluster = cluster
        self.number = number
        self.address = f"172.30.0.{number}"
        self.folder = cluster.folder / f"node{number}"
        self.daemons = []
        cluster.hub.plug_in(f"node{number}", namespace)
        super().__init__(namespace)

    def _make_uplink(self, ipr):
        ipr.link("set", index=ipr.link_lookup(ifname="lo")[0], state="up")
        uplink = ipr.link_lookup(ifname="eth0")[0]
        ipr.link("set", index=uplink, state="up")
        ipr.addr("add", index=uplink, address=self.address, prefixlen=16)
        ipr.route("add", dst="default", gateway=HUB)

    def start(self, *words, folder=None, **environ):
        daemon = Daemon(self, folder or self.folder, words, environ)
        self.daemons.append(daemon)
        return daemon

    def close(self):
        for daemon in self.daemons:
            daemon.kill()
        super().close()


class Daemon:
    """A running flanneld, and its log as it comes."""

    def __init__(self, node, folder, words, environ):
        self.node = node
        self.subnet_file = folder / "subnet.env"
        command = [
            FLANNELD,
            f"--etcd-endpoints={node.cluster.etcd.url}",
            f"--subnet-file={self.subnet_file}",
            f"--healthz-port={HEALTH_PORT}",
            *words,
        ]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FLANNELD_")}
        self.process = node.namespace.run(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=clean | environ,
            )
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def log(self):
        return "".join(self.lines)

    def says(self, text):
        def said():
            if text not in self.log:
                assert self.process.poll() is None, f"flanneld ended without saying {text!r}:\n{self.log}"
                return False
            return True

        try:
            wait_until(said)
        except AssertionError as error:
            raise AssertionError(f"flanneld did not say {text!r}:\n{self.log}") from error

    def is_ready(self):
        self.says("ready: subnet_file=")
        return self

    def stop(self, sign=signal.SIGTERM):
        self.process.send_signal(sign)
        return self.wait()

    def wait(self):
        status = self.process.wait(20)
        self._reader.join()
        self.process.stderr.close()
        return status

    @contextmanager
    def standing_still(self):
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        if not self.process.stderr.closed:
            self.wait()

    def ask(self, path):
        def get():
            connection = http.client.HTTPConnection("127.0.0.1", HEALTH_PORT, timeout=10)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()

        return self.node.namespace.run(get)

    @property
    def subnet_env(self):
        return dict(line.split("=", 1) for line in self.subnet_file.read_text().splitlines())

    @property
    def key(self):
        address, _, length = self.subnet_env["FLANNEL_SUBNET"].partition("/")
        return f"{address.rpartition('.')[0]}.0-{length}"


@pytest.fixture
def empty_cluster(make_namespace, tmp_path):
    """A cluster whose etcd does not run yet."""
    cluster = Cluster(make_namespace, tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(empty_cluster):
    empty_cluster.start_etcd()
    empty_cluster.set_config(CONFIG)
    return empty_cluster


def vtep_mac(node):
    return node.link("flannel.1").get_attr("IFLA_ADDRESS")


def leads_to(node, other, key):
    """Whether a node's kernel sends what is for the other's subnet through the tunnel to the other."""
    device = node.index("flannel.1")
    base = key.partition("-")[0]
    mac = vtep_mac(other)
    return (
        node.fdb(device).get(mac) == other.address
        and node.neighbours(device).get(base) == mac
        and node.routes(IPV4).get(f"{base}/24") == (119, base, device, True)
    )


def test_two_nodes_reach_each_other(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first, second = one.start().is_ready(), two.start().is_ready()
    wait_until(lambda: leads_to(one, two, second.key) and leads_to(two, one, first.key))
    assert first.subnet_env == {
        "FLANNEL_NETWORK": "10.5.0.0/16",
        "FLANNEL_SUBNET": first.key.replace(".0-", ".1/"),
        "FLANNEL_MTU": "1450",
        "FLANNEL_IPMASQ": "false",
    }
    assert cluster.leases() == {
        daemon.key: (
            f'{{"PublicIP":"{node.address}","PublicIPv6":null,"BackendType":"vxlan",'
            f'"BackendData":{{"VNI":1,"VtepMAC":"{vtep_mac(node)}"}}}}'
        )
        for node, daemon in ((one, first), (two, second))
    }
    assert one.addresses(one.index("flannel.1")) == {first.key.replace("-24", "/32")}
    assert Path(f"/proc/{first.process.pid}/ns/net").samefile(one.namespace.path)


def test_stopping_is_at_once_and_leaves_all_in_place(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    first, second = one.start().is_ready(), two.start().is_ready()
    wait_until(lambda: leads_to(one, two, second.key))
    before = cluster.leases()
    assert first.stop() == 0
    assert "stopped by signal; what was programmed stays" in first.log
    assert leads_to(one, two, second.key)
    assert cluster.leases() == before
    assert first.subnet_file.exists()
    assert second.stop(signal.SIGINT) == 0


def test_restart_keeps_subnet_and_mac_and_device(cluster):
    node = cluster.add_node()
    first = node.start().is_ready()
    key, mac, device, leases = first.key, vtep_mac(node), node.index("flannel.1"), cluster.leases()
    for sign in (signal.SIGTERM, signal.SIGKILL):
        node.daemons[-1].stop(sign)
        again = node.start().is_ready()
        assert (again.key, vtep_mac(node), node.index("flannel.1")) == (key, mac, device)
        assert cluster.leases() == leases
    # After a reboot neither the device nor the file is there.
    again.stop()
    node.do(lambda ipr: ipr.link("del", index=device))
    again.subnet_file.unlink()
    again = node.start().is_ready()
    assert (again.key, vtep_mac(node)) == (key, mac)


def test_subnet_file_that_somebody_removes_is_written_again(cluster):
    daemon = cluster.add_node().start().is_ready()
    before = daemon.subnet_env
    daemon.subnet_file.unlink()
    daemon.says("subnet file written again")
    assert daemon.subnet_env == before


def test_folder_of_its_files_that_somebody_removes_is_made_again(cluster):
    daemon = cluster.add_node().start().is_ready()
    folder, before = daemon.subnet_file.parent, daemon.subnet_env
    sockets = {path.name for path in folder.iterdir() if path.is_socket() or path.is_fifo()}
    shutil.rmtree(folder)
    wait_until(lambda: folder.is_dir() and {path.name for path in folder.iterdir()} >= {*sockets, "subnet.env"})
    assert daemon.subnet_env == before


def test_a_peer_that_comes_and_goes(cluster):
    node = cluster.add_node()
    node.start().is_ready()
    device = node.index("flannel.1")
    value = (
        '{"PublicIP":"172.30.7.7","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
    )
    cluster.ctl("put", f"{PREFIX}/subnets/10.5.250.0-24", value)
    wait_until(lambda: node.fdb(device) == {"7a:e3:ab:24:37:fb": "172.30.7.7"} and "10.5.250.0/24" in node.routes())
    cluster.ctl("put", f"{PREFIX}/subnets/nonsense", "x")
    cluster.ctl("put", f"{PREFIX}/subnets/10.5.250.0-24", "{broken")
    cluster.ctl("put", f"{PREFIX}/subnets/10.5.251.0-24", value.replace("7a:", "7e:"))
    wait_until(lambda: "10.5.251.0/24" in node.routes())
    assert "10.5.250.0/24" in node.routes()
    cluster.ctl("del", f"{PREFIX}/subnets/10.5.250.0-24")
    wait_until(lambda: set(node.fdb(device)) == {"7e:e3:ab:24:37:fb"} and "10.5.250.0/24" not in node.routes())


def test_waits_for_etcd_then_for_the_configuration(empty_cluster):
    node = empty_cluster.add_node()
    daemon = node.start()
    daemon.says("connection refused")
    assert daemon.ask("/healthz") == (200, "flanneld is running\n")
    status, text = daemon.ask("/readyz")
    assert (status, text.splitlines()[0]) == (503, "starting: waits for a configuration in the store")
    assert "connection refused" in text
    assert not daemon.subnet_file.exists()
    empty_cluster.start_etcd()
    daemon.says("waiting: for=configuration reason=there is none yet in the store")
    assert daemon.ask("/readyz")[1].splitlines()[0] == "starting: waits for a configuration in the store"
    uplink = node.index("eth0")
    node.do(lambda ipr: ipr.link("set", index=uplink, state="down"))
    node.do(lambda ipr: ipr.link("set", index=uplink, state="up"))  # without its default route
    empty_cluster.set_config(CONFIG)
    daemon.says("waiting: for=uplink")
    assert (
        "starting: waits for an uplink\nwaiting: for=uplink reason=there is no default route"
        in daemon.ask("/readyz")[1]
    )
    node.do(lambda ipr: ipr.route("add", dst="default", gateway=HUB))
    daemon.is_ready()
    assert daemon.ask("/readyz") == (200, "flanneld is ready\n")
    assert "Traceback" not in daemon.log


BAD_CONFIGURATIONS = {
    '{"Network":': "config: it is no JSON",
    '{"Backend":{"Type":"vxlan"}}': 'Network: it is missing; expected a prefix like "10.5.0.0/16"',
    '{"Network":"10.5.0.0/16","SubnetLen":17,"Backend":{"Type":"vxlan"}}': (
        "SubnetLen: 17 does not fit the network 10.5.0.0/16; expected 18 to 30"
    ),
    '{"Network":"10.5.0.0/16","Backend":{"Type":"pigeon"}}': (
        "Backend.Type: 'pigeon' is not known here; expected one of: "
    ),
}


def test_bad_configurations_are_told_and_a_good_one_gets_it_going(cluster):
    node = cluster.add_node()
    daemon = None
    for text, told in BAD_CONFIGURATIONS.items():
        cluster.set_config(text)
        daemon = daemon or node.start()
        daemon.says(f"waiting: for=a better configuration reason={told}")
        [line] = [line for line in daemon.lines if told in line]
        assert " ERROR " in line
    assert daemon.ask("/readyz")[0] == 503
    cluster.set_config(CONFIG)
    daemon.is_ready()
    assert daemon.log.count(" ERROR ") == len(BAD_CONFIGURATIONS)


def test_stops_at_once_while_it_waits(empty_cluster):
    daemon = empty_cluster.add_node().start()
    daemon.says("connection refused")
    assert daemon.stop() == 0


def test_etcd_that_goes_away_and_comes_back(cluster):
    node = cluster.add_node()
    daemon = node.start().is_ready()
    device, state = node.index("flannel.1"), node.routes()
    cluster.stop_etcd()
    daemon.says("connection refused")
    assert (node.index("flannel.1"), node.routes()) == (device, state)
    assert daemon.process.poll() is None
    cluster.start_etcd()
    value = (
        '{"PublicIP":"172.30.7.7","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
    )
    cluster.ctl("put", f"{PREFIX}/subnets/10.5.250.0-24", value)
    wait_until(lambda: "10.5.250.0/24" in node.routes())


def test_lease_that_is_deleted_is_had_again_with_the_same_subnet(cluster):
    daemon = cluster.add_node().start().is_ready()
    before = cluster.leases()
    cluster.ctl("del", f"{PREFIX}/subnets/{daemon.key}")
    wait_until(lambda: cluster.leases() == before)
    daemon.says(f"lease written anew: key={daemon.key}")


def test_second_daemon_waits_for_the_first_to_leave_the_device(cluster):
    node = cluster.add_node()
    first = node.start().is_ready()
    second = node.start("--healthz-port=0", folder=cluster.folder / "second")
    second.says(f"waiting: for=device flannel.1 reason=another flanneld (pid {first.process.pid}) holds flannel.1")
    assert not second.subnet_file.exists()
    device = node.index("flannel.1")
    assert first.stop() == 0
    second.is_ready()
    assert (second.key, node.index("flannel.1")) == (first.key, device)


def test_two_networks_on_the_same_nodes(cluster):
    nodes = one, two = cluster.add_node(), cluster.add_node()
    cluster.ctl("put", "/second/config", '{"Network":"10.7.0.0/16","Backend":{"Type":"vxlan","VNI":2}}')
    first = [node.start() for node in nodes]
    words = ("--etcd-prefix=/second", "--healthz-port=0")
    second = [node.start(*words, folder=cluster.folder / f"second{node.number}") for node in nodes]
    for device, daemons in (("flannel.1", first), ("flannel.2", second)):
        for node, daemon in zip(nodes, daemons, strict=True):
            daemon.is_ready()
            assert node.addresses(node.index(device)) == {daemon.key.replace("-24", "/32")}
        # What one network carries, the other does not.
        base = daemons[1].key.partition("-")[0]
        wait_until(lambda: one.routes().get(f"{base}/24", ())[1:3] == (base, one.index(device)))  # noqa: B023
        wait_until(lambda: f"{daemons[0].key.partition('-')[0]}/24" in two.routes())  # noqa: B023
        source, target = (pod_address(node, daemon, IPV4) for node, daemon in zip(nodes, daemons, strict=True))
        with Echo(two, IPV4, target):
            assert ask(one, source, IPV4, target) == b"first"
    assert second[0].subnet_env["FLANNEL_NETWORK"] == "10.7.0.0/16"
    assert first[0].process.poll() is second[0].process.poll() is None


@pytest.mark.skipif(not has_nf_tables(), reason="this kernel has no nf_tables: modprobe nf_tables")
def test_daemons_of_two_networks_leave_each_others_guard_alone(cluster):
    node = cluster.add_node()
    cluster.ctl("put", "/second/config", '{"Network":"10.7.0.0/16","Backend":{"Type":"vxlan","VNI":2}}')
    words, folder = ("--etcd-prefix=/second", "--healthz-port=0"), cluster.folder / "second"
    first = node.start().is_ready()
    first.says("guard armed")
    for _ in range(2):
        second = node.start(*words, folder=folder).is_ready()
        second.says("guard armed")
        assert second.stop() == 0
    assert node.namespace.run(read_guards) == {"flannel.1", "flannel.2"}
    assert first.log.count("guard armed") == 1


def test_control_socket_tells_the_status(cluster):
    daemon = cluster.add_node().start().is_ready()
    path = daemon.subnet_file.with_suffix(".sock")
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"status\n")
        told = json.loads(client.makefile().readline())
    assert told["ready"] is True
    assert told["lease"]["key"] == daemon.key
    assert told["uplink"]["name"] == "eth0"


def test_metrics_are_read_by_prometheus_own_parser(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    cluster.ctl("put", f"{PREFIX}/subnets/10.9.9.0-24", '{"PublicIP":"172.30.9.9"}')
    cluster.ctl("put", f"{PREFIX}/subnets/nonsense", "x")
    first, second = one.start().is_ready(), two.start().is_ready()
    wait_until(lambda: leads_to(one, two, second.key))
    one.do(lambda ipr: ipr.route("del", dst=second.key.replace("-", "/")))
    wait_until(lambda: leads_to(one, two, second.key))
    status, text = first.ask("/metrics")
    assert status == 200
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["flanneld_ready",] == found["flanneld_healthy",] == found["flanneld_store_up",] == 1
    assert found["flanneld_peers",] == found["flanneld_leases", "peer"] == 1
    assert found["flanneld_skipped_leases", "outside network"] == 1
    assert found["flanneld_skipped_leases", "unreadable"] == 1
    assert found["flanneld_drift_total", "route"] >= 1
    assert found["flanneld_reconcile_duration_seconds_count",] >= 2
    assert found["flanneld_store_call_duration_seconds_count", "Range"] >= 1
    assert 86_000 < found["flanneld_lease_remaining_seconds",] <= 86_400
    assert found["flanneld_tunnel_packets_total", "flannel.1", "receive"] == 0
    assert 10e6 < found["process_resident_memory_bytes",] < 200e6
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "metrics"], input=text, text=True, check=True, capture_output=True)


def test_every_line_of_a_whole_life_is_json(cluster):
    node = cluster.add_node()
    daemon = node.start("--log-format=json", "-v=10")
    wait_until(lambda: '"event": "ready"' in daemon.log)
    cluster.ctl("put", f"{PREFIX}/subnets/nonsense", "x")
    node.do(lambda ipr: ipr.link("del", index=node.index("flannel.1")))
    wait_until(lambda: '"event": "leases skipped"' in daemon.log and daemon.log.count('"event": "device made"') == 2)
    daemon.stop()
    told = [json.loads(line) for line in daemon.lines]
    assert {"debug", "info", "warning"} <= {line["level"] for line in told}
    assert all(line["event"] and line["time"] for line in told)


def test_ten_thousand_leases_are_a_handful_of_lines(cluster):
    value = (
        '{"PublicIP":"172.30.%d.%d","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"02:01:00:00:%02x:%02x"}}'
    )
    cluster.set_config('{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}')
    # Half of them are skipped: their subnets lie outside the network.
    puts = [
        f"put {PREFIX}/subnets/{10 + index % 2}.{index >> 8}.{index & 255}.0-24 "
        + json.dumps(value % (128 + (index >> 8), index & 255, index >> 8, index & 255))
        for index in range(10_000)
    ]
    for start in range(0, len(puts), 100):
        cluster.namespace.run(cluster.etcd.transact, puts[start : start + 100])
    node = cluster.add_node()
    daemon = node.start().is_ready()
    daemon.says("leases skipped: count=")
    _, text = daemon.ask("/metrics")
    assert 'flanneld_leases{state="peer"} 5000' in text
    assert 'flanneld_leases{state="skipped"} 5000' in text
    assert daemon.stop() == 0
    assert len(daemon.lines) < 20


def test_secrets_are_neither_in_the_log_nor_in_the_status(cluster):
    secret = "correct-horse-battery-staple"  # noqa: S105 - a test's
    daemon = cluster.add_node().start("--v=9", "--etcd-username=root", FLANNELD_ETCD_PASSWORD=secret).is_ready()
    assert daemon.stop() == 0
    assert secret not in daemon.log


def test_vandalism_is_mended(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    one.start().is_ready()
    second = two.start().is_ready()
    wait_until(lambda: leads_to(one, two, second.key))
    mac = vtep_mac(one)
    one.do(lambda ipr: ipr.link("del", index=one.index("flannel.1")))
    wait_until(lambda: one.index("flannel.1") is not None and leads_to(one, two, second.key))
    assert vtep_mac(one) == mac


def test_systemd_is_told_when_it_is_ready(cluster, tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(20)
        daemon = cluster.add_node().start(NOTIFY_SOCKET=str(path))
        assert listener.recv(100) == b"READY=1"
        assert daemon.subnet_file.exists()


def test_change_of_backend_at_restart_leaves_nothing_of_the_former_one(cluster):
    nodes = [cluster.add_node(), cluster.add_node()]
    for node in nodes:
        node.ip("link add flannel.99 type vxlan id 99 dstport 4099 dev eth0")  # another network's
        node.ip("addr add 10.99.1.0/32 dev flannel.99")
        node.ip("nexthop add id 0x46700099 via 172.30.0.99 dev eth0 proto zebra")
        node.ip("route add 10.99.2.0/24 nhid 0x46700099 proto zebra")
    changes = (
        ('{"Type":"vxlan"}', {"flannel.1"}, 0x461),
        ('{"Type":"vxlan","VNI":7,"DirectRouting":true}', {"flannel.7"}, 0x467),
        ('{"Type":"host-gw"}', set(), 0x460),
        ('{"Type":"vxlan","VNI":7,"Port":4789}', {"flannel.7"}, 0x467),
        ('{"Type":"alloc"}', set(), None),
        ('{"Type":"host-gw"}', set(), 0x460),
        ('{"Type":"vxlan"}', {"flannel.1"}, 0x461),
    )
    keys = None
    for backend, devices, ids in changes:
        cluster.set_config(f'{{"Network":"10.5.0.0/16","Backend":{backend}}}')
        for node in nodes:
            if node.daemons:
                node.daemons[-1].stop()
            node.start().is_ready()
        for node, other in (nodes, nodes[::-1]):
            subnet = other.daemons[-1].key.replace("-", "/")
            wait_until(lambda node=node, devices=devices: own_devices(node) == devices | {"flannel.99"})
            wait_until(lambda node=node, ids=ids: {ident >> 20 for ident in own_nexthops(node)} == {ids} - {None})
            wait_until(lambda node=node, subnet=subnet, ids=ids: (subnet in node.routes()) == (ids is not None))
            assert "10.99.2.0/24" in node.routes()
        keys = keys or set(cluster.leases())
        assert set(cluster.leases()) == keys


def own_devices(node):
    return {name for link in node.ip("-json link show") if (name := link["ifname"]).startswith("flannel")}


def own_nexthops(node):
    return {entry["id"] for entry in node.ip("-json nexthop show") if entry.get("protocol") != "zebra"}
