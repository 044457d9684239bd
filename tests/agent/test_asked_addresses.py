"""The kernel's own limit of what it asks for: it holds while the daemon does not run, and costs no rightful packet.

The daemon gets no CPU here as long as a test does not wait: its event loop is the test's.
"""

import errno
import json
from functools import partial

import pytest

from flanneld_py.agent import asked_addresses
from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import IPV4
from flanneld_py.kernel.miss_limit import MissLimit
from tests.agent.on_demand_node import OnDemandNode, Sender
from tests.agent.reconciled_node import make_lease
from tests.agent.vandals import RefusingSocket
from tests.fakes.memory_store import MemoryStore
from tests.waiting import until

pytestmark = pytest.mark.kernel

TABLE = "flannel-misses-flannel.1"
MOST = 48
NETWORK = "10.5.0.0/16"


@pytest.fixture
def host(near):
    return near


@pytest.fixture
async def node(host):
    made = OnDemandNode(host, MemoryStore())
    yield made
    await made.stop()


def asked(host):
    """The addresses that the kernel counts, read by nft."""
    listed = json.loads(host.ip(f"-j list set ip {TABLE} asked", "nft"))["nftables"]
    return {element for part in listed for element in part.get("set", {}).get("elem", [])}


def realm(host):
    return host.do(lambda ipr: [it.get_attr("RTA_FLOW") for it in ipr.get_routes(family=2, dst=NETWORK)])


def look(node):
    """Have looked for addresses that nobody will answer."""
    part = node.on_demand._parts[IPV4]
    part.asked._look(part.asked._limit, lambda: node.on_demand._take_unanswered(IPV4))


async def is_reached(far, sender, address):
    """Say whether packets come through, of which the first may be refused while others are in the way."""
    await until(lambda: sender.send(address) in {0, errno.EPERM, errno.EHOSTUNREACH} and far.payloads(address))


async def test_burst_while_the_daemon_gets_no_cpu(node, host, far, sender):
    leases = [make_lease(index) for index in range(2, 102)]
    node.lease_out(*leases)
    await node.ready()
    # Every other subnet is leased.
    errors = [sender.send(f"10.5.{index // 2 + index % 2 * 120}.7") for index in range(4, 204)]
    assert errors == [0] * MOST + [errno.EPERM] * (200 - MOST)
    assert len(node.unresolved()) == MOST
    assert len(asked(host)) == MOST
    await until(lambda: not node.unresolved() and not node.pending())
    for index in range(2, 102):
        await is_reached(far, sender, f"10.5.{index}.7")
    await until(lambda: node.state()[:2] == node.wanted(*leases)[:2])
    assert node.unresolved() == []


async def test_answered_addresses_make_room(node, host, far, sender):
    leases = [make_lease(index) for index in range(2, 202)]
    node.lease_out(*leases)
    await node.ready()
    for index in range(2, 202):
        address = f"10.5.{index}.7"
        assert sender.send(address) == 0
        await until(partial(far.payloads, address))
    assert len(asked(host)) < 16
    await until(lambda: not asked(host))


async def test_address_that_is_asked_for_again_is_counted_again(node, host, far, sender):
    node.lease_out(make_lease(2))
    await node.ready()
    await is_reached(far, sender, "10.5.2.7")
    node.end(make_lease(2))
    await until(lambda: "10.5.2.0/24" not in host.routes())
    node.finder.glance = lambda addresses, found: None
    assert sender.send("10.5.2.7") == 0
    await until(node.pending)
    assert node.unresolved() == ["10.5.2.7"]
    look(node)
    assert asked(host) == {"10.5.2.7"}


