"""The manifests as they are, with the image that is built from deploy/Containerfile, on real nodes.

The tests are one story: each begins with what the one before has left.
"""

from contextlib import ExitStack, closing

import pytest

from tests.kube_server import MANIFESTS
from tests.kubernetes.answering import Answering, Talk
from tests.kubernetes.image import IMAGE, needs_image
from tests.kubernetes.pods import on_every_node, pod_template
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.kubernetes,
    pytest.mark.timeout(240),
    needs_image,
]

MORE_NETWORKS = ("fd10:244::/48",)
NET_ADMIN, NET_RAW = 12, 13
FILTERED = "2"
SERVE = ["/busybox", "nc", "-ll", "-p", "80", "-e", "/busybox", "echo", "here"]
UDP = 5000


@pytest.fixture(scope="module")
def nodes(cluster):
    cluster.serve_in_cluster()
    made = cluster.add_node(), cluster.add_node()
    for node in made:
        node.import_image(IMAGE)
        node.install_loopback()
        node.start_kube_proxy("iptables")
    return made


def roll_out(cluster, *words):
    cluster.kubectl("apply", *words)
    cluster.kubectl("-n", "kube-flannel", "rollout", "status", "daemonset/kube-flannel-ds", "--timeout=100s")


def restart(cluster):
    cluster.kubectl("-n", "kube-flannel", "rollout", "restart", "daemonset/kube-flannel-ds")
    cluster.kubectl("-n", "kube-flannel", "rollout", "status", "daemonset/kube-flannel-ds", "--timeout=100s")


def have_pods(cluster, nodes):
    """A pod on every node, made anew."""
    cluster.kubectl("delete", "daemonset", "web", "--ignore-not-found", "--timeout=100s")
    wait_until(lambda: cluster.pods("web") == {})
    cluster.apply(on_every_node("web", pod_template("web", SERVE)))
    cluster.kubectl("rollout", "status", "daemonset/web", "--timeout=100s")
    found = cluster.pods("web")
    return [found[node.name] for node in nodes]


def reaches(cluster, pod, address):
    words = ("/busybox", "nc", "-w", "10", address, "80")
    return cluster.kubectl("exec", pod["metadata"]["name"], "--", *words, check=False) == "here\n"


def test_the_file_for_kubectl_apply_brings_a_network(cluster, nodes):
    assert not any(map(cluster.is_ready, nodes))
    roll_out(cluster, "-f", MANIFESTS / "flannel.yaml")
    wait_until(lambda: all(map(cluster.is_ready, nodes)))
    for node in nodes:
        assert cluster.conditions("node", node.name)["NetworkUnavailable"] == ("False", "FlannelIsUp")
    pods = have_pods(cluster, nodes)
    for pod in pods:
        assert all(reaches(cluster, pod, other["status"]["podIP"]) for other in pods)


def test_the_daemon_may_do_what_the_manifest_says_and_no_more(nodes):
    for node in nodes:
        (status,) = node.statuses_of("flanneld")
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << NET_ADMIN | 1 << NET_RAW
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", FILTERED)


def test_the_plugin_runs_by_an_interpreter_of_its_own(nodes):
    for node in nodes:
        (tree,) = node.file("/opt/cni/bin/.flannel").iterdir()
        assert f"/opt/cni/bin/.flannel/{tree.name}/bin/python3" in node.file("/opt/cni/bin/flannel").read_text()


def test_nothing_is_lost_while_every_daemon_is_replaced(cluster, nodes):
    near, far = nodes
    pods = cluster.pods("web")
    with ExitStack() as stack:
        places = [stack.enter_context(closing(node.namespace_of(pods[node.name]))) for node in nodes]
        stack.enter_context(closing(Answering(places[1], 81, UDP)))
        with closing(Talk(places[0], pods[far.name]["status"]["podIP"], UDP)) as talk:
            wait_until(lambda: talk.asked > 10)
            restart(cluster)
    assert (talk.lost, near.index("flannel.1") is not None) == (0, True)


def test_the_overlay_of_the_guard(cluster, nodes):
    roll_out(cluster, "-k", MANIFESTS / "overlays" / "guard")
    for node in nodes:
        assert "flannel-guard-flannel.1" in node.run("nft", "list", "tables").stdout


def test_the_overlay_of_host_gw(cluster, nodes):
    near, far = nodes
    roll_out(cluster, "-k", MANIFESTS / "overlays" / "host-gw")
    restart(cluster)
    wait_until(lambda: near.routes()[str(cluster.pod_cidr(far))][1] == far.address)
    wait_until(lambda: near.index("flannel.1") is None)
    pods = cluster.pods("web")
    assert reaches(cluster, pods[near.name], pods[far.name]["status"]["podIP"])


def test_the_overlay_of_dual_stack(cluster, nodes):
    roll_out(cluster, "-k", MANIFESTS / "overlays" / "dual-stack")
    restart(cluster)
    wait_until(lambda: all(node.index("flannel-v6.1") for node in nodes))
    near, far = have_pods(cluster, nodes)
    addresses = [one["ip"] for one in far["status"]["podIPs"]]
    assert len(addresses) == 2
    assert all(reaches(cluster, near, address) for address in addresses)


def test_cleanup_waits_for_daemons_and_pods_and_leaves_nothing(cluster, nodes):
    near, _ = nodes
    cluster.kubectl("apply", "-f", MANIFESTS / "cleanup.yaml")
    wait_until(lambda: all("stop it first" in said_by_cleanup(cluster, node) for node in nodes))
    cluster.kubectl("delete", "-f", MANIFESTS / "flannel.yaml", "--timeout=100s")
    cluster.kubectl("-n", "kube-system", "rollout", "restart", "daemonset/flannel-cleanup")
    wait_until(lambda: all("drain the node first" in said_by_cleanup(cluster, node) for node in nodes))
    assert near.index("flannel.1")
    cluster.kubectl("delete", "daemonset", "web", "--timeout=100s")
    cluster.kubectl("-n", "kube-system", "rollout", "restart", "daemonset/flannel-cleanup")
    cluster.kubectl("-n", "kube-system", "rollout", "status", "daemonset/flannel-cleanup", "--timeout=100s")
    for node in nodes:
        names = {link.get_attr("IFLA_IFNAME") for link in node.do(lambda ipr: list(ipr.get_links()))}
        assert names == {"lo", "eth0"}
        assert "flannel" not in node.run("nft", "list", "ruleset").stdout.lower()
        assert [file.name for file in node.file("/opt/cni/bin").iterdir()] == ["loopback"]
        assert list(node.file("/etc/cni/net.d").iterdir()) == []
        assert list(node.file("/run/flannel").iterdir()) == []
    cluster.kubectl("delete", "-f", MANIFESTS / "cleanup.yaml")
    wait_until(lambda: not any(map(cluster.is_ready, nodes)))


def said_by_cleanup(cluster, node):
    """The end of the log of a node's latest clean-up."""
    named = cluster.kubectl(
        "-n",
        "kube-system",
        "get",
        "pods",
        "-lk8s-app=flannel-cleanup",
        f"--field-selector=spec.nodeName={node.name}",
        "-o",
        "name",
    ).split()
    return "".join(cluster.kubectl("-n", "kube-system", "logs", name, "-c", "cleanup", check=False) for name in named)
