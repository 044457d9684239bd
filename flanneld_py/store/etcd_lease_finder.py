"""EtcdLeaseFinder: single leases, found by an address and followed, so that what a node costs etcd is what it uses.

Owns the reading of one key or a few, and one watch stream for all keys that are followed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from flanneld_py.core.backoff import backoff_delay
from flanneld_py.core.errors import StoreError
from flanneld_py.core.lease import Lease, parse_key
from flanneld_py.core.lease_event import LeasePut, LeaseRemoved
from flanneld_py.core.prefix import IPV4, Prefix, format_address, gap_around, prefix_around
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import RANGE, TXN, WATCH, keys_below
from flanneld_py.store.etcd_records import read_event, read_lease
from flanneld_py.store.etcd_watch import LONGEST_DELAY, read_alive
from flanneld_py.store.waiting import wait_for_either

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Callable, Sequence

    from flanneld_py.core.lease_event import LeaseChange
    from flanneld_py.core.misses import Miss
    from flanneld_py.store.etcd_client import EtcdClient
    from flanneld_py.store.etcd_records import Layout
    from flanneld_py.store.etcd_stream import EtcdStream

    WatchStream = EtcdStream[pb.WatchRequest, pb.WatchResponse]

logger = logging.getLogger(__name__)

_RARE_LENGTHS_AGE = 60.0
"""Seconds between two reads of all keys in search of subnets of another length than the network's."""
_READS_AT_ONCE = 100
_GLANCE_PATIENCE = 0.5
"""Seconds until a glance that is not answered counts as nothing."""


