"""flanneld from the Debian package under a real systemd, with udev and the journal, on a machine of its own.

Beside the guest's own network there is another node, in a network namespace `far`, with etcd.
"""

import json
import re
from pathlib import Path

import pytest

from tests.deploy.systemd_guest import Guest
from tests.deploy.test_debian_package import package
from tests.store.etcd_server import find_program
from tests.test_daemon import FLANNELD

pytestmark = [pytest.mark.full, pytest.mark.kernel, pytest.mark.timeout(600)]

__all__ = ["package"]

ETCD = "http://172.30.0.1:2379"
NETWORK = """
ip netns add far
ip link add eth0 type veth peer name eth0 netns far
ip addr add 172.30.0.11/16 dev eth0
ip link set eth0 up
ip route add default via 172.30.0.1
ip -n far addr add 172.30.0.1/16 dev eth0
ip -n far link set eth0 up
ip -n far link set lo up
ip -n far route add default via 172.30.0.11
"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory, package):
    made = Guest(tmp_path_factory.mktemp("guest"))
    try:
        made.sh(NETWORK)
        made.sh(f"dpkg --no-triggers --install {package}")
        made.sh(f"echo FLANNELD_ETCD_ENDPOINTS={ETCD} > /etc/flanneld-py/flanneld.env")
        made.sh("echo FLANNELD_IP_MASQ=true >> /etc/flanneld-py/flanneld.env")
        made.sh("echo FLANNELD_GUARD=off >> /etc/flanneld-py/flanneld.env")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def etcd(guest):
    """Where etcd is not there, flanneld waits; afterwards it has what it needs."""
    guest.sh("systemctl start --no-block flanneld")
    guest.wait_for("journalctl -u flanneld | grep -q 'connection refused'")
    assert guest.show("flanneld", "ActiveState") == "activating"
    etcd, ctl = find_program("etcd"), find_program("etcdctl")
    guest.sh(
        "systemd-run --unit=etcd --property=NetworkNamespacePath=/run/netns/far --setenv=PATH=$PATH"
        f" {etcd} --data-dir=/run/etcd --listen-client-urls={ETCD} --advertise-client-urls={ETCD}"
    )
    config = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'
    guest.wait_for(
        f"ETCDCTL_API=3 ip netns exec far {ctl} --endpoints={ETCD} put /coreos.com/network/config '{config}'"
    )
    return lambda words: guest.sh(f"ETCDCTL_API=3 ip netns exec far {ctl} --endpoints={ETCD} {words}")


@pytest.fixture
def node(guest, etcd):
    """The guest with flanneld as it comes, ready."""
    guest.sh("systemctl start flanneld")
    return guest


@pytest.fixture(scope="module")
def far(guest, etcd):
    """The other node, and the address of a bridge there, in its subnet."""
    guest.sh(
        "systemd-run --unit=far --property=NetworkNamespacePath=/run/netns/far --property=Type=notify"
        f" {FLANNELD} --etcd-endpoints={ETCD} --subnet-file=/run/far/subnet.env --iface=eth0 --guard=off"
    )
    subnet = guest.sh(". /run/far/subnet.env; echo $FLANNEL_SUBNET").strip()
    guest.sh(f"ip -n far link add cni0 type bridge; ip -n far addr add {subnet} dev cni0; ip -n far link set cni0 up")
    address = subnet.partition("/")[0]
    serve = f"python3 /guest/echo.py serve {address}"
    guest.sh(f"systemd-run --unit=echo --property=NetworkNamespacePath=/run/netns/far {serve}")
    guest.wait_for("ip netns exec far ss --udp --listening --numeric | grep -q 7007")
    return address


def answers(address, count=1):
    """Return the command that asks the other node's bridge, and fails where one datagram stays unanswered."""
    return f"python3 /guest/echo.py ask {address} {count}"


def test_it_is_active_once_it_is_ready(node):
    assert node.show("flanneld", "ActiveState") == "active"
    assert "FLANNEL_IPMASQ=true" in node.sh("cat /run/flannel/subnet.env")
    assert "MASQUERADE" in node.sh("iptables -t nat -S FLANNEL-POSTRTG")
    assert node.sh("stat -c %a /var/lib/cni/flannel").strip() == "700"  # by tmpfiles


def test_the_journal_has_priorities(node):
    told = node.sh("journalctl --unit=flanneld --output=json --no-pager _COMM=flanneld").splitlines()
    priorities = {json.loads(line)["PRIORITY"] for line in told}
    assert priorities == {"4", "6"}


