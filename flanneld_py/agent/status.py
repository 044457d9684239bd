"""What the daemon tells about itself: health, readiness and status, gathered from its parts when asked."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from flanneld_py import __version__
from flanneld_py.agent.recent_warnings import RecentWarnings
from flanneld_py.core.entries import describe_entry
from flanneld_py.core.prefix import format_address

if TYPE_CHECKING:
    from flanneld_py.agent.guard import Guard
    from flanneld_py.agent.health import Report
    from flanneld_py.agent.lease_keeper import LeaseKeeper
    from flanneld_py.agent.node_follower import NodeFollower
    from flanneld_py.agent.prober import Prober
    from flanneld_py.agent.reconciler import Reconciler
    from flanneld_py.agent.rule_keeper import RuleKeeper
    from flanneld_py.agent.startup import Node
    from flanneld_py.core.peer import Peer
    from flanneld_py.core.peer_traffic import PeerTraffic
    from flanneld_py.core.underlay import Uplink
    from flanneld_py.store.subnet_manager import SubnetManager

_STUCK_AFTER = 60.0
"""Seconds of work that never ends after which the reconciler counts as stuck."""


class NodeStatus:
    """Answers from the first moment on; before `begin`, that the daemon is still starting."""

    def __init__(self) -> None:
        self._parts: tuple[Node, Reconciler, LeaseKeeper] | None = None
        self._rules: RuleKeeper | None = None
        self._guard: Guard | None = None
        self._store: SubnetManager | None = None
        self._follower: NodeFollower | None = None
        self._prober: Prober | None = None
        self._started = time.monotonic()
        self._awaited = "the store"
        self.recent = RecentWarnings()

    def wait_for(self, what: str) -> None:
        """Tell that the start waits for this now."""
        self._awaited = what

    def follow(self, store: SubnetManager) -> None:
        """Tell of this store from now on."""
        self._store = store

    def begin(
        self,
        node: Node,
        reconciler: Reconciler,
        keeper: LeaseKeeper,
        *,
        rules: RuleKeeper,
        guard: Guard,
        follower: NodeFollower,
    ) -> None:
        """Take over the parts to tell about."""
        self._parts = (node, reconciler, keeper)
        self._rules, self._guard = rules, guard
        self._follower = follower

    def probes_by(self, prober: Prober) -> None:
        """Tell of what this prober measures."""
        self._prober = prober

    def go_on(self, node: Node) -> None:
        """Tell of this node from now on."""
        if self._parts is not None:
            self._parts = (node, *self._parts[1:])

    @property
    def is_healthy(self) -> bool:
        """Whether the daemon gets on with its work."""
        return not self.health()[1]

    @property
    def is_ready(self) -> bool:
        """Whether packets are carried."""
        return not self.readiness()[1]

    def health(self) -> Report:
        """Say whether the daemon lives: its reconciler gets to the end of what it does."""
        wrong = []
        if self._parts is not None:
            busy = self._parts[1].busy_since
            if busy is not None and time.monotonic() - busy > _STUCK_AFTER:
                wrong.append(f"the reconciler is stuck since {time.monotonic() - busy:.0f} s")
        return "flanneld is running", wrong

    def readiness(self) -> Report:
        """Say whether packets are carried: lease held, leases of the others known, kernel as it should be."""
        if self._parts is None:
            return "", [f"starting: waits for {self._awaited}", *([self.recent.last] if self.recent.last else [])]
        _, reconciler, _ = self._parts
        wrong = self.outages()
        if not reconciler.leases.complete:
            wrong.append("leases: the store has not told all of them yet")
        elif not reconciler.synced.is_set():
            wrong.append("kernel: the first reconcile is not complete yet")
        uplink = self._follower.describe()["uplink"] if self._follower else None
        if uplink:
            wrong.append(f"uplink: {uplink}")
        return "flanneld is ready", wrong

    def outages(self) -> list[str]:
        """Say what keeps other nodes from pods here that they have reached so far; for any thread to ask."""
        if self._parts is None:
            return []
        _, reconciler, keeper = self._parts
        wrong = []
        if keeper.problem:
            wrong.append(f"lease: {keeper.problem}")
        if reconciler.broken_off:
            wrong.append(f"kernel: {reconciler.broken_off}")
        return wrong

    def describe(self) -> dict[str, Any]:
        """Return the whole status, the peers' list left out, as plain JSON data."""
        _, wrong = self.readiness()
        told: dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "running_seconds": round(time.monotonic() - self._started, 1),
            "ready": not wrong,
            "missing": wrong,
            "warnings": list(self.recent.lines),
        }
        if self._store is not None:
            told["store"] = self._store.describe()
        if self._parts is None:
            return told
        node, reconciler, keeper = self._parts
        told |= {
            "uplink": _describe_uplink(node.uplink),
            "lease": _describe_lease(keeper),
            "backend": {
                "type": node.config.backend_type,
                "mtu": node.backend.mtu,
                "ports": list(node.backend.ports),
            },
            "configuration": self._follower.describe() if self._follower else None,
            "networks": [str(part.network) for part in node.config.ranges],
            "devices": [
                {"name": device.name, "mac": device.mac.hex(":")}
                for device in node.backend.devices(keeper.held.lease).values()
            ],
            **_describe_work(reconciler),
        }
        if self._rules is not None:
            told["rules"] = self._rules.describe()
        if self._guard is not None:
            told["guard"] = self._guard.describe()
        told["probes"] = None if self._prober is None else self._prober.describe_states()
        return told

    def describe_peers(self) -> dict[str, Any]:
        """Return what the leases say of each peer, as plain JSON data."""
        if self._parts is None:
            return {"peers": []}
        node, reconciler, _ = self._parts
        # The operator's commands may reach a peer by anything: the kernel need not hold a route of ours.
        way = {"way": "extension"} if node.config.backend_type == "extension" else {}
        find = None if self._prober is None else self._prober.find_state
        return {
            "peers": [
                _describe_peer(peer)
                | way
                | _describe_traffic(node.backend.read_traffic(peer))
                | ({} if find is None else {"probed": find(peer.subnet)})
                for peer in reconciler.leases
            ]
        }

    def describe_probes(self) -> dict[str, Any]:
        """Return what probes have measured, as plain JSON data; nothing where none are sent."""
        return {} if self._prober is None else self._prober.describe()


