"""The prober: measures both ways to each peer, a bounded number of peers an interval, and remembers what came of it.

Owns whom to probe when. The pure part is `core/probe_results.py`, the port `agent/probe_port.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from flanneld_py.agent.probe_port import PATIENCE, ProbePort, Way
from flanneld_py.core.errors import KernelError
from flanneld_py.core.histogram import Histogram
from flanneld_py.core.prefix import IPV4, format_address
from flanneld_py.core.probe import HEADERS, RowPart
from flanneld_py.core.probe_members import ProbeMembers, node_addresses
from flanneld_py.core.probe_results import (
    OVERLAY,
    STATES,
    UNDERLAY,
    UNTRIED,
    WAITING,
    WAYS,
    MtuSearch,
    PeerResult,
    WayRecord,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.agent.reconciler import Reconciler
    from flanneld_py.agent.startup import Node
    from flanneld_py.core.peer import Peer
    from flanneld_py.core.prefix import Prefix

log = logging.getLogger(__name__)

_SAMPLE = 64
"""Peers that are probed in an interval, whatever the size of the cluster: others have their turn later."""
_LEAST_PATIENCE, _PATIENT = 0.1, 8.0
"""Seconds, and times the small probe's round trip, that a large probe is waited for."""
_ROUND_TRIPS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds: the bounds of the histograms."""


class ProbeCounts:
    """What metrics tell of probes, by the way that they went."""

    def __init__(self) -> None:
        self.sent = dict.fromkeys(WAYS, 0)
        self.lost = dict.fromkeys(WAYS, 0)
        """Without an answer, by peers that have answered lately."""
        self.round_trips = {way: Histogram(_ROUND_TRIPS) for way in WAYS}
        self.states: Counter[str] = Counter()


class _Record:
    """What is remembered of a peer."""

    __slots__ = ("overlay", "peer", "state", "target", "underlay")

    def __init__(self, peer: Peer, target: int) -> None:
        self.peer = peer
        self.state = WAITING
        self.target = target
        """Which of the addresses that a node has in its subnet is probed."""
        self.underlay, self.overlay = WayRecord(), WayRecord()


class Prober:
    """Probes the peers of a reconciler, for whatever this node is at the time."""

    def __init__(
        self,
        port: int,
        interval: float,
        current: Callable[[], Node],
        reconciler: Reconciler,
        ground: GroundKeeper,
        *,
        rng: random.Random,
        probes_overlay: bool = True,
    ) -> None:
        """Prepare; `interval` is in seconds, `current` returns this node as it is now."""
        self.counts = ProbeCounts()
        self._interval = interval
        self._current = current
        self._reconciler = reconciler
        self._ground = ground
        self._rng = rng
        self._probes_overlay = probes_overlay
        self._port = ProbePort(port, self._tell_row)
        self._records: dict[Prefix, _Record] = {}
        self._waiting: list[Peer] = []
        self._visited: set[Prefix] = set()
        self._problem = ""

    @property
    def refused(self) -> dict[str, int]:
        """How many requests were not answered, by reason."""
        return self._port.refused

    async def run(self) -> None:
        """Probe and answer until cancelled."""
        try:
            self._port.open(part.network.family for part in self._current().config.ranges)
        except KernelError as error:
            self._port.close()
            self._problem = str(error)
            log.warning("no probes are sent or answered: %s; see --probe-port", error)
            return
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._probe_some(group)
        finally:
            self._port.close()

    async def _probe_some(self, group: asyncio.TaskGroup) -> None:
        """Probe the next peers, spread over an interval."""
        self._look_around()
        if not self._waiting:
            self._refill()
        some = [self._waiting.pop() for _ in range(min(_SAMPLE, len(self._waiting)))]
        for peer in some:
            if peer.subnet not in self._visited:
                group.create_task(self._visit(peer))
            await asyncio.sleep(self._interval / len(some))
        if not some:
            await asyncio.sleep(self._interval)

    def _look_around(self) -> None:
        """Take note of who is a member, and of the devices by which they come."""
        scope = self._ground.scope
        tunnels = frozenset(scope.devices.values())
        direct = {scope.uplink} if self._ground.follows_underlay else set()
        # What the operator's commands have made (extension) is not known.
        known = tunnels or self._ground.follows_underlay
        self._port.tunnels = tunnels | direct if known else None
        own = self._current().held.lease.subnets
        self._port.members = ProbeMembers(self._reconciler.leases, own)

    def _refill(self) -> None:
        """Begin another round through all peers, in an order that is not that of the other nodes."""
        self._waiting = list(self._reconciler.leases)
        self._rng.shuffle(self._waiting)
        present = {peer.subnet for peer in self._waiting}
        for subnet in self._records.keys() - present:
            self.counts.states[self._records.pop(subnet).state] -= 1

    async def _visit(self, peer: Peer) -> None:
        record = self._find_record(peer)
        self._visited.add(peer.subnet)
        try:
            await self._measure(UNDERLAY, record.underlay, self._underlay_way(peer))
            if self._probes_overlay:
                await self._measure(OVERLAY, record.overlay, self._overlay_way(record))
        finally:
            self._visited.discard(peer.subnet)
        if record.overlay.is_silent or not record.overlay.has_answered:
            record.target ^= 1
        if self._records.get(peer.subnet) is record:
            self._note_state(record)

    def _find_record(self, peer: Peer) -> _Record:
        record = self._records.get(peer.subnet)
        if record is None or record.peer != peer:
            if record is not None:
                self.counts.states[record.state] -= 1
            record = self._records[peer.subnet] = _Record(peer, int(not self._ground.scope.devices))
            self.counts.states[record.state] += 1
        return record

    def _note_state(self, record: _Record) -> None:
        state = self._result(record).state
        self.counts.states[record.state] -= 1
        self.counts.states[state] += 1
        record.state = state

    def _underlay_way(self, peer: Peer) -> Way:
        uplink, family = self._current().uplink, peer.subnet.family
        source = uplink.source if family == IPV4 else uplink.source_ipv6
        return Way(family, peer.public_ip, () if source is None else (int(source),))

    def _overlay_way(self, record: _Record) -> Way:
        subnet = record.peer.subnet
        own = self._current().held.lease.subnets
        sources = next((node_addresses(one) for one in own if one.family == subnet.family), ())
        return Way(subnet.family, node_addresses(subnet)[record.target], sources)

    def _wanted(self, way: str) -> int:
        """Return the largest packet, in bytes, that the network sends."""
        backend = self._current().backend
        return backend.mtu + (backend.overhead if way == UNDERLAY else 0)

    async def _measure(self, name: str, record: WayRecord, way: Way) -> None:
        counts = self.counts
        seconds = await self._port.exchange(way)
        counts.sent[name] += 1
        if seconds is None:
            counts.lost[name] += record.has_answered and not record.is_silent
            record.note_loss()
            return
        record.note_answer(seconds)
        counts.round_trips[name].observe(seconds)
        search = MtuSearch(way.family, self._wanted(name))
        # What has just answered will do so again, if anything arrives: so a narrow path is searched in seconds.
        patience = min(PATIENCE, _LEAST_PATIENCE + seconds * _PATIENT)
        while search.size:
            size = search.size - HEADERS[way.family]
            search.note(arrived=await self._port.exchange(way, size, patience) is not None)
        record.note_mtu(search.found)

    def _result(self, record: _Record) -> PeerResult:
        overlay = record.overlay.result(self._wanted(OVERLAY))
        # A node without a device has an address in its subnet from its first pod on.
        is_direct = record.peer.direct_only or not self._ground.scope.devices
        if is_direct and not record.overlay.has_answered:
            overlay = UNTRIED
        return PeerResult(record.peer.subnet, record.underlay.result(self._wanted(UNDERLAY)), overlay)

    def _tell_row(self, offset: int, room: int) -> RowPart:
        some = list(self._records)[offset : offset + room]
        return RowPart(len(self._records), offset, tuple(self._result(self._records[subnet]) for subnet in some))

    def find_state(self, subnet: Prefix) -> str:
        """Return how the peer with this subnet is, as one of STATES."""
        record = self._records.get(subnet)
        return WAITING if record is None else record.state

    def describe_states(self) -> dict[str, int]:
        """Return how many peers are how; a state that no peer is in is left out."""
        return {state: self.counts.states[state] for state in STATES if self.counts.states[state]}

    def describe(self) -> dict[str, Any]:
        """Return all results, as plain JSON data."""
        return {
            "interval": self._interval,
            "port": self._port.port,
            "problem": self._problem,
            "refused": self.refused,
            "peers": [
                {"public_ip": format_address(record.peer.subnet.family, record.peer.public_ip)}
                | self._result(record).describe()
                for record in self._records.values()
            ],
        }
