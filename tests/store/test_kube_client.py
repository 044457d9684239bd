"""The client against a real kube-apiserver: who we are, whom we believe, and what is told when it goes wrong."""

import asyncio
import json
import sys

import pytest
import trustme

from flanneld_py.core.errors import StoreError
from flanneld_py.store.kube_client import KubeClient
from flanneld_py.store.kube_errors import NotFoundError
from flanneld_py.store.kube_options import KubeOptions
from flanneld_py.store.kube_watch import NODES
from netns_lab.kube_apiserver import ADMIN, FLANNEL
from tests.store.etcd_server import free_ports

pytestmark = pytest.mark.kubernetes

SECRET = "correct-horse-battery-staple"  # noqa: S105 - a test's


@pytest.fixture
async def make_client():
    clients = []

    def make(**options):
        clients.append(KubeClient(KubeOptions(node_name="own", **options)))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
def account(kube_server, tmp_path):
    """A pod's service account: its folder, with a token as kubelet asks one for the pod."""
    path = "/api/v1/namespaces/kube-flannel/serviceaccounts/flannel/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = kube_server.do("POST", path, request)["status"]["token"]
    (tmp_path / "token").write_text(token + "\n")
    (tmp_path / "ca.crt").write_bytes(kube_server.api.ca.read_bytes())
    return tmp_path


def in_cluster(server, folder):
    return {"service_host": server.api.host, "service_port": str(server.api.port), "service_account": folder}


def write_kubeconfig(folder, server, user, cluster=()):
    cluster = {"server": server.api.url, "certificate-authority": str(server.api.ca)} | dict(cluster)
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


async def test_a_service_account_whose_token_rotates(kube_server, account, make_client):
    client = make_client(**in_cluster(kube_server, account))
    good = (account / "token").read_text()
    assert (await client.get(NODES))["kind"] == "NodeList"
    (account / "token").write_text("expired")
    with pytest.raises(StoreError, match="our credentials are not taken"):
        await client.get(NODES)
    (account / "token").write_text(good)
    assert (await client.get(NODES))["kind"] == "NodeList"
    (account / "token").unlink()
    with pytest.raises(StoreError, match=f"token file {account}/token: No such file"):
        await client.get(NODES)
    (account / "token").write_text(f"{SECRET} {SECRET}")
    with pytest.raises(StoreError, match="a letter that no token has") as caught:
        await client.get(NODES)
    assert SECRET not in str(caught.value)


async def test_a_client_certificate(kube_server, tmp_path, make_client):
    client = make_client(kubeconfig=write_kubeconfig(tmp_path, kube_server, {}))
    with pytest.raises(StoreError, match=r"forbidden \(.*system:anonymous.*\): grant nodes get"):
        await client.get(NODES)
    foreign = trustme.CA().issue_cert("me", common_name="me", organization_name="system:masters")
    (tmp_path / "me.pem").write_bytes(foreign.private_key_and_cert_chain_pem.bytes())
    user = {"client-certificate": "me.pem", "client-key": "me.pem"}
    stranger = make_client(kubeconfig=write_kubeconfig(tmp_path, kube_server, user))
    with pytest.raises(StoreError, match=r"our credentials are not taken|client certificate"):
        await stranger.get(NODES)
    (tmp_path / "me.pem").write_text("nonsense")
    with pytest.raises(StoreError, match=rf"the client certificate {tmp_path}/me.pem: unusable"):
        await make_client(kubeconfig=str(tmp_path / "kubeconfig")).get(NODES)


async def test_a_credential_plugin_is_asked_again_when_its_token_is_no_longer_taken(kube_server, tmp_path, make_client):
    answer = tmp_path / "answer"

    def give(token):
        credential = {"apiVersion": "client.authentication.k8s.io/v1", "status": {"token": token}}
        answer.write_text(json.dumps(credential))

    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-Ic", f"print(open({str(answer)!r}).read())"],
    }
    client = make_client(kubeconfig=write_kubeconfig(tmp_path, kube_server, {"exec": exec_}))
    give("old")
    with pytest.raises(StoreError, match="our credentials are not taken"):
        await client.get(NODES)
    give(kube_server.api.token(FLANNEL))
    assert (await client.get(NODES))["kind"] == "NodeList"


