"""The documents' flannelctl commands, run on nodes with real daemons, or into folders that stand for a node's."""

import shlex
import subprocess

import pytest

from tests.ctl.test_ctl_node import FLANNELCTL, pair, run
from tests.docs.commands import commands_of
from tests.test_daemon import cluster, empty_cluster
from tests.waiting import wait_until

__all__ = ["cluster", "empty_cluster", "pair"]

WITHOUT_ETCD = {"status", "peers", "cleanup", "probe"}
SUBNET_ENV = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


def run_as_documented(line, one, two, *options):
    """Run a command on the first node, with the addresses of these two in place of the document's."""
    own, other = (node.daemons[0].key for node in (one, two))
    names = {
        "10.5.1.7": own.replace(".0-24", ".7"),
        "10.5.2.9": other.replace(".0-24", ".9"),
        "10.5.2.0/24": other,
        "172.30.0.12": two.address,
    }
    words = [names.get(word, word) for word in shlex.split(line)[1:]]
    etcd = [] if words[0] in WITHOUT_ETCD else [f"--etcd-endpoints={one.cluster.etcd.url}"]
    return run(one, *words, *etcd, *options)


@pytest.mark.kernel
@pytest.mark.etcd
def test_commands_that_read(pair):
    one, two, _ = pair
    lines = commands_of("read")
    assert len(lines) >= 9
    for line in lines:
        status, _, errors = run_as_documented(line, one, two)
        # What is asked for is there; SubnetLen=25 is refused since the leases would not fit.
        assert status in ({1} if "SubnetLen=25" in line else {0, 3}), f"{line}: {errors}"


@pytest.mark.kernel
@pytest.mark.etcd
def test_commands_that_write(pair, tmp_path):
    one, two, _ = pair
    two.daemons[-1].kill()
    lines = commands_of("write")
    assert len(lines) >= 7
    # A lease is reserved before it is released, and nothing is taken from under a daemon.
    for line in sorted(lines, key=lambda line: ("cleanup" in line, "release" in line, "--dry-run" not in line)):
        folders = ()
        if "cleanup" in line:
            folders = [f"--{name}-dir={tmp_path / name}" for name in ("bin", "conf", "state")]
            one.daemons[-1].stop()
        status, _, errors = run_as_documented(line, one, two, *folders)
        assert status in {0, 3}, f"{line}: {errors}"
    assert one.index("flannel.1") is None


@pytest.mark.kernel
@pytest.mark.etcd
def test_commands_that_probe(cluster):
    one, two = cluster.add_node(), cluster.add_node()
    for node in (one, two):
        node.start("--probe-interval=1").is_ready()
    lines = commands_of("probe")
    assert len(lines) >= 3
    for line in lines:
        wait_until(lambda: run_as_documented(line, one, two)[0] == 0, 40)  # noqa: B023 - called at once


def test_commands_that_put_files_in_place(tmp_path):
    (tmp_path / "subnet.env").write_text(SUBNET_ENV)
    options = {
        "cni": ["--bin-dir", tmp_path / "bin", "--conf-dir", tmp_path / "conf"],
        "install": ["--root", tmp_path / "root"],
        "docker-opts": ["-f", tmp_path / "subnet.env", "-d", tmp_path / "docker_opts.env"],
        "completion": [],
    }
    lines = commands_of("place")
    words = [shlex.split(line)[1:] for line in lines]
    assert {each[0] for each in words} == set(options)
    for each in words:
        done = subprocess.run([FLANNELCTL, *each, *options[each[0]]], capture_output=True, text=True, check=True)
        assert done.stdout or each[0] == "docker-opts"
    for name in ("bin/flannel", "conf/10-flannel.conflist", "root/etc/systemd/system/flanneld.service"):
        assert (tmp_path / name).is_file()
    assert "--bip=10.5.1.1/24" in (tmp_path / "docker_opts.env").read_text()
