"""Our own lease in a real etcd: what the contract suite cannot see from outside."""

import asyncio

import pytest

from flanneld_py.core.errors import LeaseLostError, LeaseTakenError, StoreError
from flanneld_py.core.lease import parse_key
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import LEASE_REVOKE, TXN
from flanneld_py.store.etcd_client import EtcdClient
from flanneld_py.store.etcd_errors import EndpointError
from flanneld_py.store.etcd_keyspace import EtcdKeyspace
from tests.store.contract import CONFIG, DUAL, EXACTLY_64, LeaseRequest, node, pairs, value

pytestmark = pytest.mark.etcd


def etcd_leases(server):
    """Return the ids of all etcd leases, as numbers."""
    return {int(line, 16) for line in server.ctl("lease", "list").splitlines()[1:]}


@pytest.fixture
async def fresh(make_etcd, make_harness):
    """An etcd of the test's own, as server and harness, so that it can count what is in it."""
    server = make_etcd()
    return server, make_harness(server.options())


async def test_nodes_that_all_want_the_same_subnets_get_one_each_and_leak_nothing(fresh):
    server, store = fresh
    managers = [store.manager(seed=7) for _ in range(64)]
    requests = [LeaseRequest(EXACTLY_64, node(number + 1)) for number in range(64)]
    everyone = await asyncio.gather(*map(_acquire, managers, requests))
    assert len({held.key for held in everyone}) == 64
    with pytest.raises(StoreError, match="there are 64 of length 24"):
        await store.manager().acquire(LeaseRequest(EXACTLY_64, node(65)))
    records = await store.raw()
    assert {record.lease for record in records.values()} == etcd_leases(server)
    assert {held.etcd_lease for held in everyone} == etcd_leases(server)


async def _acquire(manager, request):
    return await manager.acquire(request)


async def test_renewing_and_restarting_write_nothing_and_grant_nothing(fresh):
    server, store = fresh
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    before = await store.raw()
    await manager.renew(held)
    await store.manager().acquire(LeaseRequest(CONFIG, node(1), [held.lease[:2]]))
    assert await store.raw() == before
    assert etcd_leases(server) == {held.etcd_lease}


async def test_a_restart_that_knows_its_subnet_reads_no_other_lease(store, monkeypatch):
    held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
    monkeypatch.delattr(EtcdKeyspace, "census")
    manager = store.manager()
    expected = [held.lease[:2]]
    assert await manager.find_own(node(1), expected) == held.lease
    assert (await manager.acquire(LeaseRequest(CONFIG, node(1), expected))).key == held.key


async def test_the_last_free_subnet_of_many_is_found(store):
    free = "10.5.40.0-24"
    for index in range(64):
        if f"10.5.{index}.0-24" != free:
            await store.put(f"10.5.{index}.0-24", value(node(1000 + index)))
    assert (await store.manager(seed=1).acquire(LeaseRequest(EXACTLY_64, node(1)))).key == free


async def test_an_earlier_lease_of_a_shorter_time_gets_the_full_one(store):
    short = await store.put("10.5.3.0-24", value(node(1)), ttl=60)
    held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
    assert (held.key, held.ttl) == ("10.5.3.0-24", 86_400)
    record = (await store.raw())["10.5.3.0-24"]
    assert record.lease == held.etcd_lease != short


async def test_an_etcd_lease_that_was_revoked_is_a_lease_lost(store):
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    await store.client.call(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=held.etcd_lease))
    with pytest.raises(LeaseLostError, match=f"{held.key} is gone"):
        await manager.renew(held)
    again = await manager.acquire(LeaseRequest(CONFIG, node(1), [parse_key(held.key)]))
    assert again.key == held.key


async def test_an_operator_makes_a_reservation_of_our_lease_and_back(store):
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    await store.put(held.key, value(node(1)), expires=False)
    reserved = await manager.renew(held)
    assert (reserved.ttl, reserved.lease.reserved, reserved.etcd_lease) == (None, True, 0)
    await store.put(held.key, value(node(1)))
    leased = await manager.renew(reserved)
    assert (leased.ttl, leased.lease.reserved) == (86_400, False)


