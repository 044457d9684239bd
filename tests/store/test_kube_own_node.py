"""Our own Node in a real kube-apiserver: what is read from it and written to it."""

import asyncio
from contextlib import aclosing

import pytest

from flanneld_py.core.errors import LeaseLostError, LeaseTakenError, StoreError
from flanneld_py.core.lease_event import LeaseRejected
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.store.subnet_manager import LeaseRequest
from tests.store.contract import CONFIG, DATA, DUAL, node, read_snapshot
from tests.store.kube_harness import OWN

pytestmark = pytest.mark.kubernetes

OURS = {"kube-subnet-manager": "true", "backend-type": "vxlan", "backend-data": DATA, "public-ip": "172.30.0.1"}
REQUEST = LeaseRequest(CONFIG, node(1))


@pytest.fixture
def server(kube):
    return kube.server


async def test_a_lease_is_the_pod_cidr_and_our_annotations(kube, server):
    manager = kube.manager()
    assert manager.assigns_subnets
    assert await manager.find_own(node(1)) is None
    held = await manager.acquire(REQUEST)
    assert (held.key, str(held.lease.subnet), held.lease.ipv6_subnet, held.ttl) == (OWN, "10.5.200.0/24", None, None)
    assert server.annotations(OWN) == OURS
    assert (await manager.find_own(node(1))).attrs == node(1)


async def test_dual_stack(kube, server):
    attrs = node(1, ipv6=(0xFD30 << 112) + 1)._replace(backend_v6_data=DATA)
    held = await kube.manager().acquire(LeaseRequest(DUAL, attrs))
    assert str(held.lease.ipv6_subnet) == "fd05:0:0:200::/64"
    assert server.annotations(OWN) == OURS | {"public-ipv6": "fd30::1", "backend-v6-data": DATA}
    # The second family is switched off again.
    await kube.manager().acquire(REQUEST)
    assert server.annotations(OWN) == OURS


async def test_another_prefix_of_annotations(kube, server):
    await kube.manager(annotation_prefix="example.com/lab-").acquire(REQUEST)
    assert server.annotations(OWN) == {}
    assert server.node(OWN)["metadata"]["annotations"]["example.com/lab-public-ip"] == "172.30.0.1"


async def test_what_is_right_is_not_written_again(kube, server):
    manager = kube.manager()
    held = await manager.acquire(REQUEST)
    before = server.node(OWN)["metadata"]["resourceVersion"]
    assert await manager.acquire(REQUEST) == held
    assert await manager.renew(held) == held
    assert server.node(OWN)["metadata"]["resourceVersion"] == before


async def test_the_operators_address_is_published_in_place_of_ours_and_followed(kube, server):
    manager = kube.manager()
    server.annotate(OWN, public_ip_overwrite="198.51.100.7")
    held = await manager.acquire(REQUEST)
    assert server.annotations(OWN)["public-ip"] == "198.51.100.7"
    assert held.lease.attrs.public_ip == 0xC6336407
    async with aclosing(manager.watch_leases()) as batches:
        assert OWN in (await read_snapshot(batches)).leases
        server.annotate(OWN, public_ip_overwrite="198.51.100.8")
        (event,) = await anext(batches)
        assert isinstance(event, LeaseRejected)  # which has the keeper renew
        assert (await manager.renew(held, node(1))).lease.attrs.public_ip == 0xC6336408
        assert (await anext(batches))[0].lease.attrs == node(1)  # as asked for, so the keeper finds nothing wrong
        assert server.annotations(OWN)["public-ip"] == "198.51.100.8"
        server.annotate(OWN, public_ip_overwrite=None)
        (event,) = await anext(batches)
        assert isinstance(event, LeaseRejected)
    await manager.renew(held, node(1))
    assert server.annotations(OWN) == OURS
    server.annotate(OWN, public_ip_overwrite="nonsense")
    with pytest.raises(StoreError, match="Node own: annotation public-ip-overwrite is no address"):
        await manager.renew(held, node(1))


async def test_the_operators_address_in_place_of_the_uplinks(kube, server):
    manager = kube.manager()
    assert await manager.read_public() == (None, None)
    server.annotate(OWN, node_public_ip="172.30.0.9", node_public_ipv6="fd30::9")
    assert await manager.read_public() == (0xAC1E0009, (0xFD30 << 112) + 9)


@pytest.mark.parametrize(
    ("cidrs", "config", "told"),
    [
        ((), CONFIG, "Node own has no podCIDR yet: does kube-controller-manager"),
        (("10.6.0.0/24",), CONFIG, "podCIDR 10.6.0.0/24 lies outside Network 10.5.0.0/16 of net-conf.json"),
        (("fd05::/64",), CONFIG, "Node own has no IPv4 podCIDR, only fd05::/64"),
        (("10.5.1.0/24",), DUAL, "Node own has no IPv6 podCIDR, only 10.5.1.0/24"),
    ],
)
async def test_a_node_that_does_not_fit_is_told(kube, server, cidrs, config, told):
    server.add_node(OWN, *cidrs)
    with pytest.raises(StoreError, match=told):
        await kube.manager().acquire(LeaseRequest(config, node(1)))
    assert server.annotations(OWN) == {}


