"""The guard's table by what it does to packets: what is not dropped comes out of a socket on the port."""

import random
import shutil
import subprocess

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from flanneld_py.core.entries import DrivenEntry, Kind
from flanneld_py.core.errors import KernelError
from flanneld_py.core.peer_traffic import PeerTraffic
from flanneld_py.core.plan import Operation
from flanneld_py.core.prefix import Prefix, bits, parse_prefix
from flanneld_py.core.tunnel_port import TunnelPort, admission
from flanneld_py.kernel import guard_rules, nf_tables
from flanneld_py.kernel.guard_members import read_received
from flanneld_py.kernel.guard_rules import FOREIGN, FRAGMENT, NO_IP, STRANGER, GuardPlan
from flanneld_py.kernel.guard_table import GuardTable, drop_guard, read_guards
from flanneld_py.kernel.nf_tables_socket import has_nf_tables
from flanneld_py.kernel.vxlan import vxlan_port
from tests.host import number
from tests.underlay_wire import FAR, NODE, Wire, ip, vxlan
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel

MEMBER = {4: "172.30.0.77", 6: "fd30::77"}
OTHER = {4: "172.30.0.78", 6: "fd30::78"}
SUBNET = {4: "10.5.7.0/24", 6: "fd42:0:0:7::/64"}
OTHER_SUBNET = {4: "10.5.8.0/24", 6: "fd42:0:0:8::/64"}
POD = {4: "10.5.7.9", 6: "fd42:0:0:7::9"}
LAST_POD = {4: "10.5.7.255", 6: "fd42:0:0:7:ffff:ffff:ffff:ffff"}
OTHER_POD = {4: "10.5.8.9", 6: "fd42:0:0:8::9"}
OUR_POD = {4: "10.5.1.9", 6: "fd42:0:0:1::9"}
OUTSIDE = {4: "203.0.113.5", 6: "2001:db8::5"}
ALLOWED = {4: "198.51.100.0/24", 6: "2001:db8:aaaa::/48"}
ALLOWED_HOST = {4: "198.51.100.200", 6: "2001:db8:aaaa::7"}
UDP_PORT = TunnelPort(8285, 8)


class Guarded:
    def __init__(self, wire, port=None, *, drop=True, families=(4, 6), own=()):
        self.wire = wire
        plan = GuardPlan(port or vxlan_port(8472, 1), families, tuple(map(parse_prefix, ALLOWED.values())), drop, own)
        lengths = [(4, 24), (6, 64)]
        self.table = wire.node.run(GuardTable, "flannel.1", plan, [one for one in lengths if one[0] in families])
        wire.opened.append(self.table)
        self.table.read()
        for family in families:
            self.admit(family, MEMBER[family], SUBNET[family])
            self.admit(family, OTHER[family], OTHER_SUBNET[family])
        self.table.arm()

    def admit(self, family, address, subnet, *, delete=False):
        outer = number(address)
        entries = (
            admission(family, outer, parse_prefix(subnet)),
            admission(family, outer, Prefix(family, outer, bits(family))),
        )
        assert not self.table.apply([Operation(Kind.DRIVEN, delete, entry) for entry in entries])

    @property
    def counts(self):
        return {reason: count for reason, count in self.table.read_counts().items() if count}


@pytest.fixture
def wire(make_namespace):
    made = Wire(make_namespace)
    if not made.node.run(has_nf_tables):
        pytest.skip("this kernel has no nf_tables: modprobe nf_tables")
    yield made
    made.close()


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param


def inner(family, src, text=b"in", **fields):
    return ip(family, src, OUR_POD[family], **fields) / UDP(sport=1, dport=2) / Raw(text)


def outer(family, src):
    return ip(family, src, NODE[family])


def arrives(guarded, family, packets, port=8472, sentinel=None):
    """Send packets and then what certainly passes; return how many came out before that."""
    wire = guarded.wire
    last = sentinel or outer(family, MEMBER[family]) / vxlan(inner(family, POD[family], b"the last one"))
    with wire.listen(family, port) as listening:
        for packet in (*packets, last):
            wire.send(packet)
        came = 0
        while b"the last one" not in listening.recv(65535):
            came += 1
        return came