def test_no_packet_is_lost_when_it_is_killed_and_comes_back(node, far):
    node.wait_for(answers(far))
    pid = node.show("flanneld", "MainPID")
    node.sh(f"systemd-run --unit=asking --property=RemainAfterExit=yes {answers(far, 600)}")
    node.sh(f"kill -9 {pid}")
    node.wait_for(f"test $(systemctl show --value --property=MainPID flanneld) != {pid}; systemctl is-active flanneld")
    assert node.show("asking", "SubState") == "running", "it asked for less long than the restart took"
    node.wait_for("systemctl show --property=SubState asking | grep -q -e exited -e failed")
    assert node.show("asking", "Result") == "success", node.log_of("asking")
    assert node.show("flanneld", "NRestarts") == "1"


def test_a_daemon_that_stands_still_is_restarted(node):
    drop_in = "/run/systemd/system/flanneld.service.d/watchdog.conf"
    node.sh(
        f"mkdir -p $(dirname {drop_in}); printf '[Service]\\nWatchdogSec=3s\\n' > {drop_in}; systemctl daemon-reload"
    )
    node.sh("systemctl restart flanneld")
    pid = node.show("flanneld", "MainPID")
    node.sh(f"kill -STOP {pid}")
    node.wait_for(f"test $(systemctl show --value --property=MainPID flanneld) != {pid}; systemctl is-active flanneld")
    node.sh(f"rm {drop_in}; systemctl daemon-reload; systemctl restart flanneld")


def test_stopping_leaves_what_carries_packets(node, far):
    node.wait_for(answers(far))
    node.sh("systemctl stop flanneld")
    node.sh(f"{answers(far)}; test -e /run/flannel/subnet.env")
    assert node.show("flanneld", "Result") == "success"


def test_the_sandbox_lets_the_daemon_wire_pods(node, far):
    node.sh("flannelctl cni install")
    environ = "CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin"
    conf = '{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","delegate":{"isDefaultGateway":true}}'
    node.sh("ip netns add pod")
    told = json.loads(node.sh(f"echo '{conf}' | {environ} CNI_COMMAND=ADD /opt/cni/bin/flannel"))
    assert told["ips"]
    node.sh(f"ip netns exec pod {answers(far)}")
    # The daemon did it, which takes entering the pod's namespace.
    assert "lacks CAP" not in node.log_of("flanneld")
    node.sh(f"echo '{conf}' | {environ} CNI_COMMAND=DEL /opt/cni/bin/flannel; ip netns del pod")


def test_udp_has_its_tun_device(node, etcd):
    etcd("""put /coreos.com/network/config '{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}'""")
    node.sh("systemctl restart flanneld")
    assert "tun" in node.sh("ip -d link show flannel0")
    assert "FLANNEL_MTU=1472" in node.sh("cat /run/flannel/subnet.env")
    node.sh("systemctl stop flanneld")
    etcd("""put /coreos.com/network/config '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'""")


def test_install_puts_our_own_unit_over_the_packages(node):
    assert "/etc/systemd/system/flanneld.service: written" in node.sh("flannelctl install systemd")
    assert "systemd/system/flanneld.service: up to date" not in node.sh(
        "systemctl daemon-reload; systemctl cat flanneld"
    )
    node.sh("systemctl restart flanneld")
    assert node.show("flanneld", "FragmentPath") == "/etc/systemd/system/flanneld.service"
    node.sh("rm /etc/systemd/system/flanneld.service /etc/systemd/network/10-flannel.* /etc/tmpfiles.d/flanneld.conf")
    node.sh("systemctl daemon-reload; systemctl restart flanneld")


def test_the_unit_is_right_and_little_exposed_here(node):
    assert node.sh("systemd-analyze verify flanneld.service 2>&1").strip() == ""
    told = node.sh("systemd-analyze security --no-pager flanneld.service")
    assert float(re.search(r"Overall exposure level for flanneld.service: ([0-9.]+)", told)[1]) < 4.0


def test_docker_gets_the_same_options_with_every_start(node):
    text = (Path(__file__).parents[2] / "deploy/systemd/docker-flannel.conf").read_text()
    command = text[text.rindex("ExecStart=") :]
    folder = node.folder / "docker"
    folder.mkdir()
    (folder / "flannel.conf").write_text(text.replace(command, "ExecStart=sleep infinity\n"))
    (folder / "docker.service").write_text("[Service]\nEnvironmentFile=/run/docker.default\nExecStart=false\n")
    node.sh("echo DOCKER_OPTS=--debug > /run/docker.default; mkdir -p /run/systemd/system/docker.service.d")
    node.sh("cd /run/systemd/system; cp /guest/docker/docker.service .; cp /guest/docker/flannel.conf docker.service.d")
    node.sh("systemctl daemon-reload")
    told = [node.sh("systemctl restart docker; cat /run/docker_opts.env") for _ in range(2)]
    assert told[0] == told[1]
    assert re.search('^DOCKER_OPTS="--debug  --bip=[0-9./]+ --ip-masq=false --mtu=1450"$', told[0], re.MULTILINE)
