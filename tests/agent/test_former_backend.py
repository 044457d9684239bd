"""What former backends leave in the kernel, and that nothing else is taken."""

import asyncio

import pytest

from flanneld_py.agent.former_backend import Former, Present, find_former, remove_former
from flanneld_py.core.nexthop_id import nexthop_ids
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.kernel.guard_rules import GuardPlan
from flanneld_py.kernel.guard_table import GuardTable, read_guards
from flanneld_py.kernel.nf_tables_socket import has_nf_tables
from flanneld_py.kernel.vxlan import vxlan_port
from tests.host import IPV6

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

NETWORKS = [parse_prefix("10.5.0.0/16"), parse_prefix("fd42::/48")]
OWN = nexthop_ids(0)


def make_device(host, name, address, vni):
    host.ip(f"link add {name} type vxlan id {vni} dstport {4000 + vni} dev eth0")
    host.ip(f"addr add {address} dev {name}")
    host.ip(f"link set {name} up")


def look(host, wanted=(), subnets=(), guard=""):
    present = Present(wanted, OWN, guard)
    return host.namespace.run(find_former, host.sock, present, NETWORKS, [parse_prefix(subnet) for subnet in subnets])


def names(former):
    return {link.name for link in former.devices}


async def remove(host, former):
    synced = asyncio.Event()
    synced.set()
    with host.namespace.entered():
        await remove_former(host.sock, former, synced)


def links(host):
    return {link["ifname"] for link in host.ip("-json link show")}


def nexthops(host):
    return {entry["id"] for entry in host.ip("-json nexthop show")}


def test_devices_are_known_by_name_kind_and_address(host):
    make_device(host, "flannel.7", "10.5.1.0/32", 7)
    make_device(host, "flannel-v6.7", "fd42:0:0:1::/128", 8)
    make_device(host, "flannel.9", "10.99.1.0/32", 9)  # another network's
    make_device(host, "vxlan.10", "10.5.1.0/32", 10)  # nobody of us names devices so
    host.ip("link add flannel.11 type bridge")
    host.ip("addr add 10.5.1.0/32 dev flannel.11")
    assert names(look(host)) == {"flannel.7", "flannel-v6.7"}
    assert names(look(host, wanted=["flannel.7", "flannel-v6.7"])) == set()
    # The network is another now, but the subnet file still says what the device was for.
    assert names(look(host, subnets=["10.99.1.0/24"])) == {"flannel.7", "flannel-v6.7", "flannel.9"}


async def test_devices_go_and_nothing_else(host):
    make_device(host, "flannel.7", "10.5.1.0/32", 7)
    make_device(host, "flannel.9", "10.99.1.0/32", 9)
    before = links(host)
    await remove(host, look(host))
    assert links(host) == before - {"flannel.7"}


async def test_nexthops_of_former_routes_go_though_others_have_taken_the_routes(host):
    former, foreign, present, elsewhere = 0x46700001, 0x46700002, 0x46000003, 0x46700004
    for ident in (former, former + 8, elsewhere):
        host.ip(f"nexthop add id {ident} via 172.30.0.9 dev eth0 proto 119")
    host.ip(f"nexthop add id {foreign} via 172.30.0.9 dev eth0 proto zebra")
    host.ip(f"nexthop add id {present} via 172.30.0.9 dev eth0 proto 119")
    host.ip(f"-6 nexthop add id {former + 16} via fd30::9 dev eth0 proto 119")
    host.ip(f"route add 10.5.2.0/24 nhid {former} proto 119")
    host.ip(f"route add 10.5.3.0/24 nhid {former + 8} proto 119")
    host.ip(f"route add 10.5.4.0/24 nhid {foreign} proto zebra")
    host.ip(f"route add 10.5.5.0/24 nhid {present} proto 119")
    host.ip(f"route add 10.99.2.0/24 nhid {elsewhere} proto 119")
    host.ip(f"-6 route add fd42:0:0:2::/64 nhid {former + 16} proto 119")
    found = look(host)
    assert set(found.nexthops) == {former, former + 8, former + 16}
    # The present backend has taken over one of the routes meanwhile.
    host.ip(f"route replace 10.5.2.0/24 nhid {present} proto 119")
    await remove(host, found)
    assert nexthops(host) == {foreign, present, elsewhere}
    assert {"10.5.2.0/24", "10.5.4.0/24", "10.5.5.0/24", "10.99.2.0/24"} <= host.routes().keys()
    assert "10.5.3.0/24" not in host.routes()
    assert "fd42:0:0:2::/64" not in host.routes(IPV6)


async def test_it_goes_though_the_present_backend_does_not_work_yet(host, monkeypatch, caplog):
    monkeypatch.setattr("flanneld_py.agent.former_backend._PATIENCE", 0.01)
    make_device(host, "flannel.7", "10.5.1.0/32", 7)
    await remove_former(host.sock, look(host), asyncio.Event())
    assert "flannel.7" not in links(host)
    assert "it may be in its way" in caplog.text


async def test_device_that_somebody_has_made_anew_stays(host):
    make_device(host, "flannel.7", "10.5.1.0/32", 7)
    found = look(host)
    host.ip("link del flannel.7")
    make_device(host, "flannel.7", "10.5.1.0/32", 7)
    await remove(host, found)
    assert "flannel.7" in links(host)


def make_guard(host, name):
    table = host.namespace.run(GuardTable, name, GuardPlan(vxlan_port(8472, 1), (4,), (), True), [])
    table.read()
    table.close()


async def test_guards_go_with_their_devices_and_those_of_another_daemon_stay(host):
    if not has_nf_tables():
        pytest.skip("this kernel has no nf_tables: modprobe nf_tables")
    make_device(host, "flannel.1", "10.5.1.0/32", 1)
    make_device(host, "flannel.7", "10.5.2.0/32", 7)
    make_device(host, "flannel.9", "10.99.1.0/32", 9)  # another daemon's, for another network
    for name in ("flannel.1", "flannel.7", "flannel.9", "flannel.11"):
        make_guard(host, name)
    await remove(host, look(host, wanted=["flannel.1"], guard="flannel.1"))
    assert host.namespace.run(read_guards) == {"flannel.1", "flannel.9"}
    await remove(host, look(host, wanted=["flannel.1"]))
    assert host.namespace.run(read_guards) == {"flannel.9"}


async def test_nothing_to_do_is_not_waited_for(host):
    await asyncio.wait_for(remove_former(host.sock, Former((), (), ()), asyncio.Event()), 5)
