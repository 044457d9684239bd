import json
import socket
import threading

import pytest

from flanneld_py.ctl.main import main
from flanneld_py.ctl.output import format_table
from flanneld_py.ctl.status import describe

TOLD = {
    "version": "0.1.0",
    "ready": True,
    "missing": [],
    "warnings": ["2026-01-01 12:00:00 WARNING lease lost"],
    "store": {
        "type": "etcd",
        "endpoints": ["http://a:2379", "http://b:2379"],
        "endpoint": "http://b:2379",
        "trouble": None,
    },
    "networks": ["10.5.0.0/16"],
    "devices": [{"name": "flannel.1", "mac": "02:00:00:00:00:01"}],
    "uplink": {
        "name": "eth0",
        "reason": "it has the default route",
        "mtu": 1500,
        "public_ip": "172.30.0.11",
        "public_ipv6": None,
    },
    "lease": {"key": "10.5.1.0-24", "lost": False, "reserved": False, "seconds_left": 86400.0},
    "backend": {"type": "vxlan", "mtu": 1450},
    "peers": 1,
    "skipped": {"10.9.0.0-24": "10.9.0.0/24 lies outside the network"},
    "unreachable": {"10.5.4.0/24": "172.31.0.14 is not on this node's layer 2, and there is no tunnel to it"},
    "failing": [{"entry": "route 10.5.3.0/24 nhid 7", "attempts": 2, "reason": "No such device"}],
    "drift": {"route": 3},
    "guard": {"mode": "drop", "reason": "", "problem": "", "dropped": {"stranger": 3, "no IP": 0}},
    "probes": {"ok": 2, "no answer": 1},
    "rules": {
        "by": "nftables",
        "restored": 2,
        "problem": "",
        "barriers": [{"chain": "inet firewalld filter_FORWARD", "reason": "it rejects", "remedy": "firewall-cmd …"}],
    },
}
STARTING = {
    "version": "0.1.0",
    "ready": False,
    "missing": ["starting: no lease yet"],
    "warnings": [],
    "store": {"type": "etcd", "endpoints": ["http://a:2379"], "endpoint": None, "trouble": "it is away"},
}


@pytest.fixture
def daemon(tmp_path):
    """Return a function that has a socket beside a subnet file answer once, and returns that file."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / "subnet.sock"))
    listening.listen()
    threads = []

    def answer(told):
        def serve():
            connection, _ = listening.accept()
            with connection:
                assert connection.recv(100) == b"status\n"
                connection.sendall(told)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return tmp_path / "subnet.env"

    yield answer
    for thread in threads:
        thread.join(10)
    listening.close()


def test_status_of_a_ready_daemon(daemon, capsys):
    subnet_file = daemon(json.dumps(TOLD).encode())
    assert main(["status", "--subnet-file", str(subnet_file)]) == 0
    assert capsys.readouterr().out.startswith("flanneld 0.1.0: ready\n")


def test_every_fact_has_its_line():
    lines = [part if isinstance(part, str) else format_table(part) for part in describe(TOLD)]
    assert "\n".join(lines).splitlines() == [
        "flanneld 0.1.0: ready",
        "  store    etcd at http://b:2379",
        "  lease    10.5.1.0-24, 24.0 h left",
        "  network  10.5.0.0/16",
        "  uplink   eth0 (172.30.0.11, mtu 1500): it has the default route",
        "  backend  vxlan, mtu 1450 (flannel.1 02:00:00:00:00:01)",
        "  peers    1",
        "  rules    nftables, restored 2 times",
        "  rules    inet firewalld filter_FORWARD: it rejects; firewall-cmd …",
        "  guard    drop, dropped: stranger 3",
        "  probes   ok 2, no answer 1",
        "  drift    route 3",
        "skipped leases",
        "LEASE        REASON",
        "10.9.0.0-24  10.9.0.0/24 lies outside the network",
        "unreachable peers",
        "SUBNET       REASON",
        "10.5.4.0/24  172.31.0.14 is not on this node's layer 2, and there is no tunnel to it",
        "refused by the kernel",
        "ENTRY                     REASON          TRIES",
        "route 10.5.3.0/24 nhid 7  No such device  2",
        "last warnings",
        "  2026-01-01 12:00:00 WARNING lease lost",
    ]


def test_json_is_what_the_daemon_says(daemon, capsys):
    subnet_file = daemon(json.dumps(TOLD).encode())
    assert main(["status", "--json", "--subnet-file", str(subnet_file)]) == 0
    assert json.loads(capsys.readouterr().out) == TOLD


def test_a_daemon_that_is_starting_says_what_is_missing(daemon, capsys):
    subnet_file = daemon(json.dumps(STARTING).encode())
    assert main(["status", "--subnet-file", str(subnet_file)]) == 3
    assert capsys.readouterr().out.splitlines() == [
        "flanneld 0.1.0: not ready",
        "  missing  starting: no lease yet",
        "  store    etcd at http://a:2379; it is away",
    ]


@pytest.mark.parametrize("said", [b"", b"[]", b"{"])
def test_what_is_no_flanneld_is_named(daemon, capsys, said):
    subnet_file = daemon(said)
    assert main(["status", "--subnet-file", str(subnet_file)]) == 1
    assert "subnet.sock" in capsys.readouterr().err


def test_no_daemon_is_an_error_that_says_where_it_was_looked_for(tmp_path, capsys):
    assert main(["status", "--subnet-file", str(tmp_path / "subnet.env")]) == 1
    assert f"no daemon answers at {tmp_path / 'subnet.sock'}" in capsys.readouterr().err