class EtcdLeaseFinder:
    """See LeaseFinder. For IPv4: there the beginning of a lease's key follows from an address.

    An address costs etcd a read of one key, and one of all keys at most once a minute.
    """

    def __init__(self, client: EtcdClient, layout: Layout, subnet_len: int, rng: random.Random) -> None:
        """Prepare; most leases are expected to have subnets of `subnet_len`."""
        self.trouble: str | None = None
        self._client = client
        self._layout = layout
        self._subnet_len = subnet_len
        self._rng = rng
        self._rare: dict[Prefix, str] = {}
        self._rare_read_at: float | None = None
        self._reading_rare: asyncio.Task[None] | None = None
        self._followed: dict[str, int] = {}
        self._watched: dict[str, int] = {}
        self._touched: set[str] = set()
        self._next_id = 1
        self._changed = asyncio.Event()
        self._revisions: dict[str, int] = {}

    async def find_lease(self, miss: Miss) -> LeasePut | None:
        """Return the lease whose subnet holds an address; None if there is none, or none that can be read."""
        address = miss.address
        found = self._pick(await self._client.call(RANGE, self._request(address)), address)
        if found is not None:
            return found
        await self._refresh_rare_lengths()
        for subnet, name in self._rare.items():
            if subnet.holds(address):
                request = pb.RangeRequest(key=self._layout.lease_key(name))
                return self._pick(await self._client.call(RANGE, request), address)
        return None

    def glance(self, misses: Sequence[Miss], found: Callable[[Miss, LeasePut | None], None]) -> None:
        """Have `found` called with each address and the lease that one member of the cluster knows for it.

        With None where it knows none, or gives no answer: `find_lease` says whether that is true. Never waits.
        """
        # A member answers this from what it has, without asking the others: a lease that is out of date does no harm,
        # since following it begins with that revision. Only that there is none must be true.
        self._client.ask(
            RANGE,
            [(self._request(miss.address, serializable=True), partial(self._tell, miss, found)) for miss in misses],
            _GLANCE_PATIENCE,
        )

    def _tell(
        self, miss: Miss, found: Callable[[Miss, LeasePut | None], None], response: pb.RangeResponse | None
    ) -> None:
        found(miss, None if response is None else self._pick(response, miss.address))

    def _request(self, address: int, *, serializable: bool = False) -> pb.RangeRequest:
        """Return the read of what begins where an address's subnet does."""
        base = prefix_around(IPV4, address, self._subnet_len).address
        keys = keys_below(self._layout.lease_key(f"{format_address(IPV4, base)}-"))
        return pb.RangeRequest(key=keys.start, range_end=keys.end, serializable=serializable)

    def _pick(self, response: pb.RangeResponse, address: int) -> LeasePut | None:
        """Return the lease among those read whose subnet holds an address."""
        for record in response.kvs:
            name = self._layout.lease_name(record.key)
            lease = read_lease(name, record)
            if not isinstance(lease, Lease) or lease.subnet is None:
                continue
            if lease.subnet.holds(address):
                self._revisions[name] = response.header.revision
                return LeasePut(name, lease, record.mod_revision)
            self._rare[lease.subnet] = name
        return None

    def gap_around(self, subnet: Prefix, address: int) -> Prefix:
        """Return the largest part of a subnet, around an address without a lease, that nobody leases."""
        return gap_around(subnet, address, self._rare)

    async def _refresh_rare_lengths(self) -> None:
        if self._rare_read_at is not None and time.monotonic() - self._rare_read_at < _RARE_LENGTHS_AGE:
            return
        # Whoever waits may lose patience; the reading goes on, or nobody would ever see the end of it.
        if self._reading_rare is None:
            self._reading_rare = asyncio.create_task(self._read_rare_lengths(), name="read rare lengths")
            self._reading_rare.add_done_callback(self._end_reading)
        await asyncio.shield(self._reading_rare)

    def _end_reading(self, reading: asyncio.Task[None]) -> None:
        self._reading_rare = None
        if not reading.cancelled():
            reading.exception()  # looked at, so that asyncio does not complain where nobody waits any more

    async def _read_rare_lengths(self) -> None:
        now = time.monotonic()
        rare: dict[Prefix, str] = {}
        async with aclosing(self._client.pages(self._layout.leases, keys_only=True)) as pages:
            async for page in pages:
                for record in page.kvs:
                    name = self._layout.lease_name(record.key)
                    subnet = _ipv4_subnet(name)
                    if subnet is not None and subnet.length != self._subnet_len:
                        rare[subnet] = name
                await asyncio.sleep(0)
        self._rare, self._rare_read_at = rare, now

    def follow(self, key: str) -> None:
        """Have `watch_followed` tell how a key changes from when it was last found."""
        self._followed.setdefault(key, self._revisions.pop(key, 0))
        self._touched.add(key)
        self._changed.set()

    def unfollow(self, key: str) -> None:
        """Have `watch_followed` tell of a key no longer."""
        self._followed.pop(key, None)
        self._touched.add(key)
        self._changed.set()

    async def watch_followed(self) -> AsyncGenerator[Sequence[LeaseChange], None]:
        """Yield batches of changes of the keys that are followed, all of them anew after each loss of the store."""
        failures = 0
        while True:
            try:
                async with aclosing(self._session()) as batches:
                    async for events in batches:
                        failures = 0
                        self.trouble = None
                        # What was on its way when a key was unfollowed would come back to stay.
                        still = [event for event in events if event.key in self._followed]
                        if still:
                            yield still
            except StoreError as error:
                if str(error) != self.trouble:
                    logger.warning("leases in use are not followed: reason=%s", error)
                self.trouble = str(error)
                failures += 1
                await asyncio.sleep(backoff_delay(failures, self._rng.random(), longest=LONGEST_DELAY))

    async def _session(self) -> AsyncGenerator[list[LeaseChange], None]:
        self._watched.clear()
        async with self._client.stream(WATCH) as stream:
            self._touched = set(self._followed)
            names = list(self._followed)
            for start in range(0, len(names), _READS_AT_ONCE):
                yield await self._read_anew(names[start : start + _READS_AT_ONCE])
            reading = asyncio.ensure_future(read_alive(stream))
            try:
                while True:
                    await self._send_changes(stream)
                    await wait_for_either(reading, self._changed)
                    if reading.done():
                        response, reading = reading.result(), asyncio.ensure_future(read_alive(stream))
                        _check(response)
                        if response.events:
                            yield [read_event(self._layout, event) for event in response.events]
            finally:
                reading.cancel()

    async def _read_anew(self, names: Sequence[str]) -> list[LeaseChange]:
        """Read keys as they are now, and follow them from here."""
        reads = [pb.RequestOp(request_range=pb.RangeRequest(key=self._layout.lease_key(name))) for name in names]
        response = await self._client.call(TXN, pb.TxnRequest(success=reads))
        events: list[LeaseChange] = []
        for name, answer in zip(names, response.responses, strict=True):
            if name not in self._followed:
                continue
            self._followed[name] = response.header.revision
            records = answer.response_range.kvs
            if not records:
                events.append(LeaseRemoved(name))
                continue
            lease = read_lease(name, records[0])
            events.append(LeasePut(name, lease, records[0].mod_revision) if isinstance(lease, Lease) else lease)
        return events

    async def _send_changes(self, stream: WatchStream) -> None:
        """Have etcd watch just what is followed."""
        self._changed.clear()
        touched, self._touched = self._touched, set()
        for name in [name for name in touched if name in self._watched and name not in self._followed]:
            cancel = pb.WatchCancelRequest(watch_id=self._watched.pop(name))
            stream.write(pb.WatchRequest(cancel_request=cancel))
        for name in [name for name in touched if name in self._followed and name not in self._watched]:
            self._watched[name], self._next_id = self._next_id, self._next_id + 1
            revision = self._followed.get(name, 0)
            create = pb.WatchCreateRequest(
                key=self._layout.lease_key(name),
                start_revision=revision + 1 if revision else 0,
                watch_id=self._watched[name],
            )
            stream.write(pb.WatchRequest(create_request=create))


def _check(response: pb.WatchResponse) -> None:
    if response.compact_revision or (response.canceled and response.cancel_reason):
        raise StoreError(f"etcd ended a watch: {response.cancel_reason or 'its history was compacted'}")


def _ipv4_subnet(name: str) -> Prefix | None:
    try:
        return parse_key(name)[0]
    except ValueError:
        return None
