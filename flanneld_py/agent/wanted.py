"""What the kernel should hold by the leases as they are known now, and how that has changed since it last followed.

Owns which sources of entries there are, and which keys have changed. Decides alone: nothing here reads or writes the
kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.agent.unreachable import UnreachablePeers
from flanneld_py.backends.backend import UnreachableError
from flanneld_py.core.plan import plan_change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flanneld_py.agent.ground import GroundKeeper
    from flanneld_py.backends.backend import EntrySource, Ground
    from flanneld_py.core.entries import Entry
    from flanneld_py.core.lease_table import LeaseTable
    from flanneld_py.core.peer import Peer
    from flanneld_py.core.plan import Operation

_PEERS_AT_ONCE = 500
"""Peers whose entries are worked out before the event loop runs again."""


class EntryChange(NamedTuple):
    """Entries as they were and as they should be; `shared` are those that stay because others need them as well."""

    before: list[Entry]
    after: list[Entry]
    shared: Sequence[Entry] = ()

    def plan(self) -> list[Operation]:
        """Return the ordered operations that make this change."""
        return plan_change(self.before, [*self.shared, *self.after])


class Wanted:
    """What the sources want for the peers of a lease table; `unreachable` are those to which there is no way."""

    def __init__(
        self,
        sources: Sequence[EntrySource],
        keeper: GroundKeeper,
        leases: LeaseTable,
        own_standing: Callable[[Ground], Sequence[Entry]] | None,
    ) -> None:
        """Prepare; `own_standing` returns entries that belong to no peer, beside those of the sources."""
        self.sources = sources
        self.unreachable = UnreachablePeers()
        self._keeper = keeper
        self._leases = leases
        self._own_standing = own_standing
        self._former: dict[str, tuple[Peer, ...]] = {}

    @property
    def has_changed(self) -> bool:
        """Whether there is something that the kernel has not followed yet."""
        return bool(self._former)

    def note(self, formers: Mapping[str, tuple[Peer, ...]]) -> None:
        """Take note of keys whose peers are others now, with those that they had."""
        for key, peers in formers.items():
            # What a key had when the kernel last followed, however often it has changed since.
            self._former.setdefault(key, peers)

    def forget_changes(self) -> None:
        """Take note that all that is wanted now is about to be compared with all that is there."""
        self._former.clear()

    def take_changes(self) -> Iterator[EntryChange]:
        """Yield, in pieces, what the kernel has not followed yet; each is worked out when it is asked for."""
        changed, self._former = list(self._former.items()), {}
        for start in range(0, len(changed), _PEERS_AT_ONCE):
            yield self._change_of(dict(changed[start : start + _PEERS_AT_ONCE]))

    def take_change_of(self, formers: Mapping[str, tuple[Peer, ...]]) -> EntryChange:
        """Return what it means that these keys have just changed, and what they changed before that."""
        return self._change_of({key: self._former.pop(key, former) for key, former in formers.items()})

    def _change_of(self, formers: dict[str, tuple[Peer, ...]]) -> EntryChange:
        """Return what it means for the kernel that these keys had these peers, and have others now."""
        former = [peer for peers in formers.values() for peer in peers]
        current = [peer for key in formers for peer in self._leases.peers.get(key, ())]
        gone = set(former).difference(current)
        shared = self._leases.find_sharing(gone, formers)
        change = EntryChange(self.desired(former), self.desired(current), self.desired(shared))
        self.unreachable.forget(gone)
        return change

    def desired(self, peers: Iterable[Peer]) -> list[Entry]:
        """Return the entries that lead to peers, and note which cannot be reached."""
        ground = self._keeper.ground
        entries: list[Entry] = []
        for peer in peers:
            try:
                for source in self.sources:
                    entries += source.desired(peer, ground)
            except UnreachableError as error:
                self.unreachable.note(peer, str(error))
            else:
                self.unreachable.forget((peer,))
        return entries

    def whole(self) -> Callable[[], Iterator[Sequence[Entry]]]:
        """Return what tells, as often as it is called and in pieces, all that should be there.

        It is the same each time, whatever the store tells meanwhile: that comes as a change to this.
        """
        peers = [peer for peers in {**self._leases.peers, **self._former}.values() for peer in peers]
        standing = self._standing()

        def tell() -> Iterator[Sequence[Entry]]:
            yield standing
            for start in range(0, len(peers), _PEERS_AT_ONCE):
                yield self.desired(peers[start : start + _PEERS_AT_ONCE])

        return tell

    def _standing(self) -> list[Entry]:
        """Return the entries that belong to no peer."""
        ground = self._keeper.ground
        own = () if self._own_standing is None else self._own_standing(ground)
        return [*own, *(entry for source in self.sources for entry in source.standing(ground))]
