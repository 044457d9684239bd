"""Our daemon and our plugin under the real kubelet and containerd: what these wait for, and the pods that they run."""

from ipaddress import ip_address

import pytest

from tests.kubernetes.pods import deployment, pod_template
from tests.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.timeout(240)]

SERVE = ["/busybox", "nc", "-ll", "-p", "80", "-e", "/busybox", "echo", "here"]
PROBE = {"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}}


def test_nodes_become_ready_and_their_pods_reach_each_other_until_they_are_gone(cluster):
    nodes = [cluster.add_node(), cluster.add_node()]
    for node in nodes:
        node.start_flanneld("--ip-masq")
        wait_until(
            lambda node=node: (
                cluster.conditions("node", node.name).get("NetworkUnavailable") == ("False", "FlannelIsUp")
            )
        )
    assert not any(cluster.is_ready(node) for node in nodes)
    for node in nodes:
        node.install_plugin()
    wait_until(lambda: all(map(cluster.is_ready, nodes)))

    cluster.apply(deployment("web", 4, pod_template("web", SERVE, **PROBE)))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    pods = cluster.get("pods", "-lapp=web")["items"]
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node11", "node11", "node12", "node12"]
    cidrs = {node.name: cluster.pod_cidr(node) for node in nodes}
    for pod in pods:
        assert ip_address(pod["status"]["podIP"]) in cidrs[pod["spec"]["nodeName"]]
    for pod in pods:
        for other in pods:
            words = ("/busybox", "nc", "-w", "10", other["status"]["podIP"], "80")
            assert cluster.kubectl("exec", pod["metadata"]["name"], "--", *words) == "here\n"

    cluster.kubectl("delete", "deployment", "web", "--timeout=100s")
    wait_until(lambda: cluster.get("pods", "-A")["items"] == [])
    for node in nodes:
        wait_until(lambda node=node: leaves_nothing(node))


def leaves_nothing(node):
    """Whether no address, file or device of a pod is on a node."""
    names = {link.get_attr("IFLA_IFNAME") for link in node.do(lambda ipr: list(ipr.get_links()))}
    scratch = list(node.file("/var/lib/cni/flannel").iterdir())
    return node.held() == set() and scratch == [] and names == {"lo", "eth0", "flannel.1", "cni0"}
