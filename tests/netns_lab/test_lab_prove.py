"""Every backend in every family it carries: what one pod sends arrives at another as it was."""

import json

import pytest

from tests.netns_lab.carriers import require

pytestmark = [pytest.mark.lab, pytest.mark.etcd, pytest.mark.timeout(300)]

FAMILIES = {"IPv4": (), "IPv6": ("--ipv6",), "dual": ("--dual",)}
MTUS = {
    ("vxlan", "IPv4"): 1450,
    ("vxlan", "IPv6"): 1430,
    ("vxlan", "dual"): 1430,
    ("host-gw", "IPv4"): 1500,
    ("host-gw", "IPv6"): 1500,
    ("host-gw", "dual"): 1500,
    ("ipip", "IPv4"): 1480,
    ("udp", "IPv4"): 1472,
    ("wireguard", "IPv4"): 1420,
    ("wireguard", "IPv6"): 1420,
    ("wireguard", "dual"): 1420,
}
OF_THE_KERNEL = {"ipip", "wireguard"}
"""Backends by which one kernel carries packets and another does not."""
FULL = 100_000_000


def carriers(combinations):
    return [
        pytest.param(*combination, marks=pytest.mark.guest if combination[0] in OF_THE_KERNEL else ())
        for combination in combinations
    ]


def prove(lab, backend, families, size):
    require(lab, backend)
    ways = 12 if families == "dual" else 6
    lab.run("up", "--backend", backend, *FAMILIES[families])
    lab.await_reach()
    text = lab.run("prove", "--bytes", size).stdout
    assert "reach each other, no packet lost" in text
    assert f"all {ways} ways carry everything, {size:,} bytes in each stream" in text
    subnet_env = lab.run("exec", "node1", "--", "cat", "/run/flannel/subnet.env").stdout
    assert f"FLANNEL_MTU={MTUS[backend, families]}\n" in subnet_env


@pytest.mark.parametrize(
    ("backend", "families"),
    carriers([("vxlan", "dual"), ("vxlan", "IPv6"), ("host-gw", "dual"), ("ipip", "IPv4"), ("wireguard", "dual")]),
)
def test_everything_arrives(lab, backend, families):
    prove(lab, backend, families, 1_000_000)


@pytest.mark.full
@pytest.mark.parametrize(("backend", "families"), carriers(MTUS))
def test_streams_of_100_mb_arrive(lab, backend, families):
    prove(lab, backend, families, FULL)


def test_an_mtu_that_leaves_too_little_room_is_noticed(lab):
    lab.run("up", "--backend", "vxlan")
    lab.await_reach()
    # The underlay carries less than the uplinks say, so what fills the overlay's MTU is cut into pieces there.
    lab.run("exec", "router", "--", "ip", "link", "set", "right", "mtu", "1400")
    text = lab.run("prove", "--bytes", "100000", status=1).stdout
    assert "fragments were made on the way" in text
    assert "2 of 6 ways failed" in text


def test_ipv6_only_nodes_are_told_apart(lab):
    lab.run("up", "--backend", "vxlan", "--ipv6")
    keys = ("etcdctl", "--endpoints=http://[fd20::b]:2379", "get", "--prefix", "/coreos.com/network/subnets/")
    lines = lab.run("exec", "node1", "--", *keys).stdout.splitlines()
    leases = {key.rpartition("/")[2]: json.loads(value) for key, value in zip(lines[::2], lines[1::2], strict=True)}
    assert {value["PublicIPv6"] for value in leases.values()} == {"fd20:0:0:1::b", "fd20:0:0:1::c", "fd20:0:0:2::b"}
    assert all(
        key.startswith("0.0.0.0-0&fd10:244:") and value["PublicIP"] == "0.0.0.0" for key, value in leases.items()
    )
    assert all("BackendV6Data" in value and "BackendData" not in value for value in leases.values())
