"""Labs without an overlay: the daemons are stand-ins, all else is real."""

import json
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

TWO_NODES = """
mtu = 1400
[etcd]
members = {members}
[underlay]
left = "172.20.1.0/24"
right = "172.20.2.0/24"
[nodes.n1]
underlay = "left"
pods = 0
daemon = {daemon}
[nodes.n2]
underlay = "right"
pods = 0
daemon = {daemon}
[network]
Network = "10.0.0.0/8"
"""


def two_nodes(daemon, members=1):
    return TWO_NODES.format(daemon=json.dumps(daemon), members=members)


def test_up_status_ping_exec_down(lab, stand_in):
    assert "the lab is up" in lab.up(two_nodes(stand_in)).stdout
    assert lab.run("status").stdout.count(" ready ") == 2
    assert "all 2 pairs reach each other" in lab.run("ping", "--nodes").stdout
    assert lab.run("exec", "n1", "--", "hostname").stdout == "n1\n"
    assert lab.run("exec", "n1", "--", "echo", "n2", "xn2").stdout == "172.20.2.11 xn2\n"
    assert "FLANNEL_SUBNET=10.244.7.1/24" in lab.run("exec", "n1", "--", "cat", "/run/flannel/subnet.env").stdout
    assert lab.run("exec", "n1", "--", "cat", "/sys/class/net/eth0/mtu").stdout == "1400\n"
    assert "there is a lab at" in lab.up(two_nodes(stand_in), status=1).stderr
    lab.run("down")
    assert lab.leftovers() == []


def test_the_status_of_a_command_is_passed_on(lab, stand_in):
    lab.up(two_nodes(stand_in))
    lab.run("exec", "n1", "--", "sh", "-c", "exit 7", status=7)
    lab.run("exec", "n1", "--", "sh", "-c", "kill -9 $$", status=128 + signal.SIGKILL)
    assert "command not found" in lab.run("exec", "n1", "--", "no-such-command", status=127).stderr
    lab.run("exec", "n1", "--", "/dev/null", status=126)
    lab.run("exec", "n1", status=2)
    lab.run("exec", "nobody", "--", "true", status=2)


def test_the_configuration_is_in_etcd_for_each_of_three_members(lab, stand_in):
    lab.up(two_nodes(stand_in, members=3))
    for member in ("192.0.2.11", "192.0.2.12", "192.0.2.13"):
        get = (
            "etcdctl",
            f"--endpoints=http://{member}:2379",
            "get",
            "--print-value-only",
            "/coreos.com/network/config",
        )
        assert json.loads(lab.run("exec", "n2", "--", *get).stdout) == {"Network": "10.0.0.0/8"}


def test_status_tells_a_dead_daemon(lab, stand_in):
    lab.up(two_nodes(stand_in))
    pid = (lab.root / "nodes/n2/pid").read_text()
    lab.run("exec", "n1", "--", "kill", "-9", pid)
    assert "ended" in lab.run("status", status=1).stdout


def test_a_daemon_that_ends_is_shown_with_its_log_and_nothing_is_left(lab):
    done = lab.up(two_nodes(["sh", "-c", "echo why it ended"]), status=1)
    assert "flanneld on n1 has ended; the end of its log:\n  why it ended\n" in done.stderr
    assert lab.leftovers() == []


def test_a_daemon_that_is_not_there_is_named(lab):
    assert "/no/such/daemon: command not found" in lab.up(two_nodes(["/no/such/daemon"]), status=1).stderr


def test_the_end_of_the_holder_ends_everything(lab, stand_in, wait_for):
    lab.up(two_nodes(stand_in))
    assert len(lab.processes()) == 4  # the holder, etcd and two daemons
    os.kill(json.loads((lab.root / "holder.json").read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: not lab.processes())
    assert "has ended: netns-lab down removes what it left" in lab.run("status", status=3).stderr
    lab.run("down")


def test_a_lab_is_made_in_the_place_of_one_that_has_ended(lab, stand_in, wait_for):
    lab.up(two_nodes(stand_in))
    os.kill(json.loads((lab.root / "holder.json").read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: not lab.processes())
    lab.up(two_nodes(stand_in))
    lab.run("status")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_leaves_nothing(lab, number, wait_for):
    file = lab.folder / "never-ready.toml"
    file.write_text(two_nodes(["sh", "-c", "sleep 1000"]))
    up = lab.start("up", file)
    wait_for(lambda: any("sleep 1000" in line for line in lab.processes().values()))
    up.send_signal(number)
    assert "interrupted" in up.communicate(timeout=150)[1]
    assert up.returncode == 128 + signal.SIGINT
    assert lab.leftovers() == []


def test_a_killed_up_takes_the_lab_with_it(lab, wait_for):
    file = lab.folder / "never-ready.toml"
    file.write_text(two_nodes(["sh", "-c", "sleep 1000"]))
    up = lab.start("up", file)
    wait_for(lambda: any("sleep 1000" in line for line in lab.processes().values()))
    up.kill()
    up.communicate(timeout=150)
    wait_for(lambda: not lab.processes())
    lab.run("down")


def test_the_machines_own_network_is_untouched(lab, stand_in):
    def look():
        return socket.if_nameindex(), Path("/proc/self/mountinfo").read_text()

    before = look()
    lab.up(two_nodes(stand_in))
    assert look() == before


def test_a_machine_without_user_namespaces_is_told_how_to_allow_them(lab):
    words = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    script = f"echo 0 > /proc/sys/user/max_user_namespaces; exec {shlex.quote(lab.command)} up"
    done = subprocess.run([*words, script], env=lab.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "netns-lab: this machine lets this user make no network lab (unshare user: No space left on device); "
        "as root run: sysctl -w user.max_user_namespaces=10000\n"
    )
    assert lab.leftovers() == []