def test_a_member_is_let_in_from_its_subnet_and_by_its_own_address(wire, family):
    guarded = Guarded(wire)
    packets = [
        outer(family, MEMBER[family]) / vxlan(inner(family, source))
        for source in (POD[family], LAST_POD[family], str(parse_prefix(SUBNET[family]).base), MEMBER[family])
    ]
    assert arrives(guarded, family, packets) == len(packets)
    assert guarded.counts == {}


def test_a_member_is_let_in_by_what_the_operator_allows(wire, family):
    guarded = Guarded(wire)
    packet = outer(family, MEMBER[family]) / vxlan(inner(family, ALLOWED_HOST[family]))
    assert arrives(guarded, family, [packet]) == 1
    stranger = outer(family, FAR[family]) / vxlan(inner(family, ALLOWED_HOST[family]))
    assert arrives(guarded, family, [stranger]) == 0
    assert guarded.counts == {STRANGER: 1}


@pytest.mark.parametrize("source", [POD, OTHER_POD, OUR_POD, OUTSIDE, FAR, MEMBER], ids=lambda one: one[4])
def test_a_stranger_is_never_let_in(wire, family, source):
    guarded = Guarded(wire)
    assert arrives(guarded, family, [outer(family, FAR[family]) / vxlan(inner(family, source[family]))]) == 0
    assert guarded.counts == {STRANGER: 1}


@pytest.mark.parametrize("source", [OTHER_POD, OUR_POD, OUTSIDE, OTHER, FAR], ids=lambda one: one[4])
def test_a_member_is_not_let_in_with_a_foreign_inner_source(wire, family, source):
    guarded = Guarded(wire)
    assert arrives(guarded, family, [outer(family, MEMBER[family]) / vxlan(inner(family, source[family]))]) == 0
    assert guarded.counts == {FOREIGN: 1}


def test_frames_that_are_no_ip_of_the_family_are_dropped(wire, family):
    guarded = Guarded(wire)
    frame = Ether(src="02:00:00:00:00:77", dst="ff:ff:ff:ff:ff:ff")
    strange = [
        frame / ARP(op=1, psrc="10.5.7.9", pdst="10.5.1.9"),
        frame / inner(10 - family, POD[10 - family]),
        Ether(src="02:00:00:00:00:77", dst="02:00:00:00:00:01", type=0x8100) / Raw(b"\x00\x05\x08\x00" + bytes(60)),
    ]
    assert arrives(guarded, family, [outer(family, MEMBER[family]) / vxlan(one) for one in strange]) == 0
    assert guarded.counts == {NO_IP: 3}


def test_broadcast_and_unknown_macs_do_not_get_a_stranger_in(wire, family):
    guarded = Guarded(wire)
    frames = [
        Ether(src="02:00:00:00:00:77", dst=mac) / inner(family, POD[family])
        for mac in ("ff:ff:ff:ff:ff:ff", "02:de:ad:00:00:01", "01:00:5e:00:00:01")
    ]
    assert arrives(guarded, family, [outer(family, FAR[family]) / vxlan(frame) for frame in frames]) == 0


def test_another_vni_on_the_port_is_not_ours_to_judge(wire, family):
    guarded = Guarded(wire)
    assert arrives(guarded, family, [outer(family, FAR[family]) / vxlan(inner(family, OUTSIDE[family]), vni=2)]) == 1
    assert guarded.counts == {}


def test_truncated_packets_hold_no_frame_that_passes(wire, family):
    guarded = Guarded(wire)
    whole = bytes(vxlan(inner(family, POD[family])))[8:]
    header = 40 if family == 6 else 20
    # From a whole VXLAN header on; what is shorter the vxlan device refuses itself.
    lengths = [8, 8 + 13, 8 + 14, 8 + 14 + header - 9 if family == 4 else 8 + 14 + 23]
    for source in (FAR, MEMBER):
        cut = [outer(family, source[family]) / UDP(sport=1, dport=8472) / Raw(whole[:length]) for length in lengths]
        assert arrives(guarded, family, cut) == 0
    assert sum(guarded.counts.values()) == 2 * len(lengths)


