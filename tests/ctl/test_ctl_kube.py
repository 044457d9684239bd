"""flannelctl where the store is Kubernetes: what is read, what is not written and why, and with the daemon down."""

import json

import pytest

from tests.ctl.test_ctl_node import run
from tests.test_daemon import leads_to
from tests.test_daemon_kube import cluster, key_of
from tests.waiting import wait_until

__all__ = ["cluster"]

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes]


@pytest.fixture
def pair(cluster):
    one, two = cluster.make_node(), cluster.make_node()
    for node in (one, two):
        cluster.start(node).is_ready()
    wait_until(lambda: leads_to(one, two, key_of(two)))
    return one, two


def test_nodes_are_listed_as_leases(cluster, pair):
    one, two = pair
    status, text, errors = run(one, "leases", "--json")
    assert (status, errors) == (0, "")
    told = {lease["key"]: lease for lease in json.loads(text)["leases"]}
    assert told["node11"]["subnets"] == ["10.5.11.0/24"]
    assert told["node12"]["public_ip"] == two.address
    for name in ("node12", "10.5.12.0/24", two.address):
        status, text, _ = run(one, "lease", "show", name)
        assert status == 0
        assert "node12" in text
    assert "there is no lease node99" in run(one, "lease", "show", "node99")[2]
    cluster.ask(
        cluster.kube.add_node,
        "bad",
        "10.5.70.0/24",
        annotations={"kube-subnet-manager": "true", "public-ip": "nonsense"},
    )
    status, text, _ = run(one, "leases")
    assert status == 3
    assert "annotation public-ip is no address" in text
    status, text, _ = run(one, "net", "show")
    assert status == 0
    assert "10.5.0.0/16" in text


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("net", "set", "SubnetLen=25"), "edit configmap"),
        (("lease", "reserve", "10.5.12.0/24"), "podCIDR for as long as it is there"),
        (("lease", "release", "node12"), "kubectl delete node"),
    ],
)
def test_what_is_kubernetes_to_write_is_refused_and_said(cluster, words, instead):
    node = cluster.make_node()
    cluster.start(node).is_ready()
    status, _, errors = run(node, *words)
    assert status == 1
    assert "this cluster's store is Kubernetes" in errors
    assert instead in errors


def test_with_the_daemon_down(cluster, pair):
    one, two = pair
    one.daemons[-1].stop()
    status, text, errors = run(one, "status")
    assert status == 1
    assert "no daemon answers" in errors
    assert "1, of which 0 lack an entry" in text
    status, text, _ = run(one, "peers", "--json")
    assert status == 0
    assert json.loads(text)[0]["remote"] == two.address
    reach = [f"--kubeconfig-file={cluster.kube.kubeconfig}", f"--net-config-path={cluster.net_config}"]
    status, text, _ = run(one, "leases", *reach)
    assert status == 0
    assert "node12" in text
    assert run(one, "net", "show", *reach)[0] == 0
    variables = {"FLANNELD_KUBE_SUBNET_MGR": "true", "FLANNELD_KUBECONFIG_FILE": str(cluster.kube.kubeconfig)}
    assert run(one, "leases", environ=variables)[0] == 0
    assert "this is no pod" in run(one, "leases", environ={"FLANNELD_KUBE_SUBNET_MGR": "true"})[2]
