"""Traces on real nodes: what is said is what a packet meets, and where something is broken it is lost there."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ctl.test_ctl_node import pair, run
from tests.test_daemon import cluster, empty_cluster, vtep_mac

__all__ = ["cluster", "empty_cluster", "pair"]

pytestmark = [pytest.mark.kernel, pytest.mark.etcd]


def trace(node, source, destination):
    """Return (status, places of the hops, the whole answer)."""
    status, text, errors = run(node, "trace", source, destination, "--json")
    assert not errors
    told = json.loads(text)
    assert status == (3 if told["lost"] else 0)
    return status, [hop["place"] for hop in told["hops"]], told


def host_in(key, last):
    return key.replace(".0-24", f".{last}")


THROUGH = ["source", "route", "neighbour", "forwarding entry", "encapsulation", "route", "eth0"]


def test_from_this_host_through_the_tunnel(pair):
    one, two, key = pair
    _, places, told = trace(one, one.address, host_in(key, 9))
    assert places == THROUGH
    whats = [hop["what"] for hop in told["hops"]]
    base = key.partition("-")[0]
    assert whats[1] == f"{host_in(key, 9)} via {base} dev flannel.1 (table main)"
    assert whats[2] == f"{base} is {vtep_mac(two)} on flannel.1"
    assert whats[3] == f"{vtep_mac(two)} is behind {two.address}"
    assert whats[4] == f"VXLAN 1 in UDP to {two.address} port 8472: 50 bytes around up to 1450"
    assert whats[5] == f"{two.address} dev eth0 (table main)"
    assert told["arrives"].startswith(f"goes to the node {two.address}, which has {key.replace('-', '/')}")


def add_bridge(node):
    address = node.daemons[-1].key.replace(".0-24", ".1")

    def make(ipr):
        ipr.link("add", ifname="cni0", kind="bridge", state="up")
        index = ipr.link_lookup(ifname="cni0")[0]
        ipr.link("add", ifname="pod0", kind="veth", peer="pod1")
        for name in ("pod0", "pod1"):
            ipr.link("set", index=ipr.link_lookup(ifname=name)[0], state="up")
        ipr.link("set", index=ipr.link_lookup(ifname="pod0")[0], master=index)
        ipr.addr("add", index=index, address=address, prefixlen=24)

    node.do(make)


def test_from_a_pod_and_from_a_peers_pod(pair):
    one, _, key = pair
    add_bridge(one)
    own = one.daemons[-1].key
    _, places, _ = trace(one, host_in(own, 5), host_in(key, 9))
    assert places == ["source", "forwarding", "route", "rules", *THROUGH[2:]]
    _, places, told = trace(one, host_in(key, 9), host_in(own, 5))
    assert places == ["source", "forwarding", "route", "rules", "cni0"]
    assert told["hops"][0]["what"] == f"{host_in(key, 9)} comes in by flannel.1"
    assert trace(one, host_in(key, 9), one.address)[1] == ["source", "route", "this host"]


def lost(node, source, destination):
    status, places, told = trace(node, source, destination)
    assert status == 3
    return places[-1], told["lost"]


def test_where_it_would_be_lost(pair):
    one, two, key = pair
    add_bridge(one)
    source, destination = host_in(one.daemons[-1].key, 5), host_in(key, 9)
    one.daemons[-1].stop()
    device, base = one.index("flannel.1"), key.partition("-")[0]
    one.ip("-4 route add default via 172.30.0.1 dev eth0 metric 9")
    with one.namespace.entered():
        write_forwarding("0")
        assert lost(one, source, destination)[0] in {"forwarding", "route"}
        write_forwarding("1")
    one.ip("link set dev eth0 mtu 1400")
    assert lost(one, source, destination) == ("eth0", "packets of 1500 bytes do not fit")
    one.ip("link set dev eth0 mtu 1500")
    one.do(lambda ipr: ipr.fdb("del", ifindex=device, lladdr=vtep_mac(two), dst=two.address))
    assert lost(one, source, destination)[0] == "forwarding entry"
    one.do(lambda ipr: ipr.neigh("del", ifindex=device, dst=base))
    assert lost(one, source, destination)[0] == "neighbour"
    one.ip(f"route replace unreachable {key.replace('-', '/')}")
    assert lost(one, source, destination)[0] == "route"


@pytest.mark.parametrize("program", ["iptables", "nft"])
def test_a_firewall_that_stops_just_this_packet(pair, program):
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: apt-get install {program.replace('nft', 'nftables')}")
    one, _, key = pair
    add_bridge(one)
    source, destination = host_in(one.daemons[-1].key, 5), host_in(key, 9)

    def shell(*commands):
        for command in commands:
            one.namespace.run(lambda: subprocess.run(shlex.split(command), check=True, capture_output=True))  # noqa: B023

    if program == "nft":
        chain = "inet blocks passing"
        shell(
            "nft add table inet blocks",
            "nft 'add chain inet blocks passing { type filter hook forward priority 0; }'",
            f"nft add rule inet blocks passing ip daddr {destination} tcp dport 80 drop",
        )
        mend = "nft delete table inet blocks"
    else:
        chain = "ip filter FORWARD"
        shell(f"iptables -I FORWARD -d {destination} -j DROP")
        mend = f"iptables -D FORWARD -d {destination} -j DROP"
    _, places, told = trace(one, source, destination)
    assert places == ["source", "forwarding", "route", "rules"]
    assert chain in told["hops"][-1]["what"]
    assert trace(one, source, host_in(key, 8))[2]["lost"] is None
    shell(mend)
    assert trace(one, source, destination)[2]["lost"] is None


def write_forwarding(value):
    Path("/proc/sys/net/ipv4/ip_forward").write_text(value)


def test_what_is_no_address_or_nobodys(pair):
    one, _, key = pair
    assert run(one, "trace", "x", one.address)[0] == 1
    assert run(one, "trace", "fd00::1", one.address)[0] == 1
    status, _, errors = run(one, "trace", "192.0.2.1", host_in(key, 9))
    assert status == 1
    assert "the source is no address" in errors