def test_fragments_are_judged_whole_over_ipv4(wire):
    guarded = Guarded(wire)

    def pieces(source, pod):
        whole = outer(4, source) / vxlan(inner(4, pod, bytes(200)))
        whole[IP].id = random.randrange(1, 65535)  # noqa: S311
        return fragment(whole, fragsize=48)

    assert arrives(guarded, 4, pieces(FAR[4], POD[4])) == 0
    assert arrives(guarded, 4, pieces(MEMBER[4], OUR_POD[4])) == 0
    assert guarded.counts == {STRANGER: 1, FOREIGN: 1}
    assert arrives(guarded, 4, pieces(MEMBER[4], POD[4])) == 1


def test_ipv6_fragments_to_the_port_are_dropped_whatever_they_hide(wire):
    guarded = Guarded(wire)

    def in_pieces(source, *, hidden, size):
        extension = IPv6ExtHdrDestOpt() if hidden else None
        upper = vxlan(inner(6, POD[6], bytes(1400)))
        whole = outer(6, source) / IPv6ExtHdrFragment(id=random.randrange(1 << 32))  # noqa: S311
        return fragment6(whole / extension / upper if hidden else whole / upper, size)

    for source in (FAR[6], MEMBER[6]):
        for hidden in (False, True):
            assert arrives(guarded, 6, in_pieces(source, hidden=hidden, size=1280)) == 0
    # The first fragment ends before the UDP header begins.
    head = IPv6(src=FAR[6], dst=NODE[6]) / IPv6ExtHdrFragment(id=7, m=1, offset=0, nh=60) / Raw(b"\x11\x00" + bytes(6))
    rest = bytes(vxlan(inner(6, POD[6])))
    tail = IPv6(src=FAR[6], dst=NODE[6]) / IPv6ExtHdrFragment(id=7, m=0, offset=1, nh=60) / Raw(rest)
    assert arrives(guarded, 6, [head, tail]) == 0
    assert set(guarded.counts) == {FRAGMENT}
    # What goes elsewhere is not the guard's affair.
    upper = UDP(sport=1, dport=7777) / Raw(bytes(1400))
    with wire.listen(6, 7777) as listening:
        for piece in fragment6(outer(6, FAR[6]) / IPv6ExtHdrFragment(id=9) / upper, 1280):
            wire.send(piece)
        assert len(listening.recv(65535)) == 1400


def test_a_member_that_goes_is_a_stranger_and_one_that_comes_is_let_in_at_once(wire, family):
    guarded = Guarded(wire)
    packet = outer(family, MEMBER[family]) / vxlan(inner(family, POD[family]))
    last = outer(family, OTHER[family]) / vxlan(inner(family, OTHER_POD[family], b"the last one"))
    guarded.admit(family, MEMBER[family], SUBNET[family], delete=True)
    assert arrives(guarded, family, [packet], sentinel=last) == 0
    guarded.admit(family, MEMBER[family], SUBNET[family])
    assert arrives(guarded, family, [packet], sentinel=last) == 1


OTHER_LENGTHS = {
    "within a byte": {
        4: ("10.5.128.0/23", "10.5.129.9", "10.5.130.9"),
        6: ("fd42:0:0:80::/60", "fd42:0:0:8f::9", "fd42:0:0:90::9"),
    },
    "two bytes": {
        4: ("10.6.0.0/16", "10.6.255.9", "10.7.0.9"),
        6: ("fd42:0:1::/48", "fd42:0:1:ffff::9", "fd42:0:2::9"),
    },
    "within the last byte": {
        4: ("10.9.7.64/26", "10.9.7.127", "10.9.7.128"),
        6: ("fd42:0:0:9::40/122", "fd42:0:0:9::7f", "fd42:0:0:9::80"),
    },
    "one byte": {4: ("11.0.0.0/8", "11.255.0.9", "12.0.0.9"), 6: ("fc00::/8", "fcff::9", "fb00::9")},
}


@pytest.mark.parametrize("lengths", OTHER_LENGTHS.values(), ids=OTHER_LENGTHS)
def test_a_subnet_of_another_length_is_let_in_when_it_comes(wire, family, lengths):
    guarded = Guarded(wire)
    subnet, *sources = lengths[family]
    guarded.admit(family, MEMBER[family], subnet)
    packets = [outer(family, MEMBER[family]) / vxlan(inner(family, source)) for source in sources]
    assert arrives(guarded, family, packets) == 1
    # A daemon that begins anew knows of that length by the set that is there.
    again = wire.node.run(GuardTable, "flannel.1", guarded.table._plan, [(4, 24), (6, 64)])
    wire.opened.append(again)
    assert parse_prefix(subnet) in {entry.key[2] for entry in again.read()}
    assert not again.arm()


