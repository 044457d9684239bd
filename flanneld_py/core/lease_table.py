"""The leases of the cluster as this node knows them, kept up to date by the store's events.

Owns what each key stands for: peers that we reach, a lease that is skipped for a reason, or something that cannot be
read. Of a lease only its peers are kept, which is what makes a large cluster fit into little memory.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, assert_never

from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.overlaps import Overlaps
from flanneld_py.core.peer import RefusedError, refuse_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Iterator

    from flanneld_py.core.lease import Lease
    from flanneld_py.core.lease_event import LeaseEvent
    from flanneld_py.core.peer import Members, Peer


class LeaseTable:
    """Peers by the key of their lease; `skipped` and `rejected` give the reason for the keys that have none.

    A lease that is skipped has been read and refused; a rejected key or value cannot be read. What a key held before
    something unreadable was written there goes on until the key is mended or deleted: a slip of the pen takes no node
    off the network. `complete` is set once all leases have been told.

    What a new snapshot lacks stays as well, for `grace` seconds or until something is told of it or of its subnet: a
    store that was restored, or came back empty, is told anew by the nodes that live. `missing` says until when. Until
    `prune_after` nothing that the kernel holds from before is superfluous, because the first snapshot was empty.

    Of two leases of different nodes that share an address one goes before the other, the same on every node and
    whichever was told first: one of the length that the network gives before others, then the longer, then by key.
    """

    def __init__(
        self, read_peers: Callable[[Lease], tuple[Peer, ...]], members: Members, *, grace: float = 0.0
    ) -> None:
        """Begin empty; `read_peers` turns a lease into peers or raises ValueError saying why it has none."""
        self._read_peers = read_peers
        self._members = members
        self._grace = grace
        self._unseen: set[str] = set()
        self._overlaps = Overlaps()
        self._held_back: dict[str, tuple[Peer, ...]] = {}
        self.missing: dict[str, float] = {}
        self.prune_after = 0.0
        self.peers: dict[str, tuple[Peer, ...]] = {}
        self.skipped: dict[str, str] = {}
        self.rejected: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._news: dict[str, str] = {}
        self.complete = False

    def rebase(self, read_peers: Callable[[Lease], tuple[Peer, ...]], members: Members) -> bool:
        """Judge leases like this from now on; return whether those known so far should be told again."""
        changed = members != self._members
        self._read_peers, self._members = read_peers, members
        return changed

    def __iter__(self) -> Iterator[Peer]:
        for peers in self.peers.values():
            yield from peers

    def take_news(self) -> dict[str, str]:
        """Return the keys that have been refused since the last time, or for another reason, with the reason."""
        news, self._news = self._news, {}
        return news

    def is_refused_as(self, kind: str, keys: Iterable[str]) -> bool:
        """Say whether one of these keys has been refused for a reason of this kind."""
        return any(self._kinds.get(key) == kind for key in keys)

    def count_skipped(self) -> dict[str, int]:
        """Return how many keys have no peers, by the kind of reason; there are a few kinds, however many keys."""
        return Counter([*self._kinds.values(), *("unreadable" for _ in self.rejected)])

    def apply(self, events: Iterable[LeaseEvent], now: float = 0.0) -> dict[str, tuple[Peer, ...]]:
        """Take over a batch of events; return the keys whose peers are others now, with those that they had."""
        former: dict[str, tuple[Peer, ...]] = {}
        for event in events:
            match event:
                case LeaseSnapshot():
                    self._apply_snapshot(event, former, now)
                case LeasePut(key=key, lease=lease):
                    self._put(key, lease, former)
                case LeaseRejected(key=key, reason=reason):
                    self._refuse(self.rejected, key, reason, self.rejected.get(key))
                case LeaseRemoved(key=key):
                    self._remove(key, former)
                case _:
                    assert_never(event)
        return {key: peers for key, peers in former.items() if self.peers.get(key, ()) != peers}

    def find_sharing(self, gone: Collection[Peer], keys: Container[str]) -> list[Peer]:
        """Return the peers, of other keys, that have in common with peers that are gone what the kernel has but once.

        A node that moved to another subnet has two leases with one MAC for a while, and one whose network became
        dual-stack two with one IPv4 subnet.
        """
        if not gone:
            return []
        macs, subnets = {peer.vtep_mac for peer in gone} - {b""}, {peer.subnet for peer in gone}
        publics = {(peer.subnet.family, peer.public_ip) for peer in gone}
        return [
            peer
            for key, peers in self.peers.items()
            for peer in peers
            if key not in keys
            and (peer.vtep_mac in macs or peer.subnet in subnets or (peer.subnet.family, peer.public_ip) in publics)
        ]

    def expire(self, now: float) -> dict[str, tuple[Peer, ...]]:
        """Remove what the store lacks and whose time is up; return it as `apply` does."""
        former: dict[str, tuple[Peer, ...]] = {}
        for key in [key for key, due in self.missing.items() if due <= now]:
            self._remove(key, former)
        return former

    def next_expiry(self) -> float | None:
        """Return when something is due to be removed, None if nothing is."""
        return min(self.missing.values(), default=None)

    def _apply_snapshot(self, part: LeaseSnapshot, former: dict[str, tuple[Peer, ...]], now: float) -> None:
        if part.first:
            self._unseen = self.peers.keys() | self.skipped.keys() | self.rejected.keys()
        for key, lease in part.leases.items():
            self._put(key, lease, former)
        for key, reason in part.rejected.items():
            self._refuse(self.rejected, key, reason, self.rejected.get(key))
        self._unseen -= part.leases.keys() | part.rejected.keys()
        if part.last:
            for key in self._unseen:
                if self._grace and key in self.peers:
                    self.missing.setdefault(key, now + self._grace)
                else:
                    self._remove(key, former)
            self._unseen = set()
            if not self.complete and not self.peers:
                self.prune_after = now + self._grace
            self.complete = True

    def _put(self, key: str, lease: Lease, former: dict[str, tuple[Peer, ...]]) -> None:
        before = self._forget(key)
        peers: tuple[Peer, ...] = ()
        if key != self._members.own_key:
            try:
                refuse_foreign(lease, self._members)
                peers = self._read_peers(lease)
            except ValueError as error:
                self._refuse(self.skipped, key, str(error), before)
                self._kinds[key] = error.kind if isinstance(error, RefusedError) else "backend data"
        self._change(key, peers, former, before)
        if self.peers:
            self.prune_after = 0.0

    def _refuse(self, table: dict[str, str], key: str, reason: str, before: str | None) -> None:
        table[key] = reason
        if reason != before:
            self._news[key] = reason

    def _remove(self, key: str, former: dict[str, tuple[Peer, ...]]) -> None:
        self._forget(key)
        self._change(key, (), former, None)

    def _forget(self, key: str) -> str | None:
        """Forget all of a key but its peers; return why it was refused."""
        self._kinds.pop(key, None)
        self.missing.pop(key, None)
        return self.rejected.pop(key, None) or self.skipped.pop(key, None)

    def _change(
        self, key: str, peers: tuple[Peer, ...], former: dict[str, tuple[Peer, ...]], reason: str | None
    ) -> None:
        """Have a key, refused for a `reason` so far, lead to these peers; judge anew who shares an address with it."""
        known = self.peers.pop(key, None)
        former.setdefault(key, known or ())
        before = self._held_back.pop(key, ()) if known is None else known
        if before != peers:
            self._overlaps.discard(key, (peer.subnet for peer in before))
            self._overlaps.add(key, (peer.subnet for peer in peers))
        if peers:
            self.peers[key] = peers
        sharing = {other for peer in (*before, *peers) for other in self._overlaps.find(peer.subnet)}
        if sharing - {key}:
            for other in sharing:
                self._judge(other, former, reason if other == key else self.skipped.get(other))

    def _judge(self, key: str, former: dict[str, tuple[Peer, ...]], before: str | None) -> None:
        """Hold a key's peers back if another's go before them, else let them in."""
        peers = self.peers.get(key) or self._held_back.get(key, ())
        reason = next((reason for peer in peers if (reason := self._find_better(key, peer))), None)
        if reason is not None:
            if key in self.peers:
                former.setdefault(key, self.peers[key])
                self._held_back[key] = self.peers.pop(key)
            self._refuse(self.skipped, key, reason, before)
            self._kinds[key] = "overlap"
        elif key in self._held_back:
            former.setdefault(key, ())
            self.peers[key] = self._held_back.pop(key)
            self.skipped.pop(key, None)
            self._kinds.pop(key, None)

    def _find_better(self, key: str, peer: Peer) -> str | None:
        """Return why another lease goes before this one, None if none does."""
        rank = self._rank(key, peer)
        for name in self._overlaps.find(peer.subnet):
            for other in self.peers.get(name) or self._held_back.get(name, ()):
                is_rival = other.public_ip != peer.public_ip and other.subnet.overlaps(peer.subnet)
                if is_rival and self._rank(name, other) < rank:
                    return f"{peer.subnet} overlaps {other.subnet} of lease {name}, which goes before it"
        return None

    def _rank(self, key: str, peer: Peer) -> tuple[bool, bool, int, str]:
        is_usual = peer.subnet.length in self._members.lengths
        return key in self.missing, not is_usual, -peer.subnet.length, key
