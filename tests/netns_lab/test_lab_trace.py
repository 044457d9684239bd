"""The journey of one packet in a real lab: through the tunnel, straight on one layer 2, and where it is lost."""

import re

import pytest
from scapy.layers.inet import IP
from scapy.layers.vxlan import VXLAN
from scapy.utils import rdpcap

from tests.netns_lab.topologies import LEFT, RIGHT, topology

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(180)]


def places(text):
    """(place, device) of each row, in order."""
    return re.findall(r"│ +\d+ │ (\S+) +│ (\S+) +│ (in|out) ", text)


def test_where_a_packet_passes_and_where_it_is_lost(lab):
    lab.up(topology(LEFT, LEFT, RIGHT, DirectRouting=True))
    lab.await_reach()
    file = lab.folder / "frames.pcap"
    done = lab.run("trace", "pod-a", "pod-c", "--pcap", file)
    seen = places(done.stdout)
    assert [one for one in seen if not one[1].startswith("veth")] == [
        ("pod-a", "eth0", "out"),
        ("n1", "cni0", "in"),
        ("n1", "flannel.1", "out"),
        ("n1", "eth0", "out"),
        ("router", "n1", "in"),
        ("router", "left", "in"),
        ("router", "right", "out"),
        ("router", "n3", "out"),
        ("n3", "eth0", "in"),
        ("n3", "flannel.1", "in"),
        ("n3", "cni0", "out"),
        ("pod-c", "eth0", "in"),
    ]
    assert "VXLAN VNI 1" in done.stdout
    assert "the reply was back after" in done.stdout
    frames = rdpcap(str(file))
    assert {frame[VXLAN].vni for frame in frames if VXLAN in frame} == {1}
    times = [frame.time for frame in frames]
    assert times == sorted(times)
    assert {64, 63, 62} <= {frame.lastlayer().underlayer.underlayer.ttl for frame in frames if IP in frame}
    direct = lab.run("trace", "pod-a", "pod-b").stdout
    assert ("n1", "eth0", "out") in places(direct)
    assert "flannel.1" not in direct
    lab.run("exec", "n3", "--", "ip", "route", "add", "blackhole", "10.244.0.0/16")
    lab.run("exec", "n3", "--", "ip", "link", "set", "cni0", "down")
    lost = lab.run("trace", "pod-a", "pod-c", status=1).stdout
    assert "LOST: the packet was last seen coming in by flannel.1 of n3" in lost
    assert "no pod is named nobody" in lab.run("trace", "pod-a", "nobody", status=2).stderr