def test_to_log_only_is_to_count_and_let_in(wire, family):
    guarded = Guarded(wire, drop=False)
    packets = [
        outer(family, FAR[family]) / vxlan(inner(family, POD[family])),
        outer(family, MEMBER[family]) / vxlan(inner(family, OUTSIDE[family])),
    ]
    assert arrives(guarded, family, packets) == 2
    assert guarded.counts == {STRANGER: 1, FOREIGN: 1}


def test_plain_ip_in_udp_is_guarded_by_its_version_and_source(wire):
    guarded = Guarded(wire, UDP_PORT, families=(4,))

    def carried(source, packet):
        return outer(4, source) / UDP(sport=8285, dport=8285) / packet

    last = carried(MEMBER[4], inner(4, POD[4], b"the last one"))
    good = [carried(MEMBER[4], inner(4, source)) for source in (POD[4], MEMBER[4], ALLOWED_HOST[4])]
    bad = [
        *(carried(FAR[4], inner(4, source)) for source in (POD[4], OUR_POD[4], OUTSIDE[4])),
        *(carried(MEMBER[4], inner(4, source)) for source in (OTHER_POD[4], OUR_POD[4], OUTSIDE[4])),
        carried(MEMBER[4], inner(6, POD[6])),
        carried(MEMBER[4], Raw(bytes(inner(4, POD[4]))[:14])),
        carried(MEMBER[4], Raw(b"")),
    ]
    assert arrives(guarded, 4, bad, 8285, last) == 0
    assert guarded.counts == {STRANGER: 3, FOREIGN: 5, NO_IP: 1}
    assert arrives(guarded, 4, good, 8285, last) == len(good)


def test_other_ports_are_left_alone(wire, family):
    Guarded(wire)
    with wire.listen(family, 7777) as listening:
        wire.send(outer(family, FAR[family]) / UDP(sport=1, dport=7777) / Raw(b"hello"))
        assert listening.recv(100) == b"hello"


def test_entries_are_read_back_as_they_were_written(wire):
    guarded = Guarded(wire)
    entries = {
        DrivenEntry("guard", (family, number(address), parse_prefix(prefix)))
        for family in (4, 6)
        for address, subnet in ((MEMBER[family], SUBNET[family]), (OTHER[family], OTHER_SUBNET[family]))
        for prefix in (subnet, f"{address}/{bits(family)}")
    }
    assert set(guarded.table.read()) == entries
    if shutil.which("nft") is None:
        pytest.skip("no nft to read what was written: apt-get install nftables")
    listed = wire.node.run(
        lambda: subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True)
    )
    assert "172.30.0.77 . 10.5.0.0 . 7.0.0.0" in listed.stdout
    assert "fd30::77 . fd42:0:0:7::" in listed.stdout
    assert "172.30.0.77 . 172.30.0.77" in listed.stdout


def test_what_is_let_in_is_counted_once_by_who_sent_it(wire, family):
    guarded = Guarded(wire)
    admitted = list(guarded.table.read())
    packets = [
        outer(family, MEMBER[family]) / vxlan(inner(family, POD[family])),
        outer(family, MEMBER[family]) / vxlan(inner(family, MEMBER[family])),
        outer(family, MEMBER[family]) / vxlan(inner(family, ALLOWED_HOST[family])),
        outer(family, MEMBER[family]) / vxlan(inner(family, OTHER_POD[family])),
        outer(family, FAR[family]) / vxlan(inner(family, POD[family])),
    ]
    last = outer(family, OTHER[family]) / vxlan(inner(family, OTHER_POD[family], b"the last one"))
    assert arrives(guarded, family, packets, sentinel=last) == 3
    counted = wire.node.run(read_received, "flannel.1")
    member, other = ((family, number(address[family])) for address in (MEMBER, OTHER))
    came = {key: traffic for key, traffic in counted.items() if traffic.received_packets}
    assert came == {
        member: PeerTraffic(sum(len(bytes(packet)) for packet in packets[:3]), 3),
        other: PeerTraffic(len(bytes(last)), 1),
    }
    assert set(counted) == {(kind, number(host[kind])) for kind in (4, 6) for host in (MEMBER, OTHER)}
    # Who is admitted is the same, and admitting again does not set the counters back.
    assert list(guarded.table.read()) == admitted
    assert not guarded.table.arm()
    guarded.admit(family, MEMBER[family], SUBNET[family])
    assert wire.node.run(read_received, "flannel.1") == counted
    assert wire.node.run(read_received, "flannel.9") == {}


