"""On demand: random leases and packets, evictions, restarts, vandalism and refusals of the kernel.

In the end the kernel holds the peers in use and the routes that belong to no peer, and packets arrive.
"""

import errno
import json
import re

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from flanneld_py.agent import asked_addresses
from flanneld_py.agent.idle_peers import IdlePeers
from flanneld_py.core.lease import encode_key
from flanneld_py.core.prefix import IPV4
from tests.agent.on_demand_node import NETWORKS, FarSide, NodeHost, OnDemandNode, Sender, public_ip
from tests.agent.reconciled_node import make_lease
from tests.agent.vandals import (
    EXAMPLES,
    GATEWAY,
    GENERATIONS,
    HAS_NEXTHOPS,
    INDEXES,
    STEPS,
    VANDALISM,
    Foreign,
    Vandals,
    by_command,
    run_vandals,
)
from tests.fakes.memory_store import MemoryStore
from tests.waiting import until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

NETWORK = str(NETWORKS[IPV4])
TABLE = "flannel-misses-flannel.1"
REALM = 119
REFUSED_FOR = 0.1
REFUSED = {0, errno.EPERM, errno.EHOSTUNREACH}
ALL = frozenset(range(2, 7))
CROWD = ", ".join(f"10.5.200.{last}" for last in range(1, 41))
ON_DEMAND_VANDALISM = VANDALISM | {
    "catch-all deleted": by_command(f"route del {NETWORK} dev flannel.1"),
    "catch-all without its realm": by_command(f"route replace {NETWORK} dev flannel.1 proto 119 scope link"),
    "catch-all elsewhere": by_command(f"route replace {NETWORK} via {GATEWAY} proto static"),
    "subnet made unreachable": by_command("route replace unreachable 10.5.{index}.0/24 proto 119"),
    "rest of the network made unreachable": by_command("route replace unreachable 10.5.128.0/17 proto 119"),
    "miss limit deleted": by_command(f"delete table ip {TABLE}", "nft"),
    "miss limit flushed": by_command(f"flush table ip {TABLE}", "nft"),
    "miss limit changed": by_command(f"insert rule ip {TABLE} ask drop", "nft"),
    "miss limit emptied": by_command(f"flush set ip {TABLE} asked", "nft"),
    "miss limit filled": by_command(f"add element ip {TABLE} asked {{{{ {CROWD} }}}}", "nft"),
}


