"""The demonstration as a newcomer runs it."""

import json
import signal

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]

ONE_IS_DEAF = """
[underlay]
left = "172.20.1.0/24"
[nodes.n1]
underlay = "left"
[nodes.n2]
underlay = "left"
daemon = {daemon}
[network]
Network = "10.244.0.0/16"
Backend = {{Type = "vxlan"}}
"""


@pytest.fixture
def private(lab, tmp_path):
    """The lab, with every folder in which a program might leave something empty and its own."""
    for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        folder = tmp_path / "private" / name
        folder.mkdir(parents=True)
        lab.environment[name] = str(folder)
    del lab.environment["NETNS_LAB_DIR"]
    return lab


def test_the_demo_shows_the_job_and_leaves_nothing(private, tmp_path):
    text = private.run("demo").stdout
    assert "all 30 pairs reach each other, no packet lost" in text
    assert "pods of node2, on the same subnet, so directly" in text
    assert "pods of node3, through the tunnel" in text
    assert "the tunnel end of node3" in text
    assert "travel in UDP to node3" in text
    assert private.processes() == {}
    assert [path for path in (tmp_path / "private").rglob("*") if path.is_file()] == []


def test_a_pair_that_fails_makes_the_demo_fail(private, stand_in):
    file = private.folder / "deaf.toml"
    file.write_text(ONE_IS_DEAF.format(daemon=json.dumps(stand_in)))
    text = private.run("demo", file, status=1).stdout
    assert "2 of 2 pairs lost packets" in text
    assert "pod-a → pod-b: 5 of 5 lost" in text
    assert "100% -" in text
    assert private.processes() == {}


def test_an_interrupted_demo_leaves_nothing(private, tmp_path):
    demo = private.start("demo")
    assert any("is ready" in line for line in demo.stdout)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=150)
    assert demo.returncode == 128 + signal.SIGINT
    assert private.processes() == {}
    assert [path for path in (tmp_path / "private").rglob("*") if path.is_file()] == []