def test_what_counts_nothing_is_read_all_the_same(wire, monkeypatch):
    """As with a kernel before 5.7, which passes over what is said of counting."""
    new_set = nf_tables.new_set
    monkeypatch.setattr(nf_tables, "new_set", lambda *given, **kinds: new_set(*given, **kinds | {"counted": False}))
    guarded = Guarded(wire)
    assert len(list(guarded.table.read())) == 8
    assert wire.node.run(read_received, "flannel.1") == {}


def test_many_at_once_and_those_that_are_gone(wire):
    guarded = Guarded(wire)
    many = [admission(4, 0x0A800000 + index, Prefix(4, (0x640000 + index) << 8, 24)) for index in range(5000)]
    assert not guarded.table.apply([Operation(Kind.DRIVEN, False, entry) for entry in many])
    assert set(many) <= set(guarded.table.read())
    # One of them is gone already: the others go all the same, and its going is no failure.
    deletes = [Operation(Kind.DRIVEN, True, entry) for entry in many]
    assert not guarded.table.apply(deletes[:1])
    assert not guarded.table.apply(deletes)
    assert not set(many) & set(guarded.table.read())


def test_it_is_written_once_and_again_only_where_it_differs(wire):
    guarded = Guarded(wire)
    assert not guarded.table.arm()
    if shutil.which("nft") is None:
        pytest.skip("no nft to damage it with: apt-get install nftables")

    def nft(text):
        wire.node.run(lambda: subprocess.run(["nft", "-f", "-"], check=True, input=text, text=True))

    nft("insert rule inet flannel-guard-flannel.1 input accept")
    assert guarded.table.arm()
    nft("delete table inet flannel-guard-flannel.1")
    assert list(guarded.table.read()) == []
    assert guarded.table.arm()
    assert not guarded.table.arm()


def test_it_lapses_some_time_after_it_is_disarmed_unless_it_is_armed_again(wire, family):
    guarded = Guarded(wire)
    stranger = outer(family, FAR[family]) / vxlan(inner(family, POD[family]))
    for _ in range(2):
        guarded.table.disarm(3600)
        assert arrives(guarded, family, [stranger]) == 0
        # A time that is told again counts from then on.
        assert guarded.table.arm()
        guarded.table.disarm(0.2)
        wait_until(lambda: arrives(guarded, family, [stranger]) == 1)
        assert guarded.table.arm()
        assert arrives(guarded, family, [stranger]) == 0
        assert not guarded.table.arm()


def test_without_a_time_it_is_disarmed_at_once(wire, family):
    guarded = Guarded(wire)
    guarded.table.disarm()
    assert arrives(guarded, family, [outer(family, FAR[family]) / vxlan(inner(family, POD[family]))]) == 1


def test_the_tunnel_is_guarded_where_the_kernel_has_no_chain_for_what_pods_send(wire, family, monkeypatch):
    monkeypatch.setattr(guard_rules, "_BEFORE_MASQUERADING", nf_tables.Hook(99, 99))
    guarded = Guarded(wire, own=(parse_prefix("10.5.1.0/24"),))
    assert arrives(guarded, family, [outer(family, FAR[family]) / vxlan(inner(family, POD[family]))]) == 0
    assert not guarded.table.arm()


def test_guards_are_known_by_name_and_taken_away_one_by_one(wire):
    guarded = Guarded(wire)
    other = wire.node.run(GuardTable, "flannel.2", guarded.table._plan, [])
    wire.opened.append(other)
    other.read()
    assert wire.node.run(read_guards) == {"flannel.1", "flannel.2"}
    wire.node.run(drop_guard, "flannel.1")
    assert wire.node.run(read_guards) == {"flannel.2"}
    wire.node.run(drop_guard, "flannel.1")


def test_it_is_not_armed_with_sets_that_are_not_filled(wire):
    guarded = Guarded(wire)
    wire.node.run(drop_guard, "flannel.1")
    with pytest.raises(KernelError):
        guarded.table.arm()
    assert wire.node.run(read_guards) == set()
