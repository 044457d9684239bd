"""flanneld from the Debian package under a real systemd, with udev and the journal, on a machine of its own."""

import json
import re
from pathlib import Path

import pytest

from tests.deploy.guest_node import answers, etcd, far, guest, node, pod
from tests.deploy.test_debian_package import package

pytestmark = [pytest.mark.full, pytest.mark.kernel, pytest.mark.timeout(600)]

__all__ = ["etcd", "far", "guest", "node", "package", "pod"]


def test_it_is_active_once_it_is_ready(node):
    assert node.show("flanneld", "ActiveState") == "active"
    assert "FLANNEL_IPMASQ=true" in node.sh("cat /run/flannel/subnet.env")
    assert "MASQUERADE" in node.sh("iptables -t nat -S FLANNEL-POSTRTG")
    assert node.sh("stat -c %a /var/lib/cni/flannel").strip() == "700"  # by tmpfiles


def test_the_journal_has_priorities(node):
    told = node.sh("journalctl --unit=flanneld --output=json --no-pager _COMM=flanneld").splitlines()
    priorities = {json.loads(line)["PRIORITY"] for line in told}
    assert priorities == {"4", "6"}


def comes_back(node, pid):
    """Wait until flanneld is ready as another process than `pid`."""
    node.wait_for(f"test $(systemctl show --value --property=MainPID flanneld) != {pid}; systemctl is-active flanneld")


def test_no_packet_is_lost_when_it_is_killed_and_comes_back(node, pod, far):
    pid, restarts = node.show("flanneld", "MainPID"), int(node.show("flanneld", "NRestarts"))
    with node.answered("pod", far):
        node.sh(f"kill -9 {pid}")
        comes_back(node, pid)
    assert int(node.show("flanneld", "NRestarts")) == restarts + 1


def test_a_daemon_that_stands_still_is_restarted_and_pods_go_on(node, pod, far):
    drop_in = "/run/systemd/system/flanneld.service.d/watchdog.conf"
    node.sh(
        f"mkdir -p $(dirname {drop_in}); printf '[Service]\\nWatchdogSec=3s\\n' > {drop_in}; systemctl daemon-reload"
    )
    node.sh("systemctl restart flanneld")
    pid = node.show("flanneld", "MainPID")
    with node.answered("pod", far):
        node.sh(f"kill -STOP {pid}")
        comes_back(node, pid)
    assert "flanneld.service: Watchdog timeout" in node.console()
    node.sh(f"rm {drop_in}; systemctl daemon-reload; systemctl restart flanneld")


def test_a_hangup_changes_nothing(node):
    """systemd takes an end by SIGHUP for a clean one (systemd.service(5)): it would not start flanneld again."""
    pid = node.show("flanneld", "MainPID")
    node.sh("systemctl kill --signal=HUP flanneld")
    node.wait_for("journalctl -u flanneld -o cat | grep -q 'SIGHUP'")
    assert (node.show("flanneld", "MainPID"), node.show("flanneld", "ActiveState")) == (pid, "active")
    status, _, told = node.run("systemctl", "reload", "flanneld")
    assert status
    assert "not applicable" in told


def test_stopping_leaves_what_carries_packets(node, far):
    node.wait_for(answers(far))
    node.sh("systemctl stop flanneld")
    node.sh(f"{answers(far)}; test -e /run/flannel/subnet.env")
    assert node.show("flanneld", "Result") == "success"


def test_the_sandbox_lets_the_daemon_wire_pods(node, pod, far):
    node.sh(f"ip netns exec pod {answers(far)}")
    # The daemon did it, which takes entering the pod's namespace.
    assert "lacks CAP" not in node.log_of("flanneld")


def test_the_sandbox_lets_the_daemon_read_calls_from_their_processes(node, pod):
    node.sh("sed 's/^exec .*/exit 9/' /opt/cni/bin/flannel > /run/ringing")
    assert node.call_plugin("DEL", "pod", "bash -p /run/ringing", "unknown") == ""


def test_udp_has_its_tun_device(node):
    node.set_config(Type="udp")
    node.sh("systemctl restart flanneld")
    assert "tun" in node.sh("ip -d link show flannel0")
    assert "FLANNEL_MTU=1472" in node.sh("cat /run/flannel/subnet.env")
    node.sh("systemctl stop flanneld")
    node.set_config(Type="vxlan")


def test_install_puts_our_own_unit_over_the_packages(node):
    assert "/etc/systemd/system/flanneld.service: written" in node.sh("flannelctl install systemd")
    assert "systemd/system/flanneld.service: up to date" not in node.sh(
        "systemctl daemon-reload; systemctl cat flanneld"
    )
    node.sh("systemctl restart flanneld")
    assert node.show("flanneld", "FragmentPath") == "/etc/systemd/system/flanneld.service"
    node.sh("rm /etc/systemd/system/flanneld.service /etc/systemd/network/10-flannel.* /etc/tmpfiles.d/flanneld.conf")
    node.sh("rm /etc/NetworkManager/conf.d/90-flannel.conf")
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