@pytest.mark.parametrize("verb", ["acquire", "republish"])
async def test_a_write_whose_answer_got_lost_is_known_again(fresh, monkeypatch, verb):
    server, store = fresh
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1))) if verb == "republish" else None
    lost = []
    send = EtcdClient._send

    async def lose_first(client, method, request):
        response = await send(client, method, request)
        if method is TXN and not lost:
            lost.append(request)
            raise EndpointError("the answer got lost")
        return response

    monkeypatch.setattr(EtcdClient, "_send", lose_first)
    if held is None:
        held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    else:
        held = await manager.renew(held, node(2))
    assert lost
    record = (await store.raw())[held.key]
    assert (record.mod_revision, record.lease) == (held.revision, held.etcd_lease)
    assert etcd_leases(server) == {held.etcd_lease}
    assert len(await store.raw()) == 1


@pytest.mark.parametrize(
    "rival", ["10.5.77.0-24&fd05:0:0:5::-64", "10.5.99.0-24&fd05:0:0:4::-64", "10.5.76.0-23&fd05:0:0:6::-64"]
)
async def test_who_creates_an_overlapping_key_later_withdraws(fresh, monkeypatch, rival):
    server, store = fresh
    create = EtcdKeyspace.create

    async def create_after_the_rival(keys, *args):
        if rival not in await store.raw():
            await store.put(rival, value(node(2)))
        return await create(keys, *args)

    monkeypatch.setattr(EtcdKeyspace, "create", create_after_the_rival)
    wanted = pairs("10.5.77.0-24&fd05:0:0:4::-64")
    held = await store.manager().acquire(LeaseRequest(DUAL, node(1, ipv6=1), wanted))
    theirs = parse_key(rival)
    assert not held.lease.subnet.overlaps(theirs[0])
    assert not held.lease.ipv6_subnet.overlaps(theirs[1])
    assert sorted(await store.raw()) == sorted([held.key, rival])
    assert len(etcd_leases(server)) == 2


async def test_who_was_first_keeps_its_key(store, monkeypatch):
    create = EtcdKeyspace.create

    async def create_before_the_rival(keys, *args):
        revision = await create(keys, *args)
        await store.put("10.5.99.0-24&fd05:0:0:4::-64", value(node(2)))
        return revision

    await store.set_config("{}")
    monkeypatch.setattr(EtcdKeyspace, "create", create_before_the_rival)
    wanted = pairs("10.5.77.0-24&fd05:0:0:4::-64")
    held = await store.manager().acquire(LeaseRequest(DUAL, node(1, ipv6=1), wanted))
    assert held.key == "10.5.77.0-24&fd05:0:0:4::-64"


async def test_two_that_ask_for_a_lease_at_once_do_not_share_it(fresh):
    server, store = fresh
    held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
    asked = (store.manager().acquire(LeaseRequest(CONFIG, node(1))) for _ in range(3))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(outcome, StoreError) for outcome in outcomes) >= 2
    assert list(await store.raw()) == [held.key]
    assert etcd_leases(server) == {held.etcd_lease}


async def test_a_restored_lease_leaks_nothing(fresh):
    server, store = fresh
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    await store.client.call(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=held.etcd_lease))
    again = await manager.restore(held, node(1))
    assert again.key == held.key
    assert etcd_leases(server) == {again.etcd_lease}
    await store.delete(held.key)
    await store.put(held.key, value(node(2)), expires=False)
    with pytest.raises(LeaseTakenError, match=r"held by 172\.30\.0\.2$"):
        await manager.restore(held, node(1))
    assert etcd_leases(server) == {again.etcd_lease}


async def test_neighbouring_prefixes_are_not_ours(store):
    await store.put("10.5.1.0-24", value(node(1)))
    for sibling in ("subnets-old/10.5.2.0-24", "subnet/10.5.3.0-24", "subnets", "subnets0"):
        key = f"{store.options.prefix}/{sibling}".encode()
        await store.write({"request_put": pb.PutRequest(key=key, value=value(node(1)).encode())})
    held = await store.manager().acquire(LeaseRequest(CONFIG, node(1)))
    assert held.key == "10.5.1.0-24"
    assert list(await store.raw()) == ["10.5.1.0-24"]
