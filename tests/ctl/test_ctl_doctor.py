"""Each check: something is broken for real on a node, the finding comes; it is mended as the finding says, it goes."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.ctl.test_ctl_node import make_bridge_with_port
from tests.ctl.test_ctl_node import run as run_ctl
from tests.test_daemon import CONFIG, PREFIX, cluster, empty_cluster, leads_to
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]


class Patient:
    """A node with a daemon, a peer, and the folders of CNI."""

    def __init__(self, cluster, folder, *flags):
        self.cluster = cluster
        self.flags = flags
        self.node, self.peer = cluster.add_node(), cluster.add_node()
        self.bin, self.conf = folder / "bin", folder / "net.d"
        self._dirs = [f"--bin-dir={self.bin}", f"--conf-dir={self.conf}"]
        command = [Path(sys.executable).with_name("flannelctl"), "cni", "install", *self._dirs]
        subprocess.run(command, check=True, capture_output=True)
        self.start_daemon()
        self.key = self.peer.start(*flags).is_ready().key
        wait_until(lambda: leads_to(self.node, self.peer, self.key))

    def start_daemon(self):
        self.daemon = self.node.start(*self.flags).is_ready()

    def look(self, *words, wrapper=(), environ=None):
        """Run doctor; returns its findings by check."""
        words = ["doctor", "--json", f"--etcd-endpoints={self.cluster.etcd.url}", *self._dirs, *words]
        status, text, errors = run_ctl(self.node, *words, wrapper=wrapper, environ=environ)
        assert not errors
        found, self.not_checked = json.loads(text)["findings"], json.loads(text)["not_checked"]
        assert status == (3 if found else 0)
        return {finding["check"]: finding for finding in found}

    def shell(self, *commands, node=None):
        for command in commands:
            words = ["/bin/sh", "-c", command]
            where = (node or self.node).namespace
            done = where.run(lambda: subprocess.run(words, capture_output=True, text=True, check=False))  # noqa: B023
            assert done.returncode == 0, f"{command}: {done.stderr}"

    def mend(self, finding):
        """Do what a finding says, as an operator would whose flannelctl reaches etcd."""
        program = f"FLANNELD_ETCD_ENDPOINTS={self.cluster.etcd.url} {Path(sys.executable).with_name('flannelctl')}"
        for command in finding["mend"]:
            on_peer = f"on {self.peer.address}: "
            if command == "systemctl restart flanneld":
                self.start_daemon()
            elif command.startswith(on_peer):
                self.shell(command.removeprefix(on_peer), node=self.peer)
            elif not command.startswith("let "):
                self.shell(command.replace("flannelctl", program))

    def stop_daemon(self):
        self.daemon.stop()


@pytest.fixture
def patient(cluster, tmp_path):
    return Patient(cluster, tmp_path)


def needs(program):
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: apt-get install {program}")


SETTINGS = {
    "ip-forward": "sysctl -w net/ipv4/ip_forward=0",
    "rp-filter": "sysctl -w net/ipv4/conf/flannel.1/rp_filter=0 net/ipv4/conf/all/rp_filter=1",
    "bridge-nf": "sysctl -w net/bridge/bridge-nf-call-iptables=0",
    "forward-policy": "iptables -P FORWARD DROP; iptables -F FLANNEL-FWD 2>/dev/null; true",
    "tunnel-port": "iptables -P INPUT DROP",
}


@pytest.mark.parametrize(("check", "command"), SETTINGS.items(), ids=SETTINGS)
def test_what_is_safe_is_fixed(patient, check, command):
    needs(command.split()[0])
    if check == "bridge-nf" and not Path("/proc/sys/net/bridge").exists():
        pytest.skip("no br_netfilter: modprobe br_netfilter")
    assert patient.look() == {}
    patient.stop_daemon()  # it would mend most of it by itself
    patient.shell(command)
    found = patient.look()
    assert found.keys() == {"daemon", check}
    assert found[check]["safe"]
    assert patient.look("--fix").keys() == {"daemon"}


def break_port(patient):
    needs("iptables")
    patient.shell("iptables -A INPUT -p udp --dport 8472 -j DROP")


def break_chain(patient):
    needs("nft")
    patient.shell(
        "nft add table inet guard",
        "nft 'add chain inet guard passing { type filter hook forward priority 0; policy drop; }'",
    )


def break_mtu(patient):
    patient.shell("ip link set dev eth0 mtu 1400")


def break_overlap(patient):
    patient.shell("ip link add docker0 type bridge", "ip address add 10.5.77.1/24 dev docker0")


def break_stale(patient):
    patient.shell("ip link add flannel.9 type vxlan id 9 dev eth0 dstport 8479", "ip link set flannel.9 up")


def break_bridge(patient):
    patient.shell("ip link add cni0 type bridge", "ip address add 10.77.9.1/24 dev cni0")


def break_pod_mtu(patient):
    make_bridge_with_port(patient.node)
    give_gateway(patient)


def break_gateway(patient):
    make_bridge_with_port(patient.node)
    patient.shell("ip link set pod0 mtu 1450")


def break_bridge_state(patient):
    break_gateway(patient)
    give_gateway(patient)
    patient.shell("ip link set cni0 down")


def give_gateway(patient):
    patient.shell(f"ip address add {patient.daemon.subnet_env['FLANNEL_SUBNET']} dev cni0")


def break_port_of_pod(patient):
    far = patient.peer.namespace.path
    patient.shell(
        "ip link add cni0 type bridge",
        f"ip link add pod0 mtu 1450 type veth peer name pod1 netns {far}",
        "ip link set pod0 alias cbr0/c1/eth0",
        "ip link set cni0 up",
    )
    give_gateway(patient)


def break_conflist(patient):
    (patient.conf / "10-flannel.conflist").unlink()


def break_plugin(patient):
    (patient.bin / "flannel").unlink()


def break_order(patient):
    (patient.conf / "00-other.conf").write_text('{"type": "bridge"}')


def break_lease(patient):
    patient.cluster.ctl("put", f"{PREFIX}/subnets/nonsense", "x")
    wait_until(lambda: "nonsense" in run_ctl(patient.node, "status")[1])


BREAKS = {
    "tunnel-port": break_port,
    "forward-chain": break_chain,
    "overlap": break_overlap,
    "stale-device": break_stale,
    "bridge-address": break_bridge,
    "pod-mtu": break_pod_mtu,
    "pod-bridge": break_port_of_pod,
    "bridge-gateway": break_gateway,
    "bridge-down": break_bridge_state,
    "cni-configuration": break_conflist,
    "cni-plugin": break_plugin,
    "cni-order": break_order,
    "skipped-lease": break_lease,
}


@pytest.mark.parametrize(("check", "break_it"), BREAKS.items(), ids=BREAKS)
def test_what_is_found_goes_by_the_commands_that_it_names(patient, check, break_it):
    break_it(patient)
    found = patient.look()
    assert found.keys() == {check}
    patient.mend(found[check])
    wait_until(lambda: patient.look() == {})


@pytest.fixture
def probing(cluster, tmp_path):
    patient = Patient(cluster, tmp_path, "--probe-interval=1")
    wait_until(lambda: not patient.look() and not patient.not_checked)
    return patient


def test_a_tunnel_that_a_firewall_on_the_other_node_cuts(probing):
    needs("iptables")
    probing.shell("iptables -A INPUT -p udp --dport 8472 -j DROP", node=probing.peer)
    wait_until(lambda: probing.look().keys() == {"tunnel-cut"}, 40)
    finding = probing.look()["tunnel-cut"]
    assert probing.peer.address in finding["evidence"]
    probing.mend(finding)
    wait_until(lambda: probing.look() == {}, 40)


def test_a_path_that_loses_large_packets(probing):
    needs("iptables")
    for node in (probing.node, probing.peer):
        probing.shell("iptables -A INPUT -p udp -m length --length 1401:65535 -j DROP", node=node)
    wait_until(lambda: "underlay: 1400 bytes" in probing.look().get("path-mtu", {"evidence": ""})["evidence"], 40)
    finding = probing.look()["path-mtu"]
    assert finding["mend"] == ["flannelctl net set Backend.MTU=1400"]
    probing.mend(finding)
    wait_until(lambda: probing.look() == {}, 40)


def test_what_cannot_be_told_without_probes_is_said_and_is_no_finding(patient):
    assert patient.look() == {}
    assert "--probe-interval" in patient.not_checked[0]


def test_peers_that_answer_no_probe_are_said_and_are_no_finding(probing):
    probing.peer.daemons[-1].stop()
    wait_until(lambda: probing.look() == {} and any(probing.peer.address in one for one in probing.not_checked), 40)


def test_a_clock_that_is_wrong(patient, tmp_path):
    (tmp_path / "clock").mkdir()
    ahead = "import time\nreal = time.time\ntime.time = lambda: real() + 600\n"
    (tmp_path / "clock" / "sitecustomize.py").write_text(ahead)
    found = patient.look(environ={"PYTHONPATH": str(tmp_path / "clock")})
    assert found.keys() == {"clock"}
    assert " s ahead of etcd's" in found["clock"]["evidence"]
    assert patient.look() == {}


def test_checksum_offload_on_a_kernel_that_stalls_with_it(patient):
    needs("setarch")
    needs("ethtool")
    old = ("setarch", "--uname-2.6")
    assert patient.look(wrapper=old).keys() == {"offload"}
    assert patient.look("--fix", wrapper=old) == {}


def test_a_configuration_that_cannot_be_used(patient):
    patient.cluster.set_config('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":"many"}}')
    wait_until(lambda: patient.look().keys() == {"configuration"})
    assert "Port" in patient.look()["configuration"]["evidence"]
    patient.cluster.set_config(CONFIG)
    wait_until(lambda: patient.look() == {})


def test_a_peer_that_cannot_be_reached(patient):
    value = '{"PublicIP":"192.0.2.7","PublicIPv6":null,"BackendType":"host-gw","BackendData":null}'
    patient.cluster.ctl("put", f"{PREFIX}/subnets/10.5.250.0-24", value)
    wait_until(lambda: "unreachable" in patient.look())
    patient.cluster.ctl("del", f"{PREFIX}/subnets/10.5.250.0-24")
    wait_until(lambda: patient.look() == {})


def test_a_mac_that_somebody_has_changed(patient):
    patient.stop_daemon()
    patient.shell("ip link set dev flannel.1 address 02:99:99:99:99:99")
    # With the MAC the kernel forgets the neighbours of the device, permanent ones as well.
    assert patient.look().keys() == {"daemon", "tunnel-mac", "peer-entries"}
    assert patient.look("--fix").keys() == {"daemon", "peer-entries"}
    patient.start_daemon()
    wait_until(lambda: patient.look() == {})


def test_twelve_faults_at_once_are_all_named_and_all_mended(patient):
    needs("iptables")
    patient.stop_daemon()
    patient.shell(
        "ip link set dev flannel.1 address 02:99:99:99:99:99",
        *(SETTINGS[check] for check in ("ip-forward", "rp-filter", "forward-policy")),
    )
    for break_it in (break_port, break_overlap, break_bridge, break_conflist, break_plugin, break_mtu):
        break_it(patient)
    safe = {"ip-forward", "rp-filter", "forward-policy", "tunnel-mac"}
    safe |= {"bridge-address", "cni-configuration", "cni-plugin"}
    others = {"daemon", "peer-entries", "overlap", "tunnel-mtu", "tunnel-port"}
    assert patient.look().keys() == safe | others
    left = patient.look("--fix")
    assert left.keys() == others
    for check in ("overlap", "tunnel-mtu", "tunnel-port", "peer-entries"):
        patient.mend(left[check])
    wait_until(lambda: patient.look() == {})


def test_a_daemon_that_is_gone_and_a_device_that_is_gone(patient):
    patient.stop_daemon()
    patient.shell("ip link delete flannel.1")
    assert patient.look().keys() == {"daemon", "tunnel-device"}
    patient.start_daemon()
    wait_until(lambda: patient.look() == {})


def test_a_device_that_is_down(patient):
    patient.stop_daemon()
    patient.shell("ip link set dev flannel.1 down")
    assert patient.look().keys() == {"daemon", "tunnel-down"}
    patient.start_daemon()
    wait_until(lambda: patient.look() == {})


def test_an_underlay_that_carries_less_than_the_device_takes(patient):
    patient.stop_daemon()  # it would follow
    break_mtu(patient)
    found = patient.look()
    assert found.keys() == {"daemon", "tunnel-mtu"}
    patient.mend(found["tunnel-mtu"])
    assert patient.look().keys() == {"daemon"}


def test_entries_that_are_gone(patient):
    patient.stop_daemon()
    patient.shell(f"ip neigh delete {patient.key.partition('-')[0]} dev flannel.1")
    found = patient.look()
    assert found.keys() == {"daemon", "peer-entries"}
    assert "(no neighbour)" in found["peer-entries"]["evidence"]
    patient.start_daemon()
    wait_until(lambda: patient.look() == {})


def test_an_uplink_whose_address_is_gone(patient):
    address = patient.node.address
    patient.shell(f"ip address add 172.30.77.77/16 dev eth0; ip address del {address}/16 dev eth0")
    assert "uplink-address" in patient.look() or patient.look() == {}  # a daemon that follows is well again
    patient.shell(f"ip address add {address}/16 dev eth0")
    wait_until(lambda: "uplink-address" not in patient.look())


def test_a_store_that_is_away(patient):
    patient.cluster.stop_etcd()
    wait_until(lambda: "store" in patient.look())
    patient.cluster.start_etcd()
    wait_until(lambda: patient.look() == {})


def test_a_certificate_that_ends_soon(cluster, tmp_path):
    authority = trustme.CA()
    soon = datetime.now(UTC) + timedelta(days=7, hours=1)
    authority.issue_cert("client", not_after=soon).private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    words = [f"--etcd-{name}={tmp_path / 'client.pem'}" for name in ("certfile", "keyfile")]
    node = cluster.add_node()
    node.start(*words).is_ready()
    nowhere = [f"--{name}-dir={tmp_path / name}" for name in ("bin", "conf")]
    found = json.loads(run_ctl(node, "doctor", "--json", *nowhere)[1])["findings"]
    assert [one["check"] for one in found] == ["certificate"]
    assert "client.pem ends in 7 days" in found[0]["evidence"]