async def test_the_configurations_limits_do_not_count(kube):
    config = parse_network_config('{"Network":"10.5.0.0/16","SubnetLen":99,"SubnetMin":"10.6.0.0"}', limits=False)
    assert (await kube.manager().acquire(LeaseRequest(config, node(1)))).key == OWN


async def test_a_node_that_is_gone_or_made_anew(kube, server):
    manager = kube.manager()
    held = await manager.acquire(REQUEST)
    server.delete_node(OWN)
    with pytest.raises(LeaseLostError, match="Node own is gone"):
        await manager.renew(held)
    with pytest.raises(StoreError, match='nodes "own" not found'):
        await manager.restore(held, node(1))
    server.add_node(OWN)
    with pytest.raises(LeaseTakenError, match="a Node with other podCIDRs, none yet"):
        await manager.restore(held, node(1))
    server.patch(OWN, {"spec": {"podCIDR": "10.5.200.0/24", "podCIDRs": ["10.5.200.0/24"]}})
    assert await manager.restore(held, node(1)) == held
    assert server.annotations(OWN) == OURS
    server.delete_node(OWN)
    server.add_node(OWN, "10.5.77.0/24")
    with pytest.raises(LeaseTakenError, match=r"a Node with other podCIDRs, 10.5.77.0/24"):
        await manager.renew(held)
    assert server.annotations(OWN) == {}


async def test_what_somebody_scribbles_is_told_and_mended(kube, server):
    manager = kube.manager()
    held = await manager.acquire(REQUEST)
    async with aclosing(manager.watch_leases()) as batches:
        await read_snapshot(batches)
        server.annotate(OWN, backend_data="{}", public_ip="172.30.0.99")
        assert isinstance((await anext(batches))[0], LeaseRejected)
        await manager.renew(held)
        assert (await anext(batches))[0].lease == held.lease
    assert server.annotations(OWN) == OURS


def unavailable(server):
    conditions = server.node(OWN)["status"].get("conditions", [])
    return [one for one in conditions if one["type"] == "NetworkUnavailable"]


async def test_the_condition_is_go_flannels(kube, server):
    manager = kube.manager()
    await manager.acquire(REQUEST)
    cloud = {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated", "message": "no route"}
    server.patch(OWN, {"status": {"conditions": [cloud, {"type": "Ready", "status": "True"}]}}, "/status")
    await manager.announce_ready()
    (condition,) = unavailable(server)
    assert {key: condition[key] for key in ("status", "reason", "message")} == {
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
    }
    assert condition["lastTransitionTime"] == condition["lastHeartbeatTime"]
    assert len(server.node(OWN)["status"]["conditions"]) == 2
    # A Node that is made anew has none.
    server.delete_node(OWN)
    server.add_node(OWN, "10.5.200.0/24")
    await manager.acquire(REQUEST)
    assert unavailable(server)


async def test_the_condition_is_left_alone_where_that_is_wished(kube, server):
    manager = kube.manager(set_network_unavailable=False)
    await manager.acquire(REQUEST)
    await manager.announce_ready()
    assert unavailable(server) == []


async def test_our_node_by_our_pod(kube, server):
    account = {"metadata": {"name": "default", "namespace": "kube-flannel"}}
    server.ask("POST", "/api/v1/namespaces/kube-flannel/serviceaccounts", account)
    server.do(
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        {
            "metadata": {"name": "pods"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        },
    )
    server.do(
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": "pods"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "pods"},
            "subjects": [{"kind": "ServiceAccount", "name": "flannel", "namespace": "kube-flannel"}],
        },
    )
    spec = {"containers": [{"name": "flannel", "image": "flannel"}]}
    pod = {"metadata": {"name": "flannel-x"}, "spec": spec}
    pods = "/api/v1/namespaces/kube-flannel/pods"
    await asyncio.to_thread(server.do, "POST", pods, pod)
    manager = kube.manager(node_name="", pod_name="flannel-x", pod_namespace="kube-flannel")
    try:
        with pytest.raises(StoreError, match="pod kube-flannel/flannel-x is on no Node yet"):
            await manager.acquire(REQUEST)
        binding = {"metadata": {"name": "flannel-x"}, "target": {"kind": "Node", "name": OWN}}
        server.do("POST", f"{pods}/flannel-x/binding", binding | {"apiVersion": "v1", "kind": "Binding"})
        assert (await manager.acquire(REQUEST)).key == OWN
    finally:
        server.do("DELETE", f"{pods}/flannel-x?gracePeriodSeconds=0")
