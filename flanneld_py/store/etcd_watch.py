"""RangeWatch: a range of keys as it is and as it changes, across every failure of the store.

Owns the position in etcd's history and the reconnecting. It lists at a revision, watches from the next one, resumes
behind what was applied last, and lists anew where history was lost: compacted, restored, or another cluster's.
Knows nothing of leases.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.backoff import backoff_delay
from flanneld_py.core.errors import StoreError
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import RANGE, WATCH, KeyRange
from flanneld_py.store.etcd_errors import EndpointError, HistoryLostError

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Sequence

    from flanneld_py.store.etcd_client import EtcdClient
    from flanneld_py.store.etcd_stream import EtcdStream

logger = logging.getLogger(__name__)

LONGEST_DELAY = 10.0
"""Seconds between two tries while the store is away: long enough to idle, short enough to be back soon after it."""
LONGEST_SILENCE = 60.0
"""Seconds without a word on a watch until etcd is asked for a sign of life on it."""
LONGEST_ANSWER = 10.0
"""Seconds that this sign may take until the stream counts as dead."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a new list; with the `first` all that was known is void, with the `last` the list is complete."""

    keys: Sequence[pb.KeyValue]
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """Events in the order of etcd's history; a few may come a second time after a reconnect."""

    events: Sequence[pb.Event]


class _Position(NamedTuple):
    cluster_id: int
    raft_term: int  # never falls, unless another history has taken the place of the one that we know
    revision: int  # the last one whose events were all applied


def _position(header: pb.ResponseHeader) -> _Position:
    return _Position(header.cluster_id, header.raft_term, header.revision)


class RangeWatch:
    """One watch of one range; `trouble` says why it cannot be followed now, None while it can."""

    def __init__(self, client: EtcdClient, keys: KeyRange, rng: random.Random) -> None:
        self.trouble: str | None = None
        self._client = client
        self._keys = keys
        self._rng = rng
        self._failures = 0
        self._position: _Position | None = None

    async def follow(self) -> AsyncGenerator[Page | Changes, None]:
        """Yield a list in pages, then changes, then whatever comes next; never end and never raise StoreError."""
        while True:
            try:
                if self._position is None:
                    async with aclosing(self._list()) as pages:
                        async for page in pages:
                            yield page
                else:
                    await self._check_history()
                async with aclosing(self._watch()) as batches:
                    async for changes in batches:
                        yield changes
            except StoreError as error:
                if isinstance(error, HistoryLostError):
                    logger.warning("watch begins anew: keys=%s reason=%s", self._keys, error)
                    self._position = None
                else:
                    self._note_trouble(str(error))
                self._failures += 1
                await asyncio.sleep(backoff_delay(self._failures, self._rng.random(), longest=LONGEST_DELAY))

    async def _check_history(self) -> None:
        """Ask by a small linearizable read whether the history that we know is still etcd's.

        It also gets a new token where ours has expired, which a watch would report in no clear way.
        """
        request = pb.RangeRequest(key=self._keys.start, range_end=self._keys.end, limit=1, keys_only=True)
        self._compare_history((await self._client.call(RANGE, request)).header)

    def _compare_history(self, header: pb.ResponseHeader) -> None:
        known = self._known
        if header.cluster_id != known.cluster_id:
            raise HistoryLostError("another etcd cluster answers")
        if header.raft_term < known.raft_term or header.revision < known.revision:
            raise HistoryLostError(f"etcd was restored: revision {header.revision}, known {known.revision}")

    @property
    def _known(self) -> _Position:
        assert self._position is not None  # noqa: S101 - follow() lists first
        return self._position

    async def _list(self) -> AsyncGenerator[Page, None]:
        self._position = None
        position: _Position | None = None
        async for page in self._client.pages(self._keys):
            first = position is None
            position = position or _position(page.header)
            yield Page(page.kvs, first=first, last=not page.more)
        self._position = position

    async def _watch(self) -> AsyncGenerator[Changes, None]:
        create = pb.WatchCreateRequest(
            key=self._keys.start,
            range_end=self._keys.end,
            start_revision=self._known.revision + 1,
            progress_notify=True,
            fragment=True,
        )
        async with self._client.stream(WATCH) as stream:
            stream.write(pb.WatchRequest(create_request=create))
            while True:
                response = await read_alive(stream)
                self._check(response)
                if response.events:
                    yield Changes(response.events)
                self._advance(response)

    def _check(self, response: pb.WatchResponse) -> None:
        if response.compact_revision:
            raise HistoryLostError(f"history up to revision {response.compact_revision} was compacted")
        if response.canceled:
            # Where the token has expired, etcd 3.5 says no more than "permission denied".
            self._client.forget_token()
            raise StoreError(f"etcd refused the watch: {response.cancel_reason or 'no reason given'}")
        if response.created and response.header.cluster_id:
            # A channel reconnects by itself, so this may be another etcd than the one that listed. A watch from a
            # revision that has not come yet would wait for it in silence. (etcd's grpc-proxy does not say whose it is.)
            self._compare_history(response.header)
        self._note_recovery()

    def _advance(self, response: pb.WatchResponse) -> None:
        """Move the position behind what was applied.

        A header's revision says so only on events that are complete and on the progress notice of this very watch
        (id 0); that of "created" and of an asked-for sign of life (id -1) may lie before events still on their way.
        """
        if response.fragment or response.created or response.watch_id < 0:
            return
        revision = response.events[-1].kv.mod_revision if response.events else response.header.revision
        self._position = self._known._replace(revision=max(revision, self._known.revision))

    def _note_trouble(self, reason: str) -> None:
        if reason != self.trouble:
            logger.warning("store does not answer: keys=%s reason=%s", self._keys, reason)
        self.trouble = reason

    def _note_recovery(self) -> None:
        self._failures = 0
        if self.trouble is not None:
            logger.info("store answers again: keys=%s", self._keys)
        self.trouble = None


async def read_alive(stream: EtcdStream[pb.WatchRequest, pb.WatchResponse]) -> pb.WatchResponse:
    """Return the next response; a stream that has been silent for long must give a sign of life."""
    response = await stream.read(LONGEST_SILENCE)
    if response is None:
        stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        response = await stream.read(LONGEST_ANSWER)
    if response is None:
        raise EndpointError("the watch is silent and gives no sign of life when asked")
    return response
