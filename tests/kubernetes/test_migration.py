"""From Go flannel's DaemonSet to ours and back, node by node, as docs/migration.md has it, while pods talk."""

import shlex
from contextlib import ExitStack, closing
from pathlib import Path
from string import Template

import pytest

from tests.kubernetes.answering import Answering, Talk
from tests.kubernetes.go_flannel import NAMESPACE, PEERS, go_flannel
from tests.kubernetes.image import IMAGE, NAME, needs_image
from tests.kubernetes.pods import on_every_node, pod_template
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.kubernetes,
    pytest.mark.timeout(300),
    needs_image,
    pytest.mark.skipif(not (PEERS / "flannel").exists(), reason="no genuine Go flannel to migrate from: make peers"),
]

UDP = 5000
GENUINE = ("bridge", "host-local", "loopback", "portmap")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def nodes(cluster):
    cluster.serve_in_cluster()
    made = cluster.add_node(), cluster.add_node()
    for node in made:
        node.import_image(IMAGE)
        node.run("mkdir", "-p", "/opt/cni/bin")
        node.run("cp", *(PEERS / "cni" / name for name in GENUINE), "/opt/cni/bin")
        node.start_kube_proxy("iptables")
    cluster.apply(*go_flannel(NAME, cluster.net_config))
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset/kube-flannel-ds", "--timeout=100s")
    wait_until(lambda: all(map(cluster.is_ready, made)))
    return made


def start_pods(cluster, name):
    cluster.apply(on_every_node(name, pod_template(name)))
    cluster.kubectl("rollout", "status", f"daemonset/{name}", "--timeout=100s")
    return cluster.pods(name)


def talk_across(stack, nodes, pods):
    """Have the first node's pod and the second's ask each other, until the stack is closed."""
    places = [stack.enter_context(closing(node.namespace_of(pods[node.name]))) for node in nodes]
    addresses = [pods[node.name]["status"]["podIP"] for node in nodes]
    for place in places:
        stack.enter_context(closing(Answering(place, 81, UDP)))
    talks = [Talk(*pair, UDP) for pair in zip(places, reversed(addresses), strict=True)]
    for talk in talks:
        stack.enter_context(closing(talk))
    wait_until(lambda: all(talk.asked > 10 for talk in talks))
    return talks


def daemons_of(node):
    """How many of Go flannel's and of our daemons run on a node."""
    return len(node.statuses_of("flannel")), len(node.statuses_of("flanneld"))


def follow(cluster, heading, **names):
    """Carry out the commands that docs/migration.md has below a heading."""
    text = (ROOT / "docs" / "migration.md").read_text()
    block = text.split(f"\n## {heading}\n")[1].split("```sh\n")[1].split("```")[0]
    for line in Template(block).substitute(names).splitlines():
        program, *words = shlex.split(line)
        assert program == "kubectl"
        cluster.kubectl(*(str(ROOT / word) if word.startswith("deploy/") else word for word in words))


def go_over(cluster, nodes):
    for node in nodes:
        before = cluster.ask(cluster.kube.annotations, node.name)
        follow(cluster, "A node goes over", node=node.name)
        wait_until(lambda node=node: daemons_of(node) == (0, 1))
        assert cluster.ask(cluster.kube.annotations, node.name) == before


def has_addresses(nodes, pods):
    """Whether the nodes hold the addresses of these pods, and no others."""
    return all(node.held() == {pods[node.name]["status"]["podIP"]} for node in nodes)


def test_there_and_back_while_pods_talk(cluster, nodes):
    old = start_pods(cluster, "old")
    with ExitStack() as stack:
        there = talk_across(stack, nodes, old)
        follow(cluster, "Prepare")
        go_over(cluster, nodes)
    new = start_pods(cluster, "new")
    cluster.kubectl("delete", "daemonset", "old", "--timeout=100s")
    wait_until(lambda: has_addresses(nodes, new))
    with ExitStack() as stack:
        back = talk_across(stack, nodes, new)
        for node in nodes:
            follow(cluster, "A node goes back", node=node.name)
            wait_until(lambda node=node: daemons_of(node) == (1, 0))
    newest = start_pods(cluster, "newest")
    cluster.kubectl("delete", "daemonset", "new", "--timeout=100s")
    wait_until(lambda: has_addresses(nodes, newest))
    with ExitStack() as stack:
        for_good = talk_across(stack, nodes, newest)
        go_over(cluster, nodes)
        follow(cluster, "All nodes are over")
    assert [talk.lost for talk in (*there, *back, *for_good)] == [0] * 6
    for node in nodes:
        assert daemons_of(node) == (0, 1)
    cluster.kubectl("delete", "daemonset", "newest", "--timeout=100s")
    follow(cluster, "Away with it")
    for node in nodes:
        names = {link.get_attr("IFLA_IFNAME") for link in node.do(lambda ipr: list(ipr.get_links()))}
        assert names == {"lo", "eth0"}
