"""The leases of the cluster as this node knows them, kept up to date by the store's events.

Owns what each key stands for: peers that we reach, a lease that is skipped for a reason, or something that cannot be
read. Of a lease only its peers are kept, which is what makes a large cluster fit into little memory.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, assert_never

from flanneld_py.core.lease_event import LeasePut, LeaseRejected, LeaseRemoved, LeaseSnapshot
from flanneld_py.core.peer import RefusedError, refuse_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flanneld_py.core.lease import Lease
    from flanneld_py.core.lease_event import LeaseEvent
    from flanneld_py.core.peer import Members, Peer


class LeaseTable:
    """Peers by the key of their lease; `skipped` and `rejected` give the reason for the keys that have none.

    A lease that is skipped has been read and refused; a rejected key or value cannot be read. What a key held before
    something unreadable was written there goes on until the key is mended or deleted: a slip of the pen takes no node
    off the network. `complete` is set once all leases have been told.
    """

    def __init__(self, read_peers: Callable[[Lease], tuple[Peer, ...]], members: Members) -> None:
        """Begin empty; `read_peers` turns a lease into peers or raises ValueError saying why it has none."""
        self._read_peers = read_peers
        self._members = members
        self._unseen: set[str] = set()
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

    def count_skipped(self) -> dict[str, int]:
        """Return how many keys have no peers, by the kind of reason; there are a few kinds, however many keys."""
        return Counter([*self._kinds.values(), *("unreadable" for _ in self.rejected)])

    def apply(self, events: Iterable[LeaseEvent]) -> dict[str, tuple[Peer, ...]]:
        """Take over a batch of events; return the keys whose peers are others now, with those that they had."""
        former: dict[str, tuple[Peer, ...]] = {}
        for event in events:
            match event:
                case LeaseSnapshot():
                    self._apply_snapshot(event, former)
                case LeasePut(key=key, lease=lease):
                    self._put(key, lease, former)
                case LeaseRejected(key=key, reason=reason):
                    self._refuse(self.rejected, key, reason, self.rejected.get(key))
                case LeaseRemoved(key=key):
                    self._remove(key, former)
                case _:
                    assert_never(event)
        return {key: peers for key, peers in former.items() if self.peers.get(key, ()) != peers}

    def _apply_snapshot(self, part: LeaseSnapshot, former: dict[str, tuple[Peer, ...]]) -> None:
        if part.first:
            self._unseen = self.peers.keys() | self.skipped.keys() | self.rejected.keys()
        for key, lease in part.leases.items():
            self._put(key, lease, former)
        for key, reason in part.rejected.items():
            self._refuse(self.rejected, key, reason, self.rejected.get(key))
        self._unseen -= part.leases.keys() | part.rejected.keys()
        if part.last:
            for key in self._unseen:
                self._remove(key, former)
            self._unseen = set()
            self.complete = True

    def _put(self, key: str, lease: Lease, former: dict[str, tuple[Peer, ...]]) -> None:
        before = self.rejected.pop(key, None) or self.skipped.pop(key, None)
        self._kinds.pop(key, None)
        peers: tuple[Peer, ...] = ()
        if key != self._members.own_key:
            try:
                refuse_foreign(lease, self._members)
                peers = self._read_peers(lease)
            except ValueError as error:
                self._refuse(self.skipped, key, str(error), before)
                self._kinds[key] = error.kind if isinstance(error, RefusedError) else "backend data"
        former.setdefault(key, self.peers.get(key, ()))
        if peers:
            self.peers[key] = peers
        else:
            self.peers.pop(key, None)

    def _refuse(self, table: dict[str, str], key: str, reason: str, before: str | None) -> None:
        table[key] = reason
        if reason != before:
            self._news[key] = reason

    def _remove(self, key: str, former: dict[str, tuple[Peer, ...]]) -> None:
        self.rejected.pop(key, None)
        self.skipped.pop(key, None)
        self._kinds.pop(key, None)
        former.setdefault(key, self.peers.pop(key, ()))
