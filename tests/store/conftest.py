"""Fixtures for tests that need a real etcd or a real Kubernetes API."""

import itertools

import pytest

from flanneld_py.store import subnet_manager
from tests.kube_server import KubeServer
from tests.store.etcd_server import EtcdHarness, EtcdServer
from tests.store.kube_harness import KubeHarness
from tests.store.relay import Relay

_prefixes = itertools.count()


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    """Holders of leases answer fast on loopback."""
    monkeypatch.setattr(subnet_manager, "CHALLENGE_PATIENCE", 0.4)


@pytest.fixture
def make_etcd(loopback, tmp_path_factory):
    """A function that starts an etcd of the test's own."""
    servers = []

    def make(**settings):
        server = EtcdServer(tmp_path_factory.mktemp("etcd"), **settings)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def etcd_cluster(loopback, tmp_path_factory):
    """Three members of one etcd."""
    members = [EtcdServer(tmp_path_factory.mktemp("etcd")) for _ in range(3)]
    try:
        for member in members:
            member.members = members
            member.launch()
        for member in members:
            member.wait_until_healthy()
        yield members
    finally:
        for member in members:
            member.stop()


@pytest.fixture(scope="session")
def shared_etcd(loopback, tmp_path_factory):
    """One etcd for all tests that leave it running as it is."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
async def store(shared_etcd):
    """A prefix of its own in the shared etcd."""
    harness = EtcdHarness(shared_etcd.options(prefix=f"/test{next(_prefixes)}/network"))
    yield harness
    await harness.close()


@pytest.fixture(scope="session")
def kube_server(loopback, tmp_path_factory):
    """One kube-apiserver for all tests that leave it running as it is."""
    server = KubeServer(tmp_path_factory.mktemp("kube"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def kube(kube_server, tmp_path):
    """The shared kube-apiserver without any Node."""
    harness = KubeHarness(kube_server, tmp_path)
    yield harness
    await harness.close()


@pytest.fixture
async def make_harness():
    """A function that makes a harness for given options."""
    harnesses = []

    def make(options):
        harnesses.append(EtcdHarness(options))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        await harness.close()


@pytest.fixture
async def make_relay():
    """A function that puts a relay before a port."""
    relays = []

    async def make(port, **manners):
        relays.append(Relay(port, **manners))
        await relays[-1].restore()
        return relays[-1]

    yield make
    for relay in relays:
        await relay.cut()
