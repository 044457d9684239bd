"""A walk through rules against the kernel itself: what it says of a packet is what becomes of that packet."""

import shutil
import subprocess
from contextlib import suppress

import pytest
from scapy.layers.inet import UDP
from scapy.packet import Raw

from flanneld_py.core.prefix import parse_prefix
from flanneld_py.core.sample_packet import pod_packets, tunnel_packets
from flanneld_py.kernel.barriers import read_barriers
from flanneld_py.kernel.nf_tables_socket import has_nf_tables
from tests.host import number
from tests.underlay_wire import FAR, NODE, Wire, ip

pytestmark = pytest.mark.kernel

PORT = 8472
LAST = 7
BASE = f"type filter hook input priority 0; udp dport {LAST} accept;"
CHAINS = {
    "nothing": "chain in { %s }",
    "a policy": "chain in { %s policy drop; }",
    "a port": "chain in { %s policy drop; udp dport 8472 accept; }",
    "another port": "chain in { %s policy drop; udp dport 8473 accept; }",
    "another protocol": "chain in { %s policy drop; tcp dport 8472 accept; }",
    "any protocol's port": "chain in { %s policy drop; meta l4proto { tcp, udp } th dport 8472 accept; }",
    "ports": "chain in { %s policy drop; udp dport { 53, 8472 } accept; }",
    "a range of ports": "chain in { %s policy drop; udp dport 8000-9000 accept; }",
    "ranges of ports": "chain in { %s policy drop; udp dport { 1-80, 8400-8500, 9000-9001 } accept; }",
    "beside the ranges": "chain in { %s policy drop; udp dport { 1-80, 8400-8471, 9000-9001 } accept; }",
    "all but a port": "chain in { %s udp dport != 53 drop; }",
    "below a port": "chain in { %s udp dport < 8473 drop; }",
    "a connection's state": "chain in { %s policy drop; ct state vmap { established : accept, new : jump more }; }\n"
    "chain more { udp dport 8472 accept; }",
    "an old connection": "chain in { %s policy drop; ct state established,related accept; ct state invalid accept; }",
    "no mark": "chain in { %s policy drop; meta mark & 0x4000 == 0x4000 accept; }",
    "a device": 'chain in { %s policy drop; iifname "eth0" accept; }',
    "another device": 'chain in { %s policy drop; iifname { "eth1", "lo" } accept; }',
    "a device by its number": "chain in { %s policy drop; iif lo accept; }",
    "devices by a pattern": 'chain in { %s policy drop; iifname "eth*" accept; }',
    "a jump that comes back": "chain in { %s jump other; drop; }\nchain other { return; accept; }",
    "a jump that ends": "chain in { %s jump other; drop; }\nchain other { counter accept; }",
    "a goto that ends at the policy": "chain in { %s policy accept; goto other; drop; }\nchain other { counter; }",
    "a goto below a jump": "chain in { %s jump one; drop; }\nchain one { goto two; accept; }\nchain two { counter; }",
    "a verdict map": "chain in { %s policy drop; udp dport vmap { 53 : drop, 8472 : accept }; }",
    "a verdict map without it": "chain in { %s policy drop; udp dport vmap { 53 : accept, 8473 : accept }; }",
    "a limit": "chain in { %s policy drop; limit rate 100/second udp dport 8472 accept; }",
    "a log": 'chain in { %s policy drop; udp dport 8472 log prefix "x" accept; }',
    "a rejection": "chain in { %s udp dport 8472 reject; }",
    "a rejection of all": "chain in { %s reject with icmpx admin-prohibited; }",
    "a route back": "chain in { %s policy drop; fib saddr oif missing accept; }",
    "the other family": "chain in { %s policy drop; meta nfproto OTHER accept; }",
    "its family": "chain in { %s policy drop; meta nfproto FAMILY accept; }",
    "the sender": "chain in { %s policy drop; WORD saddr FAR accept; }",
    "all but the sender": "chain in { %s policy drop; WORD saddr != FAR accept; }",
    "a network": "chain in { %s policy drop; WORD saddr NET accept; }",
    "networks": "chain in { %s policy drop; WORD saddr { ELSEWHERE, NET } accept; }",
    "other networks": "chain in { %s policy drop; WORD saddr { ELSEWHERE, OUTSIDE } accept; }",
    "no network": "chain in { %s policy drop; WORD saddr != { ELSEWHERE, OUTSIDE } accept; }",
    "network and port": "chain in { %s policy drop; WORD saddr . udp dport { NET . 8000-9000 } accept; }",
    "network and another port": "chain in { %s policy drop; WORD saddr . udp dport { NET . 1-80 } accept; }",
    "sender and port": "chain in { %s policy drop; WORD saddr . udp dport { FAR . 8472 } accept; }",
    "a named set": "set some { type inet_service; flags interval; elements = { 8000-9000 }; }\n"
    "chain in { %s policy drop; udp dport @some accept; }",
}
WORDS = {
    4: {
        "WORD": "ip",
        "FAMILY": "ipv4",
        "OTHER": "ipv6",
        "NET": "172.30.0.64/26",
        "ELSEWHERE": "10.0.0.0/9",
        "OUTSIDE": "192.0.2.0/24",
    },
    6: {
        "WORD": "ip6",
        "FAMILY": "ipv6",
        "OTHER": "ipv4",
        "NET": "fd30::/61",
        "ELSEWHERE": "fd31::/48",
        "OUTSIDE": "2001:db8::/32",
    },
}


