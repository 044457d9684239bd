"""Services by kube-proxy itself over the overlay: from pods, from nodes and from outside; and DNS without delays."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import NamedTuple

import pytest

from tests.kubernetes.answering import RESOLVER_PATIENCE, Answering, ask_in_pairs, source_seen
from tests.kubernetes.pods import pod_on, service
from tests.test_daemon import HUB
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.kubernetes,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not all(map(shutil.which, ("nft", "conntrack"))), reason="kube-proxy needs: apt-get install nftables conntrack"
    ),
]

TCP, DNS = 8080, 53
ANY_NODE, LOCAL_NODE = 30080, 30081
ASKING, PAIRS = 8, 50
MODES = [
    ("iptables", "--ip-masq=true", "--guard=drop"),
    ("iptables", "--ip-masq=false", "--guard=off"),
    ("nftables", "--ip-masq=true", "--guard=off"),
    ("nftables", "--ip-masq=false", "--guard=drop"),
]


class Sites(NamedTuple):
    """Who asks, as namespaces by name; the addresses of pods and of the Service."""

    places: dict
    addresses: dict
    service: str
    masquerades: bool


@pytest.fixture(scope="module")
def nodes(cluster):
    """One node that has a client, and one that has a client and the server."""
    made = cluster.add_node(), cluster.add_node()
    cluster.apply(
        service("any", "server", ("TCP", TCP, ANY_NODE), ("UDP", DNS, None), type="NodePort"),
        service("local", "server", ("TCP", TCP, LOCAL_NODE), type="NodePort", externalTrafficPolicy="Local"),
    )
    for node in made:
        node.install_plugin()
    return made


@pytest.fixture(scope="module", params=MODES, ids=" ".join)
def sites(cluster, nodes, request):
    mode, *words = request.param
    near, far = nodes
    for node in nodes:
        node.start_flanneld(*words)
        node.start_kube_proxy(mode)
    wait_until(lambda: all(map(cluster.is_ready, nodes)))
    pods = {"client": near, "neighbour": far, "server": far}
    cluster.apply(*(pod_on(node, name) for name, node in pods.items()))
    cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=100s")
    address = cluster.get("service", "any")["spec"]["clusterIP"]
    with ExitStack() as stack:
        found = {name: cluster.get("pod", name) for name in pods}
        places = {name: stack.enter_context(closing(node.namespace_of(found[name]))) for name, node in pods.items()}
        stack.enter_context(closing(Answering(places["server"], TCP, DNS)))
        places |= {"near": near.namespace, "far": far.namespace, "outside": cluster.namespace}
        addresses = {name: pod["status"]["podIP"] for name, pod in found.items()}
        wait_until(lambda: all(source_seen(node.namespace, address, TCP) for node in nodes))
        wait_until(lambda: source_seen(cluster.namespace, far.address, LOCAL_NODE))
        yield Sites(places, addresses, address, "--ip-masq=true" in words)
    cluster.kubectl("delete", "pod", "--all", "--timeout=100s")
    for node in nodes:
        node.end_kube_proxy()
        node.end("flanneld")


def test_whom_a_service_takes_its_clients_for(sites, nodes, cluster):
    near, far = nodes
    tunnel, bridge = str(cluster.pod_cidr(near)[0]), str(cluster.pod_cidr(far)[1])
    addresses = sites.addresses
    # Without --ip-masq it is the plugin that masquerades, all that leaves the pod's own subnet.
    client = addresses["client"] if sites.masquerades else tunnel
    by_address = {
        "client": client,
        "neighbour": addresses["neighbour"],
        "server": bridge,
        "near": tunnel,
        "far": bridge,
    }
    local = by_address | {"client": near.address, "near": near.address, "outside": HUB}
    assert seen(sites, by_address, sites.service, TCP) == by_address
    assert seen(sites, sites.places, near.address, ANY_NODE) == dict.fromkeys(sites.places, tunnel)
    assert seen(sites, sites.places, far.address, ANY_NODE) == dict.fromkeys(sites.places, bridge)
    assert seen(sites, sites.places, far.address, LOCAL_NODE) == local


def seen(sites, names, address, port):
    return {name: source_seen(sites.places[name], address, port) for name in names}


def test_no_question_to_a_dns_pod_has_to_be_asked_again(sites):
    with ThreadPoolExecutor(2 * ASKING) as pool:
        asked = [
            pool.submit(ask_in_pairs, sites.places[name], sites.service, DNS, PAIRS)
            for name in ("client", "near")
            for _ in range(ASKING)
        ]
    assert max(one.result() for one in asked) < RESOLVER_PATIENCE
