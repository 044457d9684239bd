"""Calls to a real etcd: endpoints in turn, certificates, users, and what is said when one of them is wrong."""

import asyncio
import datetime as dt
import random

import pytest
import trustme

from flanneld_py.core.errors import StoreError
from flanneld_py.store import etcd_pb2 as pb
from flanneld_py.store.etcd_api import RANGE
from flanneld_py.store.etcd_client import EtcdClient
from flanneld_py.store.etcd_options import EtcdOptions, parse_endpoints
from tests.store.contract import CONFIG, LeaseRequest, node, read_snapshot, until

pytestmark = pytest.mark.etcd

NETWORK = "/coreos.com/network"
LONG_AGO = dt.datetime(2020, 1, 1)  # noqa: DTZ001 - trustme takes naive times


@pytest.fixture
async def ask():
    """A function that reads one key of the network's with given options and returns the response."""
    clients = []

    async def ask(options, key=f"{NETWORK}/config"):
        clients.append(EtcdClient(options, random.Random(0)))  # noqa: S311 - repeatable
        return await clients[-1].call(RANGE, pb.RangeRequest(key=key.encode()))

    yield ask
    for client in clients:
        await client.close()


class Certificates:
    """A certificate authority with files for etcd and for us."""

    def __init__(self, folder):
        self._folder = folder
        self.authority = trustme.CA()
        self.cafile = self._write("ca.crt", self.authority.cert_pem)
        self.server = self.issue("server", "127.0.0.1")
        self.client = self.issue("client", "node", common_name="flannel")

    def issue(self, name, identity, **settings):
        """Return the paths of a certificate and its key."""
        issued = self.authority.issue_cert(identity, **settings)
        return self._write(f"{name}.crt", issued.cert_chain_pems[0]), self._write(f"{name}.key", issued.private_key_pem)

    def etcd_flags(self, server=None):
        certificate, key = server or self.server
        return (
            f"--cert-file={certificate}",
            f"--key-file={key}",
            f"--trusted-ca-file={self.cafile}",
            "--client-cert-auth",
        )

    def options(self, server, **changes):
        certificate, key = self.client
        given = {"cafile": self.cafile, "certfile": certificate, "keyfile": key, **changes}
        return server.options(**given)

    def _write(self, name, blob):
        self._folder.mkdir(exist_ok=True)
        blob.write_to_path(self._folder / name)
        return str(self._folder / name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates") / "others")


@pytest.fixture
def tls_etcd(make_etcd, certificates):
    return make_etcd(tls=certificates.etcd_flags())


async def refusal(ask, options):
    """Return the one line that says why etcd cannot be asked."""
    with pytest.raises(StoreError) as caught:
        await ask(options)
    text = str(caught.value)
    assert "\n" not in text
    return text


async def test_an_endpoint_that_refuses_is_passed_over(shared_etcd, ask):
    refusing = "http://127.0.0.1:1"
    for endpoints in (f"{refusing},{shared_etcd.url}", f"{shared_etcd.url},{refusing}"):
        assert (await ask(EtcdOptions(parse_endpoints(endpoints)))).header.revision


async def test_host_names_work(shared_etcd, ask):
    named = shared_etcd.url.replace("127.0.0.1", "localhost")
    assert (await ask(EtcdOptions(parse_endpoints(named)))).header.revision


@pytest.mark.usefixtures("loopback")
async def test_when_all_refuse_each_is_named(ask):
    text = await refusal(ask, EtcdOptions(parse_endpoints("http://127.0.0.1:1,http://localhost:2")))
    assert "etcd at http://127.0.0.1:1: connection refused: is etcd running there?" in text
    assert "etcd at http://localhost:2: connection refused: is etcd running there?" in text


@pytest.mark.usefixtures("loopback")
async def test_reasons_stay_in_one_order_so_that_the_log_tells_them_once():
    client = EtcdClient(EtcdOptions(parse_endpoints("http://127.0.0.1:1,http://127.0.0.1:2")), random.Random(0))  # noqa: S311
    said = set()
    for _ in range(4):  # each begins at the endpoint after the last one
        with pytest.raises(StoreError) as caught:
            await client.call(RANGE, pb.RangeRequest(key=b"k"))
        said.add(str(caught.value))
    await client.close()
    assert len(said) == 1


async def test_a_client_goes_on_after_a_restart(make_etcd, make_harness):
    server = make_etcd()
    store = make_harness(server.options())
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    server.restart()
    assert (await manager.renew(held)).key == held.key


async def test_a_closed_client_says_so(shared_etcd):
    client = EtcdClient(shared_etcd.options(), random.Random(0))  # noqa: S311 - repeatable
    await client.call(RANGE, pb.RangeRequest(key=b"a"))
    await client.close()
    with pytest.raises(StoreError, match="closed"):
        await client.call(RANGE, pb.RangeRequest(key=b"a"))


async def test_certificates_on_both_sides(tls_etcd, certificates, make_harness):
    store = make_harness(certificates.options(tls_etcd))
    manager = store.manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    assert await manager.renew(held) == held


async def test_wrong_certificates_are_explained(tls_etcd, certificates, others, ask, tmp_path):
    expired = certificates.issue("expired", "node", not_after=LONG_AGO)
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")
    cases = [
        ({"cafile": others.cafile}, "its certificate is not signed by a CA in --etcd-cafile"),
        ({"cafile": ""}, "its certificate is not signed by a CA in --etcd-cafile"),
        ({"certfile": "", "keyfile": ""}, "it wants a client certificate: give --etcd-certfile and --etcd-keyfile"),
        (dict(zip(("certfile", "keyfile"), others.client, strict=True)), "it refuses our client certificate"),
        (dict(zip(("certfile", "keyfile"), expired, strict=True)), "it refuses our client certificate"),
        ({"keyfile": others.client[1]}, "unusable: key values mismatch"),
        ({"cafile": str(nonsense)}, f"--etcd-cafile {nonsense}: unusable"),
        ({"certfile": str(nonsense)}, f"--etcd-certfile {nonsense}"),
        ({"cafile": "/nowhere/ca.crt"}, "--etcd-cafile /nowhere/ca.crt: cannot be read: No such file or directory"),
    ]
    for changes, expected in cases:
        assert expected in await refusal(ask, certificates.options(tls_etcd, **changes))


async def test_wrong_addresses_are_explained(tls_etcd, shared_etcd, certificates, ask):
    for server, scheme, host, expected in [
        (tls_etcd, "https", "localhost", "its certificate names other hosts"),
        (tls_etcd, "http", "127.0.0.1", "check http:// against https://"),
        (shared_etcd, "https", "127.0.0.1", "check http:// against https://"),
    ]:
        endpoints = parse_endpoints(f"{scheme}://{host}:{server.port}")
        assert expected in await refusal(ask, certificates.options(server, endpoints=endpoints))


async def test_an_expired_certificate_of_etcd_is_explained(make_etcd, certificates, ask):
    expired = certificates.issue("expired-server", "127.0.0.1", not_after=LONG_AGO)
    server = make_etcd(tls=certificates.etcd_flags(expired))
    assert "its certificate has expired" in await refusal(ask, certificates.options(server))


async def test_files_replaced_while_running_are_taken_up(make_etcd, tmp_path, make_harness):
    former = Certificates(tmp_path / "files")
    server = make_etcd(tls=former.etcd_flags())
    manager = make_harness(former.options(server)).manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    server.stop()
    Certificates(tmp_path / "files")
    server.start()
    assert (await manager.renew(held)).key == held.key


def user(name):
    """Return the options of a user that enable_users() makes."""
    return {"username": name, "password": f"secret of {name}"}


def enable_users(server):
    """Switch authentication on: `flannel` may do what the daemon needs, `reader` may only read."""
    for name, permission, below in [("flannel", "readwrite", f"{NETWORK}/"), ("reader", "read", f"{NETWORK}/")]:
        server.ctl("user", "add", f"{name}:secret of {name}")
        server.ctl("role", "add", name)
        server.ctl("role", "grant-permission", "--prefix", name, permission, below)
        server.ctl("user", "grant-role", name, name)
    server.ctl("user", "add", "root:secret of root")
    server.ctl("user", "grant-role", "root", "root")
    server.ctl("auth", "enable")


async def test_a_user_and_a_new_token_when_the_first_is_no_longer_good(make_etcd, make_harness):
    server = make_etcd()
    enable_users(server)
    options = server.options(**user("flannel"))
    manager = make_harness(options).manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    server.restart()  # which forgets all tokens
    assert await manager.renew(held) == held
    events = manager.watch_leases()
    snapshot = await read_snapshot(events)
    await events.aclose()
    assert list(snapshot.leases) == [held.key]


async def test_a_user_who_may_only_read_is_told_what_is_missing(make_etcd, make_harness):
    server = make_etcd()
    enable_users(server)
    manager = make_harness(server.options(**user("reader"))).manager()
    assert await manager.find_own(node(1)) is None
    with pytest.raises(StoreError, match=r"permission denied: give user 'reader' a role that may read and write"):
        await manager.acquire(LeaseRequest(CONFIG, node(1)))


async def test_wrong_users_are_explained_without_their_secrets(make_etcd, ask):
    server = make_etcd()
    assert await ask(server.options(**user("anybody")))  # ignored while there are no users
    enable_users(server)
    for username, password, expected in [
        ("flannel", "wrong secret", "the user name or the password is wrong"),
        ("nobody", "wrong secret", "the user name or the password is wrong"),
        ("", "", "it wants a user: give --etcd-username and a password"),
    ]:
        options = server.options(username=username, password=password)
        text = await refusal(ask, options)
        assert expected in text
        assert "wrong secret" not in text + repr(options)


async def test_certificates_and_a_user_together(make_etcd, certificates, make_harness):
    server = make_etcd()
    enable_users(server)
    server.stop()
    server.tls = certificates.etcd_flags()
    server.start()
    options = certificates.options(server, **user("flannel"))
    manager = make_harness(options).manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    assert await manager.renew(held) == held


async def test_a_certificate_alone_names_the_user(make_etcd, certificates, make_harness):
    server = make_etcd()
    enable_users(server)
    server.stop()
    server.tls = certificates.etcd_flags()
    server.start()
    manager = make_harness(certificates.options(server)).manager()
    assert (await manager.acquire(LeaseRequest(CONFIG, node(1)))).ttl == 86_400


async def test_connections_that_come_and_go_cost_errors_but_no_other_exception(make_etcd, make_harness, make_relay):
    server = make_etcd()
    enable_users(server)
    relays = [await make_relay(server.port) for _ in range(2)]
    endpoints = parse_endpoints(",".join(f"http://127.0.0.1:{relay.port}" for relay in relays))
    manager = make_harness(server.options(endpoints=endpoints, **user("flannel"))).manager()
    held = await manager.acquire(LeaseRequest(CONFIG, node(1)))
    done = []

    async def renew_five_times():
        left = 5
        while left:
            try:
                done.append(await manager.renew(held))
                left -= 1
            except StoreError:
                await asyncio.sleep(0.01)

    async def cut_after_each_success():
        seen = 0
        while True:
            await until(lambda known=seen: len(done) > known)
            seen = len(done)
            relay = relays[seen % 2]
            await relay.cut()
            await relay.restore()

    vandal = asyncio.ensure_future(cut_after_each_success())
    await asyncio.gather(*(renew_five_times() for _ in range(10)))
    vandal.cancel()
    assert {one.key for one in done} == {held.key}


async def test_a_call_ends_at_once_with_its_task(shared_etcd, make_relay):
    relay = await make_relay(shared_etcd.port)
    endpoints = parse_endpoints(f"http://127.0.0.1:{relay.port}")
    client = EtcdClient(EtcdOptions(endpoints), random.Random(0))  # noqa: S311 - repeatable
    await client.call(RANGE, pb.RangeRequest(key=b"a"))
    relay.freeze()
    task = asyncio.ensure_future(client.call(RANGE, pb.RangeRequest(key=b"a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.close()


async def test_a_call_over_a_dead_connection_is_made_again_over_a_new_one(shared_etcd, make_relay, monkeypatch):
    monkeypatch.setattr("flanneld_py.store.etcd_client.CALL_TIMEOUT", 1e6)
    relay = await make_relay(shared_etcd.port)
    client = EtcdClient(EtcdOptions(parse_endpoints(f"http://127.0.0.1:{relay.port}")), random.Random(0))  # noqa: S311
    await client.call(RANGE, pb.RangeRequest(key=b"a"))
    relay.strand()
    task = asyncio.ensure_future(client.call(RANGE, pb.RangeRequest(key=b"a")))
    await asyncio.sleep(0)
    client.reconnect()
    assert (await task).header.revision
    assert (client.counts.connections, dict(client.counts.failures)) == (2, {})
    await client.close()