async def test_only_the_right_server_is_believed(kube_server, tmp_path, make_client):
    user = {"token": kube_server.api.token(ADMIN)}
    other = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(other)
    for cluster, told in (
        ({"certificate-authority": str(other)}, "not signed by the CA that we know"),
        ({"tls-server-name": "elsewhere.example"}, "names other hosts"),
        ({"server": kube_server.api.url.replace("https", "http")}, r"HTTP request to an HTTPS server"),
        ({"server": f"https://127.0.0.1:{free_ports(1)[0]}"}, "connection refused"),
        ({"server": "https://nowhere.invalid"}, "does not resolve"),
        ({"certificate-authority": "/nonexistent"}, "/nonexistent: No such file"),
    ):
        client = make_client(kubeconfig=write_kubeconfig(tmp_path, kube_server, user, cluster))
        with pytest.raises(StoreError, match=told):
            await client.get(NODES)
    client = make_client(kubeconfig=write_kubeconfig(tmp_path, kube_server, user, {"tls-server-name": "localhost"}))
    assert (await client.get(NODES))["kind"] == "NodeList"
    insecure = {"certificate-authority": str(other), "insecure-skip-tls-verify": True}
    client = make_client(kubeconfig=write_kubeconfig(tmp_path, kube_server, user, insecure))
    assert (await client.get(NODES))["kind"] == "NodeList"


async def test_what_is_not_there_and_what_is_not_granted(kube, make_client):
    client = make_client(kubeconfig=str(kube.server.kubeconfig))
    with pytest.raises(NotFoundError, match='nodes "none" not found'):
        await client.get(f"{NODES}/none")
    with pytest.raises(StoreError, match=r"GET /api/v1/pods: forbidden"):
        await client.get("/api/v1/pods")


async def test_connections_are_used_again_and_replaced_when_they_have_been_closed(kube_server, make_client, make_relay):
    relay = await make_relay(kube_server.api.port)
    url = f"https://127.0.0.1:{relay.port}"
    client = make_client(kubeconfig=str(kube_server.kubeconfig), api_url=url)
    for _ in range(3):
        await client.get(NODES)
    assert len(client._open) == 1
    await relay.cut()
    with pytest.raises(StoreError, match=r"connection refused|closed the connection"):
        await client.get(NODES)
    await relay.restore()
    await asyncio.gather(*(client.get(NODES) for _ in range(3)))
    await client.close()
    with pytest.raises(StoreError, match="is closed"):
        await client.get(NODES)


async def test_a_connection_that_is_dead_is_left_for_a_new_one(kube_server, make_client, make_relay, monkeypatch):
    monkeypatch.setattr("flanneld_py.store.kube_client.CALL_TIMEOUT", 1e6)
    relay = await make_relay(kube_server.api.port)
    client = make_client(kubeconfig=str(kube_server.kubeconfig), api_url=f"https://127.0.0.1:{relay.port}")
    await client.get(NODES)
    relay.strand()
    client.reconnect()
    await client.get(NODES)
    assert (len(client._open), client.counts.connections) == (1, 2)


async def test_a_server_that_does_not_answer(kube_server, make_client, make_relay, monkeypatch):
    monkeypatch.setattr("flanneld_py.store.kube_client.CALL_TIMEOUT", 0.2)
    relay = await make_relay(kube_server.api.port)
    relay.freeze()
    client = make_client(kubeconfig=str(kube_server.kubeconfig), api_url=f"https://127.0.0.1:{relay.port}")
    with pytest.raises(StoreError, match="no answer in time"):
        await client.get(NODES)