@pytest.mark.parametrize("is_leased", [False, True])
async def test_answer_that_the_kernel_does_not_take_is_given_again(host, far, sender, monkeypatch, is_leased):
    monkeypatch.setattr(asked_addresses, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(host, "sock", RefusingSocket(host.sock))
    node = await OnDemandNode(host, MemoryStore()).ready()
    try:
        if is_leased:
            node.lease_out(make_lease(2))
        assert sender.send("10.5.2.7") == 0
        # Nothing is counted any more when the answer comes.
        host.ip(f"flush set ip {TABLE} asked", "nft")
        host.sock.refusals += [errno.ENOMEM] * 2
        await until(lambda: not host.sock.refusals and not node.unresolved())
        if is_leased:
            await is_reached(far, sender, "10.5.2.7")
            await node.follows(make_lease(2))
    finally:
        await node.stop()


async def test_what_another_filter_drops_makes_room_again(node, host, far, sender):
    node.lease_out(make_lease(2))
    await node.ready()
    host.ip("add table ip strict", "nft")
    host.ip("add chain ip strict out { type filter hook postrouting priority 0 ; }", "nft")
    host.ip("add rule ip strict out ip daddr 10.5.128.0/17 drop", "nft")
    assert {sender.send(f"10.5.{index}.7") for index in range(130, 230)} == {errno.EPERM}
    assert len(asked(host)) == MOST
    assert node.unresolved() == []
    await is_reached(far, sender, "10.5.2.7")


@pytest.mark.parametrize("words", ["flush ruleset", f"flush table ip {TABLE}", f"delete chain ip {TABLE} output"])
async def test_table_that_others_take_away_is_restored(node, host, far, sender, words):
    node.lease_out(make_lease(2))
    await node.ready()
    before = host.ip("list ruleset", "nft")
    host.ip(words, "nft")
    await until(lambda: host.ip("list ruleset", "nft") == before)
    await is_reached(far, sender, "10.5.2.7")


async def test_table_that_goes_as_soon_as_it_is_made_is_restored(node, host, monkeypatch):
    ensure, texts = MissLimit.ensure, []

    def ensure_and_lose(limit):
        done = ensure(limit)
        if not texts:
            texts.append(host.ip("list ruleset", "nft"))
            host.ip("flush ruleset", "nft")
        return done

    monkeypatch.setattr(MissLimit, "ensure", ensure_and_lose)
    await node.ready()
    await until(lambda: [host.ip("list ruleset", "nft")] == texts)


async def test_table_that_the_kernel_refuses_to_restore_is_tried_again(node, host, monkeypatch, caplog):
    monkeypatch.setattr(asked_addresses, "_LOOK_EVERY", 0.02)
    await node.ready()
    before = host.ip("list ruleset", "nft")
    ensure, errors = MissLimit.ensure, [KernelError(errno.ENOMEM, "write table", "Out of memory")]

    def refuse_once(limit):
        if errors:
            raise errors.pop()
        return ensure(limit)

    monkeypatch.setattr(MissLimit, "ensure", refuse_once)
    host.ip("flush ruleset", "nft")
    await until(lambda: host.ip("list ruleset", "nft") == before)
    assert "limit of what the kernel asks for not restored" in caplog.text
    assert "Out of memory" in caplog.text


async def test_doubt_stays_while_the_kernel_cannot_be_asked(node):
    await node.ready()
    asked, looks = node.on_demand._parts[IPV4].asked, []

    def break_off():
        raise KernelError(errno.EAGAIN, "read unanswered misses", "the table changed during each of many reads")

    def find_nothing():
        looks.append(1)
        return []

    asked.doubt()
    asked._look(asked._limit, break_off)
    asked._look(asked._limit, find_nothing)
    asked._look(asked._limit, find_nothing)
    assert len(looks) == 1


async def test_realm_of_the_catch_all_is_restored(node, host):
    await node.ready()
    assert realm(host) == [119]
    host.ip(f"route replace {NETWORK} dev flannel.1 proto 119 scope link")
    await until(lambda: realm(host) == [119])


async def test_kernel_without_nftables_answers_without_a_limit(node, host, far, sender, monkeypatch, caplog):
    def refuse(limit):
        raise KernelError(errno.EOPNOTSUPP, "write table", "Operation not supported")

    monkeypatch.setattr(MissLimit, "ensure", refuse)
    node.lease_out(make_lease(2))
    await node.ready()
    assert "bursts of new addresses are not limited" in caplog.text
    assert "Operation not supported" in caplog.text
    assert realm(host) == [None]
    assert [sender.send(f"10.5.{index}.7") for index in range(100, 160)] == [0] * 60
    await until(lambda: not node.unresolved() and not node.pending())
    await is_reached(far, sender, "10.5.2.7")


async def test_what_was_counted_before_a_restart_makes_room(node, host, far, sender):
    former = await OnDemandNode(host, node.store).ready()
    await former.stop()
    assert [sender.send(f"10.5.{index}.7") for index in range(100, 200)].count(0) == MOST
    node.lease_out(make_lease(2))
    await node.ready()
    await is_reached(far, sender, "10.5.2.7")
    await until(lambda: not node.unresolved() and not asked(host))


async def test_pod_is_told_that_the_host_is_unreachable(node, host, far):
    """Who sends is forwarded here, as pods are: the far side takes this host for its router."""
    await node.ready()

    def route_here():
        from pyroute2 import IPRoute

        with IPRoute() as ipr:
            ipr.route("add", dst=NETWORK, gateway="172.30.0.11")

    far.namespace.run(route_here)
    pod = Sender(type("Pod", (), {"namespace": far.namespace}))
    try:
        assert [pod.send(f"10.5.{index}.7") for index in range(100, 100 + MOST)] == [0] * MOST
        assert len(node.unresolved()) == MOST
        assert pod.send("10.5.200.7") == 0
        # The answer is there as soon as the packet is out: all of it is one turn of the kernel.
        assert pod.send("10.5.200.7") == errno.EHOSTUNREACH
        assert len(node.unresolved()) == MOST
    finally:
        pod.close()
