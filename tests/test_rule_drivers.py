"""What the rules do to packets, whichever driver writes them."""

import shutil
import socket
import struct
import subprocess

import pytest

from flanneld_py.core.prefix import IPV4, IPV6
from flanneld_py.core.traffic_rules import RuleWish, desired_rules
from flanneld_py.kernel.iptables import find_iptables
from flanneld_py.kernel.nf_tables import NFNLGRP_NFTABLES
from flanneld_py.kernel.nf_tables_socket import has_nf_tables
from flanneld_py.kernel.nft_rules import NftRules
from tests.router import Router

pytestmark = pytest.mark.kernel

ALL = RuleWish(masquerade=True, random_ports=True, forward=True)


def make_driver(name, namespace, family):
    if name == "nftables":
        if not namespace.run(has_nf_tables):
            pytest.skip("this kernel has no nf_tables: modprobe nf_tables")
        return namespace.run(NftRules)
    found = find_iptables([family])
    if found is None:
        pytest.skip("no iptables: apt-get install iptables")
    return found


def listen_to_nf_tables():
    """What `nft monitor` listens to."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    opened.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
    return opened


class Ruled:
    """A router, a driver, and the rules that the router has by it."""

    def __init__(self, router, driver):
        self.router, self.driver = router, driver

    def write(self, wish=ALL):
        at = self.router.at
        return self.router.host.run(self.driver.ensure, desired_rules([(at.network, at.own)], wish))

    def run(self, *command, text=None):
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]}: apt-get install {command[0]}")
        done = self.router.host.run(
            lambda: subprocess.run(command, input=text, check=False, capture_output=True, text=True)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=["nftables", "iptables"])
def driver_name(request):
    return request.param


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param


@pytest.fixture
def ruled(make_namespace, driver_name, family):
    router = Router(make_namespace, family)
    driver = make_driver(driver_name, router.host, family)
    yield Ruled(router, driver)
    driver.close()
    router.close()


def test_who_is_masqueraded_and_who_is_not(ruled):
    router, at = ruled.router, ruled.router.at
    assert router.source_seen("pod", "outside") == at.pod
    assert ruled.write()
    seen = router.source_seen
    assert seen("pod", "outside") == at.node
    assert seen("remote", "outside") == at.node
    assert seen("pod", "remote") == at.pod
    assert seen("remote", "pod") == at.remote
    assert seen("outside", "pod") == at.outside
    # By an address that the other node answers over the network.
    assert seen("node", "remote", bind=at.node) == at.tunnel
    assert seen("node", "pod", bind=at.node) == at.node
    # On its way to a pod elsewhere this node masquerades, or the answer would take another way.
    assert seen("outside", "remote") == at.tunnel


def test_what_kube_proxy_has_marked_is_left_alone(ruled):
    at = ruled.router.at
    ruled.write()
    assert ruled.router.source_seen("node", "remote", bind=at.node, mark=0x4000) == at.node
    assert ruled.router.source_seen("node", "remote", bind=at.node, mark=0x14001) == at.node
    assert ruled.router.source_seen("node", "remote", bind=at.node, mark=0x8000) == at.tunnel


def test_multicast_is_left_alone(ruled):
    router, at = ruled.router, ruled.router.at
    ruled.write()
    near = router.host.run(socket.if_nametoindex, "eth0")
    far = router.places["outside"].run(socket.if_nametoindex, "eth0")

    def join(sending, listening):
        if at.family == IPV4:
            group = socket.inet_aton(at.group)
            sending.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), near)
            )
            joined = struct.pack("=4s4si", group, bytes(4), far)
            listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        else:
            group = socket.inet_pton(socket.AF_INET6, at.group)
            sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, near)
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16si", group, far))

    assert router.source_seen("node", "outside", to=at.group, bind=at.bridge, prepare=join) == at.bridge


def test_without_the_wish_nothing_is_masqueraded(ruled):
    at = ruled.router.at
    ruled.write()
    assert ruled.write(RuleWish(masquerade=False, random_ports=True, forward=True))
    assert ruled.router.source_seen("pod", "outside") == at.pod


def test_an_unchanged_rule_set_is_not_written_again(ruled):
    assert ruled.write()
    assert not any(ruled.write() for _ in range(3))
    # A driver that knows nothing of the former one finds all as it should be.
    again = Ruled(ruled.router, make_driver(ruled.driver.name, ruled.router.host, ruled.router.at.family))
    assert not again.write()
    again.driver.close()


def test_it_is_the_same_after_a_hundred_times_beside_foreign_rules(ruled):
    word = {IPV4: "", IPV6: "6"}[ruled.router.at.family]
    ruled.run("nft", "-f", "-", text="table ip other { chain c { type filter hook forward priority 0; }; }")
    if ruled.driver.name == "iptables":
        ruled.run(f"ip{word}tables", "-A", "FORWARD", "-i", "lo", "-j", "DROP")
    ruled.write()
    # With their handles: nothing was taken away and made again.
    before = ruled.run("nft", "-a", "list", "ruleset")
    with ruled.router.host.run(listen_to_nf_tables) as told:
        assert not any(ruled.write() for _ in range(100))
        told.setblocking(False)
        with pytest.raises(BlockingIOError):
            told.recv(1 << 16)
    assert ruled.run("nft", "-a", "list", "ruleset") == before
    ruled.router.host.run(ruled.driver.clear)
    after = ruled.run("nft", "list", "ruleset")
    assert "table ip other" in after
    assert "flannel" not in after.lower()
    assert ruled.driver.name == "nftables" or 'iifname "lo"' in after


@pytest.mark.parametrize("wish", [ALL, RuleWish(masquerade=True, random_ports=False, forward=False)])
def test_all_that_was_written_can_be_taken_away(ruled, wish):
    ruled.write(wish)
    assert ruled.router.host.run(ruled.driver.clear)
    assert not ruled.router.host.run(ruled.driver.clear)
    assert ruled.router.source_seen("pod", "outside") == ruled.router.at.pod


@pytest.mark.parametrize("driver_name", ["iptables"], indirect=True)
@pytest.mark.parametrize("family", [IPV4], indirect=True)
class TestBesideOthersInIptables:
    def test_a_policy_of_drop_is_survived(self, ruled):
        ruled.run("iptables", "-P", "FORWARD", "DROP")
        assert ruled.router.source_seen("pod", "outside") is None
        ruled.write()
        assert ruled.router.source_seen("pod", "outside") == ruled.router.at.node
        assert ruled.router.source_seen("outside", "pod") == ruled.router.at.outside

    def test_a_last_rule_that_rejects_all_is_survived(self, ruled):
        ruled.write()
        ruled.run("iptables", "-F", "FORWARD")
        ruled.run("iptables", "-A", "FORWARD", "-d", ruled.router.at.remote, "-j", "DROP")
        ruled.run("iptables", "-A", "FORWARD", "-j", "REJECT")
        assert ruled.write()
        assert not ruled.write()
        # What others refuse before that stays refused.
        assert ruled.router.source_seen("pod", "remote") is None
        assert ruled.router.source_seen("pod", "outside") == ruled.router.at.node

    def test_rules_of_go_flannel_are_taken_over_as_they_are(self, ruled):
        at = ruled.router.at
        masq, forward = (
            ("-m", "comment", "--comment", "flanneld masq"),
            ("-m", "comment", "--comment", "flanneld forward"),
        )
        network, own = str(at.network), str(at.own)
        ruled.run("iptables", "-t", "nat", "-N", "FLANNEL-POSTRTG")
        ruled.run("iptables", "-N", "FLANNEL-FWD")
        ruled.run("iptables", "-t", "nat", "-A", "POSTROUTING", *masq, "-j", "FLANNEL-POSTRTG")
        ruled.run("iptables", "-A", "FORWARD", *forward, "-j", "FLANNEL-FWD")
        for words in (
            ("-m", "mark", "--mark", "0x4000/0x4000", *masq, "-j", "RETURN"),
            ("-s", own, "-d", network, *masq, "-j", "RETURN"),
            ("-s", network, "-d", own, *masq, "-j", "RETURN"),
            ("!", "-s", network, "-d", own, *masq, "-j", "RETURN"),
            ("-s", network, "!", "-d", "224.0.0.0/4", *masq, "-j", "MASQUERADE", "--random-fully"),
            ("!", "-s", network, "-d", network, *masq, "-j", "MASQUERADE", "--random-fully"),
        ):
            ruled.run("iptables", "-t", "nat", "-A", "FLANNEL-POSTRTG", *words)
        for option in ("-s", "-d"):
            ruled.run("iptables", "-A", "FLANNEL-FWD", option, network, *forward, "-j", "ACCEPT")
        assert not ruled.write()

    def test_what_others_have_is_left_alone(self, ruled):
        ruled.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.0/24", "-j", "MASQUERADE")
        before = ruled.run("iptables-save", "-t", "nat")
        ruled.write()
        ruled.router.host.run(ruled.driver.clear)
        kept = [line for line in ruled.run("iptables-save", "-t", "nat").splitlines() if not line.startswith("#")]
        assert kept == [line for line in before.splitlines() if not line.startswith("#")]

    @pytest.mark.parametrize(
        "damage",
        [
            ("-t", "nat", "-F", "FLANNEL-POSTRTG"),
            ("-t", "nat", "-D", "FLANNEL-POSTRTG", "2"),
            ("-t", "nat", "-I", "FLANNEL-POSTRTG", "-j", "ACCEPT"),
            ("-t", "nat", "-F", "POSTROUTING"),
            ("-F", "FORWARD"),
        ],
    )
    def test_what_others_change_is_restored(self, ruled, damage):
        ruled.write()
        whole = ruled.run("iptables-save", "-t", "nat").splitlines()[1:-1]
        ruled.run("iptables", *damage)
        assert ruled.write()
        assert ruled.run("iptables-save", "-t", "nat").splitlines()[1:-1] == whole
        assert not ruled.write()


@pytest.mark.parametrize("driver_name", ["nftables"], indirect=True)
@pytest.mark.parametrize("family", [IPV4], indirect=True)
class TestBesideOthersInNftables:
    @pytest.mark.parametrize(
        "damage",
        [
            "flush ruleset",
            "delete table ip flannel-ipv4",
            "flush chain ip flannel-ipv4 postrtg",
            "insert rule ip flannel-ipv4 postrtg accept",
            "add rule ip flannel-ipv4 forward drop",
            "add chain ip flannel-ipv4 foreign",
            "chain ip flannel-ipv4 forward { policy drop; }",
        ],
    )
    def test_what_others_change_is_restored(self, ruled, damage):
        ruled.write()
        whole = ruled.run("nft", "list", "ruleset")
        ruled.run("nft", "-f", "-", text=damage)
        assert ruled.write()
        assert ruled.run("nft", "list", "ruleset") == whole
        assert not ruled.write()

    def test_rules_that_read_alike_but_are_others_are_told_apart(self, ruled):
        ruled.write()
        listed = ruled.run("nft", "list", "ruleset")
        for old, new in (("0x00004000 return", "0x00004000 accept"), ("saddr != 10.5.0.0/16", "saddr 10.5.0.0/16")):
            ruled.run("nft", "-f", "-", text="flush ruleset\n" + listed.replace(old, new))
            assert ruled.write(), new
            assert ruled.run("nft", "list", "ruleset") == listed