def _describe_uplink(uplink: Uplink) -> dict[str, Any]:
    return {
        "name": uplink.interface.name,
        "reason": uplink.reason,
        "mtu": uplink.interface.mtu,
        "sources": [str(source) for source in (uplink.source, uplink.source_ipv6) if source is not None],
        "public_ip": _text(uplink.public_ip),
        "public_ipv6": _text(uplink.public_ipv6),
    }


def _describe_lease(keeper: LeaseKeeper) -> dict[str, Any]:
    return {
        "key": keeper.held.key,
        "lost": keeper.is_lost,
        "problem": keeper.problem,
        "written_by_others": keeper.foreign_writes,
        "reserved": keeper.held.lease.reserved,
        "seconds_left": keeper.time_left,
    }


def _describe_work(reconciler: Reconciler) -> dict[str, Any]:
    """Return what the reconciler has done, and what it could not do."""
    return {
        "peers": sum(map(len, reconciler.leases.peers.values())),
        "kept_without_lease": len(reconciler.leases.missing),
        "skipped": {**reconciler.leases.skipped, **reconciler.leases.rejected},
        "unreachable": {str(peer.subnet): reason for peer, reason in reconciler.unreachable.items()},
        "failing": [
            {
                "entry": describe_entry(failure.operation.entry),
                "attempts": failure.attempts,
                "reason": failure.reason,
            }
            for failure in reconciler.retries
        ],
        "drift": reconciler.drift.counts,
        "rival": reconciler.drift.rival or None,
    }


def _describe_peer(peer: Peer) -> dict[str, str]:
    return {
        "subnet": str(peer.subnet),
        "public_ip": format_address(peer.subnet.family, peer.public_ip),
        "mac": peer.vtep_mac.hex(":"),
    }


def _describe_traffic(traffic: PeerTraffic | None) -> dict[str, Any]:
    return {} if traffic is None else {"traffic": traffic._asdict()}


def _text(address: object) -> str | None:
    return None if address is None else str(address)
