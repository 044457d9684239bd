"""What flannelctl peers says of the packets between pods, for each backend: whoever carries or admits them counts."""

import json
import sys
from pathlib import Path

import pytest

from tests.netns_lab.carriers import require
from tests.netns_lab.topologies import LEFT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.guest, pytest.mark.timeout(180)]

FLANNELCTL = str(Path(sys.executable).with_name("flannelctl"))
PACKETS, PAYLOAD = 50, 500
ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    opened.bind(("", 7000))
    print("serving", flush=True)
    while True:
        opened.sendto(*opened.recvfrom(2000))
"""
ASK = f"""
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    opened.settimeout(10)
    opened.connect((sys.argv[1], 7000))
    for number in range({PACKETS}):
        opened.send(bytes({PAYLOAD}))
        assert len(opened.recv(2000)) == {PAYLOAD}
"""


def read_traffic(lab):
    """What n1 has counted of its peer."""
    done = lab.run("exec", "n1", "--", FLANNELCTL, "peers", "--json")
    [peer] = json.loads(done.stdout)
    return {key: value for key, value in peer.items() if key.startswith(("received", "sent", "counted"))}


@pytest.mark.parametrize(
    ("backend", "counted_by", "directions"),
    [
        ("vxlan", "guard", {"received"}),
        ("udp", "daemon", {"received", "sent"}),
        ("wireguard", "wireguard", {"received", "sent"}),
        ("host-gw", None, set()),
        ("ipip", None, set()),
    ],
)
def test_a_peers_traffic(lab, backend, counted_by, directions):
    require(lab, backend)
    lab.up(topology(LEFT, LEFT, backend=backend))
    lab.await_reach()
    pods = {file.stem: json.loads(file.read_text()) for file in (lab.root / "pods").glob("*.json")}
    [source] = (name for name, record in pods.items() if record["node"] == "n1")
    [target] = (name for name, record in pods.items() if record["node"] == "n2")
    address = pods[target]["result"]["ips"][0]["address"].partition("/")[0]
    before = read_traffic(lab)
    server = lab.start("exec", target, "--", sys.executable, "-c", ECHO)
    try:
        assert server.stdout.readline() == "serving\n"
        lab.run("exec", source, "--", sys.executable, "-c", ASK, address)
    finally:
        server.kill()
        server.communicate()
    after = read_traffic(lab)
    assert after["counted_by"] == counted_by
    for direction in ("received", "sent"):
        was, now = before[f"{direction}_bytes"], after[f"{direction}_bytes"]
        if direction in directions:
            assert PACKETS * PAYLOAD < now - was < PACKETS * (PAYLOAD + 200)
        else:
            assert now is None
    if counted_by in {"guard", "daemon"}:
        assert after["received_packets"] - before["received_packets"] >= PACKETS