def nft(namespace, text):
    if shutil.which("nft") is None:
        pytest.skip("no nft: apt-get install nftables")
    done = namespace.run(
        lambda: subprocess.run(["nft", "-f", "-"], input=text, check=False, capture_output=True, text=True)
    )
    assert done.returncode == 0, f"{text}: {done.stderr}"


@pytest.fixture
def wire(make_namespace):
    made = Wire(make_namespace)
    if not made.node.run(has_nf_tables):
        pytest.skip("this kernel has no nf_tables: modprobe nf_tables")
    yield made
    made.close()


def arrives(wire, family):
    """Whether a datagram to the port comes in, before another to a port that all chains let in."""
    with wire.listen(family, PORT) as listening, wire.listen(family, LAST) as last:
        for port in (PORT, LAST):
            wire.send(ip(family, FAR[family], NODE[family]) / UDP(sport=40000, dport=port) / Raw(b"hello"))
        last.recv(100)
        listening.setblocking(False)
        with suppress(BlockingIOError):
            return listening.recv(100) == b"hello"
        return False


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_a_walk_says_what_the_kernel_does(wire, family):
    words = WORDS[family] | {"FAR": FAR[family]}
    (packet,) = tunnel_packets([(family, number(FAR[family]))], [(family, number(NODE[family]))], "eth0", PORT)
    let_in = 0
    for name, chains in CHAINS.items():
        text = chains % BASE
        for word, value in words.items():
            text = text.replace(word, value)
        nft(wire.node, f"flush ruleset\ntable inet other {{\n{text}\n}}")
        barriers = wire.node.run(lambda: read_barriers([packet], (), beside_iptables=False))
        passes = arrives(wire, family)
        assert passes == (barriers == []), name
        assert all((one.chain, one.port) == ("inet other in", PORT) for one in barriers)
        let_in += passes
    assert 10 < let_in < len(CHAINS) - 10


@pytest.mark.parametrize("place", ["inet", "ip"])
def test_what_is_forwarded_passes_by_the_remedy(wire, place):
    network, own = parse_prefix("10.5.0.0/16"), parse_prefix("10.5.2.0/24")
    packets = pod_packets(network, own, "flannel.1", "eth0")
    nft(wire.node, f"table {place} other {{ chain passing {{ type filter hook forward priority 0; policy drop; }}; }}")

    def look():
        return read_barriers(packets, [network], beside_iptables=False)

    (barrier,) = wire.node.run(look)
    assert (barrier.chain, barrier.port) == (f"{place} other passing", 0)
    for command in barrier.remedy.split(" && "):
        nft(wire.node, command.removeprefix("nft "))
    assert wire.node.run(look) == []
