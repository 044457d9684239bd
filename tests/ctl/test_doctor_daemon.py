"""Checks of what the daemon complains of, and of what no namespace has to itself: broken for real, and mended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ctl.test_ctl_doctor import Patient, cluster, empty_cluster, needs, patient, probing
from tests.ctl.test_ctl_node import run as run_ctl
from tests.test_daemon import PREFIX
from tests.waiting import wait_until

__all__ = ["Patient", "cluster", "empty_cluster", "patient", "probing"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]


def put_peer(patient, key):
    """Have one more node, like the peer but for its addresses."""
    value = json.loads(patient.cluster.ctl("get", "--print-value-only", f"{PREFIX}/subnets/{patient.key}"))
    value["PublicIP"] = "172.30.0.99"
    value["BackendData"]["VtepMAC"] = "02:00:00:00:00:99"
    patient.cluster.ctl("put", f"{PREFIX}/subnets/{key}", json.dumps(value))


def test_a_subnet_file_that_cannot_be_written(patient):
    file = patient.daemon.subnet_file
    patient.shell(f"rm {file}; mkdir -p {file}/in-the-way")
    assert "subnet-file" in patient.look()
    patient.shell(f"rm -r {file}")
    wait_until(lambda: patient.look() == {}, 90)


def test_an_uplink_that_is_down(patient):
    patient.shell("ip link set dev eth0 down")
    found = patient.look()
    assert "uplink-down" in found
    patient.mend(found["uplink-down"])
    wait_until(lambda: patient.look() == {}, 40)


def test_a_configuration_that_waits_for_a_restart(patient):
    patient.cluster.set_config('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7}}')
    wait_until(lambda: "configuration" in patient.look())
    finding = patient.look()["configuration"]
    assert finding["severity"] == "warning"
    assert "backend.vni" in finding["evidence"].lower()
    assert finding["mend"] == ["systemctl restart flanneld"]
    patient.peer.daemons[-1].stop()
    patient.daemon.stop()
    patient.peer.start().is_ready()
    patient.mend(finding)
    wait_until(lambda: patient.look() == {})


def test_an_entry_that_the_kernel_refuses(patient):
    patient.shell("ip address add 10.5.200.0/32 dev lo")
    put_peer(patient, "10.5.200.0-24")
    wait_until(lambda: "refused-entry" in patient.look())
    found = patient.look()
    assert "10.5.200.0" in found["refused-entry"]["evidence"]
    patient.shell("ip address del 10.5.200.0/32 dev lo")
    wait_until(lambda: patient.look() == {}, 90)


def test_somebody_who_keeps_changing_our_entries(patient):
    subnet = patient.key.replace("-", "/")
    loop = f"for i in $(seq 20000); do ip route del {subnet} 2>/dev/null; done"
    rival = patient.node.namespace.run(lambda: subprocess.Popen(["/bin/sh", "-c", loop]))
    try:
        wait_until(lambda: "rival" in patient.look(), 40)
    finally:
        rival.kill()
        rival.wait()
    wait_until(lambda: patient.look() == {}, 40)


def test_a_path_that_loses_some_packets(probing):
    needs("iptables")
    lose = "INPUT -p udp --dport 8472 -m statistic --mode nth --every 3 --packet 0 -j DROP"
    probing.shell(f"iptables -I {lose}", node=probing.peer)
    wait_until(lambda: "path-loss" in probing.look(), 60)
    assert probing.peer.address in probing.look()["path-loss"]["evidence"]
    probing.shell(f"iptables -D {lose}", node=probing.peer)
    wait_until(lambda: probing.look() == {}, 90)


def test_a_lease_that_another_node_has(patient):
    """Not ready: its subnet is another's by what the store says."""
    status = json.loads(run_ctl(patient.node, "status", "--json")[1])
    key = f"{PREFIX}/subnets/{status['lease']['key']}"
    own = patient.cluster.ctl("get", "--print-value-only", key).strip()
    patient.cluster.ctl("put", key, own.replace(patient.node.address, "172.30.0.99"))
    wait_until(lambda: "not-ready" in patient.look())
    assert "172.30.0.99" in patient.look()["not-ready"]["evidence"]
    patient.cluster.ctl("put", key, own)
    wait_until(lambda: patient.look() == {})


@pytest.mark.guest
def test_a_neighbour_table_that_is_nearly_full(tmp_path):
    """The limit is the machine's: only a guest's is ours to lower."""
    if "User Mode Linux" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("the limit of neighbours is the whole machine's: make test-kernels has one of its own")
    program = Path(sys.executable).with_name("flannelctl")

    def shell(*commands):
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)

    def look(*words):
        nowhere = [f"--{name}-dir={tmp_path / name}" for name in ("bin", "conf")]
        command = [program, "doctor", "--json", f"--subnet-file={tmp_path / 'subnet.env'}", *nowhere, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}

    shell("ip link add full type bridge", "ip link set full up")
    shell(*(f"ip neigh add 10.77.0.{number} lladdr 02:00:00:00:00:01 dev full nud stale" for number in range(1, 20)))
    assert "neighbours" not in look()
    shell(*(f"sysctl -w net.ipv4.neigh.default.gc_thresh{number}={20 >> (3 - number)}" for number in (1, 2, 3)))
    found = look()["neighbours"]
    assert " IPv4 neighbours of 20" in found["evidence"]
    assert found["mend"][-1] == "sysctl -w net.ipv4.neigh.default.gc_thresh3=80"
    assert "neighbours" not in look("--fix")
    shell("ip link delete full")
