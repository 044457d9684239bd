"""EtcdLeases: getting and keeping our own lease in etcd.

Owns the order of steps: what is read, compared and written when, and what happens when another node is faster. Which
subnet it should be is the allocator's decision. An etcd lease that we had granted ends up behind our key or is revoked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flanneld_py.core.allocator import fits_config, is_same_node, overlap, pick_own, pick_subnets
from flanneld_py.core.errors import LeaseLostError, LeaseTakenError, StoreError
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs, encode_key, parse_attrs, parse_key
from flanneld_py.core.prefix import IPV4, IPV6, format_address
from flanneld_py.store.etcd_challenge import ask_holder
from flanneld_py.store.etcd_records import Census, OwnRecord
from flanneld_py.store.subnet_manager import HeldLease

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from flanneld_py.core.allocator import SubnetPair
    from flanneld_py.core.network_config import NetworkConfig
    from flanneld_py.store.etcd_keyspace import EtcdKeyspace, Grant
    from flanneld_py.store.subnet_manager import LeaseRequest

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
"""How often somebody else's writes may get between ours before we say so."""


class EtcdLeases:
    """Our own lease: found, acquired, renewed."""

    def __init__(self, keys: EtcdKeyspace, rng: random.Random) -> None:
        self._keys = keys
        self._rng = rng
        self._latest: Census | None = None

    async def find(self, attrs: LeaseAttrs, expected: Sequence[SubnetPair]) -> Lease | None:
        """Return the lease that carries our address; see SubnetManager."""
        record = await self._keys.read_own(expected, attrs)
        if record is None:
            self._latest = await self._keys.census(attrs)
            record = next(iter(self._latest.own), None)
        return None if record is None or record.attrs is None else _lease(record, record.attrs)

    async def acquire(self, request: LeaseRequest) -> HeldLease:
        """Make a lease ours; see SubnetManager."""
        for _ in range(_ATTEMPTS):
            earlier = await self._keys.read_own(request.preferred, request.attrs)
            if earlier is None or not fits_config(request.config, earlier.pair):
                held = await self._acquire_by_census(request)
            else:
                # What our pods use is ours: nothing else needs to be known, in a cluster of any size.
                held = await self._settle(earlier, request.attrs)
            if held is not None:
                return held
        raise StoreError("no lease yet: others keep writing the same keys; trying again helps")

    async def _acquire_by_census(self, request: LeaseRequest) -> HeldLease | None:
        census = await self._take_census(request.attrs)
        earlier = await self._sort_own(census, request)
        if earlier is None:
            return await self._create(census, request)
        # What this host is known to have used needs no question to whoever may hold it.
        is_known = any(overlap(earlier.pair, pair) for pair in request.preferred)
        known = earlier if is_known else await ask_holder(self._keys, earlier, self._rng)
        return None if known is None else await self._settle(known, request.attrs)

    async def _take_census(self, ours: LeaseAttrs) -> Census:
        """Return who holds what, just found or found anew.

        An older census does no harm, since every write has its condition; it only makes failing likelier.
        """
        latest, self._latest = self._latest, None
        return latest if latest is not None and latest.is_of(ours) else await self._keys.census(ours)

    async def renew(self, held: HeldLease, attrs: LeaseAttrs) -> HeldLease:
        """Extend our lease and publish `attrs` with it; see SubnetManager."""
        for _ in range(_ATTEMPTS):
            renewed = await self._settle(await self._read_own(held, attrs), attrs)
            if renewed is not None:
                return renewed
        raise StoreError(f"lease {held.key} is not renewed: somebody else keeps writing it; trying again helps")

    async def restore(self, held: HeldLease, attrs: LeaseAttrs) -> HeldLease:
        """Write our lease anew; see SubnetManager."""
        pair: SubnetPair = (held.lease.subnet, held.lease.ipv6_subnet)
        for _ in range(_ATTEMPTS):
            census = await self._keys.census(attrs)
            taken = [other for other in census.taken if overlap(pair, other)]
            if pair in taken:
                return await self.renew(held, attrs)
            if taken:
                raise LeaseTakenError(held.key, await self._read_owner(encode_key(*taken[0])))
            grant = await self._keys.grant()
            try:
                again = await self._try_create(census, pair, attrs, grant)
            except StoreError:
                await self._keys.revoke(grant)
                raise
            if again is not None:
                return again
            await self._keys.revoke(grant)
        raise StoreError(f"lease {held.key} is not written: others keep writing the same keys; trying again helps")

    async def _read_owner(self, name: str) -> str:
        record = await self._keys.read(name)
        try:
            return f"{_owner(parse_attrs(record.value if record else b''))}, as {name}"
        except ValueError:
            return f"nobody who can be read, as {name}"

    async def _sort_own(self, census: Census, request: LeaseRequest) -> OwnRecord | None:
        """Return the earlier lease of ours that we go on with; delete those that do not fit, as Go flannel does."""
        keep = pick_own(request.config, [record.pair for record in census.own], request.preferred)
        kept: OwnRecord | None = None
        for record in census.own:
            if record.pair == keep:
                kept = record
            elif not record.etcd_lease or fits_config(request.config, record.pair):
                # A reservation is the operator's to delete, and a second lease expires when nobody renews it.
                logger.warning("another lease carries our address, left alone: key=%s", record.name)
            elif await self._keys.delete(record.name, record.revision):
                logger.warning("our earlier lease does not fit the configuration, deleted: key=%s", record.name)
                census.forget(record.name)
        return kept

    async def _settle(self, record: OwnRecord, attrs: LeaseAttrs) -> HeldLease | None:
        """Make sure that our key says `attrs` and lives on; None where somebody else has written it since we read.

        A reservation stays one. Where nothing has changed nothing is written, so nobody's watch wakes up.
        """
        grant = await self._keys.keep_alive(record.etcd_lease)
        revision: int | None = record.revision
        value = encode_attrs(attrs).encode()
        if record.value != value or grant.etcd_lease != record.etcd_lease:
            # Where no answer comes, a new etcd lease is not revoked: our key may hang on it.
            revision = await self._keys.update(record.name, record.revision, value, grant.etcd_lease)
        if revision is not None:
            return _held(record.name, record.pair, attrs, grant, revision)
        if grant.etcd_lease != record.etcd_lease:
            await self._keys.revoke(grant)
        return None

    async def _create(self, census: Census, request: LeaseRequest) -> HeldLease | None:
        """Create a key for free subnets; None where a new census must say whether there are any."""
        pair = self._pick(census, request)
        if pair is None:
            raise StoreError(_exhausted(request.config, len(census.taken)))
        grant = await self._keys.grant()
        held: HeldLease | None = None
        try:
            while pair is not None and held is None:
                held = await self._try_create(census, pair, request.attrs, grant)
                pair = None if held else self._pick(census, request)
        except StoreError:
            await self._keys.revoke(grant)
            raise
        if held is None:
            await self._keys.revoke(grant)
        return held

    def _pick(self, census: Census, request: LeaseRequest) -> SubnetPair | None:
        # An earlier lease that did not fit is what our pods still use: as much of it as fits is worth keeping.
        wanted = [*request.preferred, *(record.pair for record in census.own)]
        ranges = request.config.ranges
        if not wanted and ranges == (request.config.ipv4,):
            subnet = census.pick_at_random(ranges[0], self._rng)
            if subnet is not None:
                return subnet, None
        return pick_subnets(request.config, census.taken, wanted, self._rng)

    async def _try_create(self, census: Census, pair: SubnetPair, attrs: LeaseAttrs, grant: Grant) -> HeldLease | None:
        """Create one key unless somebody is faster; what others created meanwhile goes into the census.

        etcd's comparison excludes all others who take the same leading subnet. A subnet of another length, or the
        second family's, is no part of it: of two such keys that overlap, the one created later withdraws.
        """
        name = encode_key(*pair)
        revision = await self._keys.create(pair, attrs, grant)
        if revision == census.revision + 1:
            return _held(name, pair, attrs, grant, revision)
        rivals = await self._keys.catch_up(census)
        if revision is None:
            census.add(name)
            return None
        census.forget(name)
        for rival, created in rivals.items():
            if created < revision and _overlaps(rival, pair):
                await self._keys.delete(name, revision)
                return None
        return _held(name, pair, attrs, grant, revision)

    async def _read_own(self, held: HeldLease, attrs: LeaseAttrs) -> OwnRecord:
        record = await self._keys.read(held.key)
        if record is None:
            raise LeaseLostError(f"lease {held.key} is gone from etcd")
        found: LeaseAttrs | None = None
        try:
            found = parse_attrs(record.value)
        except ValueError as error:
            logger.warning("our lease was overwritten and is mended: key=%s reason=%s", held.key, str(error)[:200])
        # It may carry the new attributes already when our address has changed and an earlier answer got lost.
        if found and not is_same_node(held.lease.attrs, found) and not is_same_node(attrs, found):
            raise LeaseTakenError(held.key, _owner(found))
        return OwnRecord(held.key, parse_key(held.key), found, record.value, record.mod_revision, record.lease)


def _overlaps(name: str, pair: SubnetPair) -> bool:
    try:
        return overlap(parse_key(name), pair)
    except ValueError:
        return False


def _lease(record: OwnRecord, attrs: LeaseAttrs) -> Lease:
    return Lease(*record.pair, attrs, reserved=not record.etcd_lease)


def _held(name: str, pair: SubnetPair, attrs: LeaseAttrs, grant: Grant, revision: int) -> HeldLease:
    lease = Lease(*pair, attrs, reserved=not grant.etcd_lease)
    return HeldLease(name, lease, grant.ttl, revision, grant.etcd_lease)


def _owner(attrs: LeaseAttrs) -> str:
    if attrs.public_ip is not None:
        return format_address(IPV4, attrs.public_ip)
    return "nobody" if attrs.public_ipv6 is None else format_address(IPV6, attrs.public_ipv6)


def _exhausted(config: NetworkConfig, taken: int) -> str:
    ranges = " and ".join(f"{part.count} of length {part.subnet_len} in {part.network}" for part in config.ranges)
    return f"no subnet is free: there are {ranges}, and {taken} leases take all of them; delete some or widen Network"
