"""A whole lab whose nodes find each other by a real kube-apiserver."""

import json

import pytest

from netns_lab.errors import LabError
from netns_lab.kube_apiserver import find_kubernetes
from netns_lab.kubernetes import pod_cidrs
from netns_lab.topology import default_topology, load_topology, parse_topology

FAKES = 2000


def test_each_node_has_a_subnet_of_each_family():
    values = load_topology(default_topology())
    values["network"] |= {"EnableIPv6": True, "IPv6Network": "fd10:244::/48"}
    topology = parse_topology(values)
    assert pod_cidrs(topology, 1) == ["10.244.1.0/24", "fd10:244:0:1::/64"]
    assert pod_cidrs(topology, 3) == ["10.244.3.0/24", "fd10:244:0:3::/64"]


@pytest.fixture
def kube_lab(lab):
    try:
        find_kubernetes("kube-apiserver")
    except LabError as error:
        pytest.skip(str(error))
    return lab


def routes(lab):
    told = lab.run("exec", "node1", "--", "ip", "-json", "route").stdout
    return {route["dst"] for route in json.loads(told)}


@pytest.mark.kubernetes
@pytest.mark.lab
@pytest.mark.timeout(200)
def test_all_pods_reach_each_other_and_fakes_come_and_go(kube_lab, wait_for, tmp_path):
    file = tmp_path / "topology.toml"
    # Fakes have subnets of 10.128.0.0/9.
    file.write_text(default_topology().replace('"10.244.0.0/16"', '"10.0.0.0/8"'))
    up = kube_lab.run("up", "--kubernetes", file).stdout
    assert "kube-apiserver serves at https://192.0.2.11:6443 and has a Node for each node" in up
    wait_for(lambda: {"10.0.2.0/24", "10.0.3.0/24"} <= routes(kube_lab))
    kube_lab.run("ping")
    kube_lab.run("fakes", FAKES)
    wait_for(lambda: sum(route.startswith("10.1") for route in routes(kube_lab)) == FAKES)
    kube_lab.run("fakes", 10)
    wait_for(lambda: sum(route.startswith("10.1") for route in routes(kube_lab)) == 10)
    kube_lab.run("ping")


@pytest.mark.lab
def test_fakes_need_a_lab(lab):
    assert "no lab" in lab.run("fakes", "1", status=3).stderr