class PeersInUse(Vandals):
    far_namespace = None
    vandalism = ON_DEMAND_VANDALISM

    async def begin(self):
        self.store = MemoryStore()
        self.far = FarSide(self.far_namespace)
        self.far.listen()
        self.sender = Sender(self.host)
        self.asked_for = set()
        self.make_node()
        await self.node.ready()
        self.limit = self.read_limit()

    def make_node(self):
        self.node = OnDemandNode(
            self.host, self.store, has_nexthops=self.has_nexthops, refused_for=REFUSED_FOR, resync_interval=1e6
        )

    @rule(index=INDEXES, generation=GENERATIONS, steps=STEPS)
    def lease_put(self, index, generation, steps):
        """A node comes, or takes another MAC or another address."""
        number = index + 16 * generation
        self.leases[index] = make_lease(index, mac_index=number, remote=f"172.30.1.{number}")
        self.node.lease_out(self.leases[index])
        self.run(steps)

    @rule(index=INDEXES, steps=STEPS)
    def lease_removed(self, index, steps):
        self.leases.pop(index, None)
        self.node.end(make_lease(index))
        self.run(steps)

    @rule(steps=STEPS)
    def history_lost(self, steps):
        self.store.lose_history()
        self.run(steps)

    @rule(away=st.booleans(), steps=STEPS)
    def store_is_away(self, away, steps):
        self.store.away = "connection refused" if away else None
        self.run(steps)

    @rule(index=INDEXES, last=st.sampled_from([0, 1, 7]), steps=STEPS)
    def packet(self, index, last, steps):
        self.asked_for.add(index)
        self.sender.send(f"10.5.{index}.{last}")
        self.run(steps)

    @rule(first=st.integers(100, 180), steps=STEPS)
    def scan(self, first, steps):
        """More new addresses than may wait, of which nobody leases any."""
        for index in range(first, first + 40):
            self.sender.send(f"10.5.{index}.7")
        self.run(steps)

    @rule(idle=st.sampled_from([0.0, 0.02]), steps=STEPS)
    def idle_peers_go(self, idle, steps):
        node = self.node
        if node.reconciler.leases.complete:
            peers = IdlePeers(self.host.sock, node.finder, node.reconciler, node.ground, node.rng, idle=idle)
            peers.evict()
        self.run(steps)

    @rule(steps=STEPS)
    def killed_and_started(self, steps):
        async def start():
            await self.node.stop()
            self.make_node()
            await self.node.start()

        self.store.away = None
        self.loop.run_until_complete(start())
        self.run(steps)

    @rule(reached=st.sets(INDEXES))
    def quiet(self, reached):
        self.check(reached)

    def check(self, reached=ALL):
        self.store.away = None
        super().check()
        reached = reached & self.leases.keys()
        for index in sorted(reached):
            self.loop.run_until_complete(self.reach(index))
        super().check()
        assert reached <= self.in_use()

    async def reach(self, index):
        lease, address, payload = self.leases[index], f"10.5.{index}.9", f"packet {len(self.far.packets)}".encode()
        self.asked_for.add(index)
        # What was nobody's before is refused for a time.
        await until(lambda: self.sender.send(address, payload) in REFUSED and payload in self.far.payloads(address))
        paths = {(outer, mac) for outer, mac, inner, data in self.far.packets if (inner, data) == (address, payload)}
        assert paths == {(public_ip(lease), json.loads(lease.attrs.backend_data)["VtepMAC"])}

    async def converge(self):
        await self.node.settled()
        try:
            await until(lambda: self.node.is_running() and self.node.device() and self.seen() == self.expected())
            await until(lambda: self.read_limit() == self.limit)
        except AssertionError:
            assert self.seen() == self.expected()
            assert self.read_limit() == self.limit
            raise
        assert self.in_use() <= self.asked_for

    def in_use(self):
        """The leases that have peers."""
        keys = {key: index for index in ALL for key in [encode_key(*make_lease(index)[:2])]}
        return {keys[key] for key in self.node.reconciler.leases.peers}

    def seen(self):
        routes = self.host.do(lambda ipr: list(ipr.get_routes(family=2, table=254)))
        realms = [flow for route in routes if (flow := route.get_attr("RTA_FLOW"))]
        return (*self.node.state(), realms, self.node.unresolved(), self.node.pending())

    def expected(self):
        """What should be seen; None while a peer is in use whose lease has ended."""
        if not self.in_use() <= self.leases.keys():
            return None
        fdb, neighbours, routes = self.node.wanted(*(self.leases[index] for index in self.in_use()))
        nobodys = self.node.on_demand._parts[IPV4].table.nobodys
        return fdb, neighbours, routes | {str(subnet): (None, None, False) for subnet in nobodys}, [REALM], [], 0

    def read_limit(self):
        """The rules of the kernel's own limit, as nft shows them without what is counted at present."""
        listed = self.host.ip("-s list ruleset", "nft")
        return re.sub(r"elements = {[^}]*}", "", listed).split()

    async def end(self):
        await self.node.stop()
        self.sender.close()
        self.far.close()


@EXAMPLES
@HAS_NEXTHOPS
def test_kernel_is_as_the_peers_in_use_say(make_namespace, monkeypatch, has_nexthops, examples):
    monkeypatch.setattr(asked_addresses, "_LOOK_EVERY", 0.05)
    far, here = make_namespace(), make_namespace()
    host = NodeHost(here, far)
    with here.entered():
        run_vandals(
            PeersInUse, examples, host=host, far_namespace=far, foreign=Foreign(host), has_nexthops=has_nexthops
        )
    host.close()
