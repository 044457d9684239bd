"""The kernel's questions and our answers, by real packets through a vxlan device to another namespace."""

import errno
import socket
from pathlib import Path

import pytest

from flanneld_py.core.entries import UNREACHABLE, FdbEntry, Kind, Neighbour, Route
from flanneld_py.core.misses import Miss
from flanneld_py.core.plan import Operation
from flanneld_py.core.prefix import host_prefix, parse_interface
from flanneld_py.kernel import dataplane, miss
from flanneld_py.kernel.device import Device, ensure_device
from flanneld_py.kernel.monitor import Monitor
from flanneld_py.kernel.vxlan import vxlan_options
from tests.agent.on_demand_node import FAR_ADDRESS, RESOLVED, Sender
from tests.agent.vandals import RefusingSocket
from tests.host import ADDRESS, IPV4, IPV6, PERMANENT, SELF, mac, number, parse_prefix
from tests.waiting import until, wait_until

pytestmark = pytest.mark.kernel

OWN_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:01:02"
PEER = "172.30.1.2"
NETWORK = parse_prefix("10.5.0.0/16")


@pytest.fixture
def host(near):
    return near


def wanted(host, name="flannel.1", vni=1, base="10.5.1.0"):
    options = vxlan_options(
        vni=vni,
        port=8472 + vni - 1,
        learning=False,
        group_policy=False,
        parent=host.uplink,
        source=parse_interface(f"{ADDRESS}/16")[0],
    )
    address = host_prefix(parse_interface(f"{base}/24")[0])
    return Device(name, "vxlan", mac(OWN_MAC), 1450, (address,), options)


def make_asking(host, network=NETWORK, **keys):
    device = wanted(host, **keys)
    ifindex = ensure_device(host.sock, device).ifindex
    assert miss.ensure_asking(host.sock, ifindex, device.name, IPV4)
    assert not miss.ensure_asking(host.sock, ifindex, device.name, IPV4)
    route = Route(network, 0, 0, 0, ifindex, onlink=False)
    assert dataplane.apply_batch(host.sock, [Operation(Kind.ROUTE, False, route)]) == {}
    return ifindex


@pytest.fixture
def device(host):
    return make_asking(host)


@pytest.fixture
def sender(host):
    made = Sender(host)
    yield made
    made.close()


@pytest.fixture
def monitor(host):
    made = Monitor(host.sock.port)
    yield made
    made.close()


def scope(*devices):
    return dataplane.Scope(dict(enumerate(devices, IPV4)), 0, (NETWORK,), (24,), range(0), has_nexthops=True)


def read_misses(monitor, count, *devices):
    """Wait for so many questions about a device."""
    found = []

    def are_there():
        monitor.read_changes(scope(*devices), set())
        found.extend(monitor.take_misses())
        return len(found) >= count

    wait_until(are_there)
    return found


def unresolved(host, device):
    found = host.do(lambda ipr: list(ipr.get_neighbours(family=2, ifindex=device)))
    return [entry.get_attr("NDA_DST") for entry in found if not entry["state"] & RESOLVED]


def neighbours(host, device):
    return {
        entry.get_attr("NDA_DST")
        for entry in host.do(lambda ipr: list(ipr.get_neighbours(family=2, ifindex=device)))
        if not entry.get_attr("NDA_DST").startswith("224.")
    }


def through(device, remote=PEER):
    return FdbEntry(device, mac(PEER_MAC), IPV4, number(remote))


async def test_the_kernel_asks_once_for_each_address(device, sender, monitor):
    for _ in range(3):
        for address in ("10.5.2.7", "10.5.2.8"):
            assert sender.send(address) == 0
    found = read_misses(monitor, 2, device)
    assert found == [Miss(IPV4, number("10.5.2.7")), Miss(IPV4, number("10.5.2.8"))]
    assert monitor.take_misses() == []


async def test_without_the_settings_the_kernel_does_not_ask(host, sender, monitor):
    device = host.make_vxlan()
    host.do(lambda ipr: ipr.route("add", dst="10.5.0.0/16", oif=device))
    other = make_asking(host, parse_prefix("10.6.0.0/16"), name="flannel.2", vni=2, base="10.6.1.0")
    sender.send("10.5.2.7")
    sender.send("10.6.2.7")
    assert read_misses(monitor, 1, device, other) == [Miss(IPV4, number("10.6.2.7"))]


@pytest.mark.parametrize("family", [IPV4, IPV6])
async def test_who_stops_asking_leaves_the_device_as_others_are(host, family):
    """The settings are written without /proc/sys, which is read here: in most containers it can only be read."""
    name, folder = "flannel.1", "ipv4" if family == IPV4 else "ipv6"
    device = host.make_vxlan()

    def settings_of(name):
        files = (Path("/proc/sys/net", folder, "neigh", name, f"{key}_solicit") for key in ("app", "ucast", "mcast"))
        return host.namespace.run(lambda: [file.read_text().strip() for file in files])

    others = settings_of("lo")
    miss.stop_asking(host.sock, name, family)
    assert settings_of(name) == others
    assert miss.ensure_asking(host.sock, device, name, family)
    assert settings_of(name) == ["1", "0", "0"]
    assert settings_of("lo") == settings_of("eth0") == others
    miss.stop_asking(host.sock, name, family)
    assert settings_of(name) == others
    host.namespace.run(Path("/proc/sys/net", folder, "neigh", name, "mcast_solicit").write_text, "7")
    miss.stop_asking(host.sock, name, family)
    assert settings_of(name)[2] == "7"
    miss.stop_asking(host.sock, "flannel.77", family)


async def test_the_kernel_asks_in_ipv6_as_well(host, device, far, sender, monitor):
    network = parse_prefix("fd42::/48")
    host.do(lambda ipr: ipr.addr("add", index=device, address="fd42:0:0:1::", prefixlen=128, flags=0x02))
    await until(lambda: host.takes_in("fd42:0:0:1::"))
    assert miss.ensure_asking(host.sock, device, "flannel.1", IPV6)
    route = Route(network, 1024, 0, 0, device, onlink=False)
    assert dataplane.apply_batch(host.sock, [Operation(Kind.ROUTE, False, route)]) == {}
    for _ in range(2):
        for last in (7, 8):
            assert sender.send(f"fd42:0:0:2::{last}", b"first") == 0
    found = read_misses(monitor, 2, device)
    assert found == [Miss(IPV6, number("fd42:0:0:2::7")), Miss(IPV6, number("fd42:0:0:2::8"))]
    assert set(miss.read_unanswered(host.sock, device, IPV6)) == set(found)
    miss.send_queued(host.sock, through(device), found[:1])
    miss.refuse(host.sock, device, found[1:])
    await until(lambda: far.payloads("fd42:0:0:2::7") == [b"first", b"first"])
    opened = sender._sockets["fd42:0:0:2::8"]
    await until(lambda: opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH)
    miss.forget(host.sock, through(device), found[:1], stays=False)
    left = host.do(lambda ipr: list(ipr.get_neighbours(family=10, ifindex=device)))
    assert not {entry.get_attr("NDA_DST") for entry in left} & {"fd42:0:0:2::7", "fd42:0:0:2::8"}


def test_a_route_that_leads_nowhere_is_read_as_it_was_written(host, device):
    """IPv6 shows the loopback device for it."""
    route = Route(parse_prefix("fd42:0:0:7::/64"), 1024, 0, 0, 0, onlink=False, type=UNREACHABLE)
    assert dataplane.apply_batch(host.sock, [Operation(Kind.ROUTE, False, route)]) == {}
    found = host.do(lambda ipr: list(ipr.get_routes(family=10, table=254)))
    assert [r.get_attr("RTA_DST") for r in found if r["type"] == UNREACHABLE] == ["fd42:0:0:7::"]
    ipv6 = dataplane.Scope({IPV6: device}, 0, (parse_prefix("fd42::/48"),), (64,), range(0), has_nexthops=True)
    *_, table = dataplane.read_steps(host.sock, ipv6, Kind.ROUTE)
    assert list(table.values()) == [route]


async def test_what_is_unanswered_can_be_read(host, device, sender, monitor):
    assert miss.read_unanswered(host.sock, device, IPV4) == []
    sender.send("10.5.9.7")
    assert miss.read_unanswered(host.sock, device, IPV4) == [Miss(IPV4, 0x0A050907)]
    miss.refuse(host.sock, device, [Miss(IPV4, 0x0A050907)])
    assert miss.read_unanswered(host.sock, device, IPV4) == []


async def test_misses_on_devices_of_others_are_not_ours(host, device, sender, monitor):
    other = make_asking(host, parse_prefix("10.6.0.0/16"), name="flannel.2", vni=2, base="10.6.1.0")
    sender.send("10.6.2.7")
    sender.send("10.5.2.7")
    assert read_misses(monitor, 1, device) == [Miss(IPV4, number("10.5.2.7"))]
    assert unresolved(host, other) == ["10.6.2.7"]


def send_and_forget(host, device, misses):
    miss.send_queued(host.sock, through(device), misses)
    assert miss.forget(host.sock, through(device), misses, stays=False) == ""


async def test_what_the_kernel_refuses_to_forget_is_told_and_what_is_gone_is_not(host, device, sender, monitor):
    sender.send("10.5.2.7")
    found = read_misses(monitor, 1, device)
    miss.send_queued(host.sock, through(device), found)
    refusing = RefusingSocket(host.sock)
    refusing.refusals.append(errno.ENOMEM)
    assert miss.forget(refusing, through(device), found, stays=True) == "refused for the test"
    assert neighbours(host, device) == {"10.5.2.7"}
    for _ in ("there", "gone"):
        assert miss.forget(host.sock, through(device), found, stays=False) == ""
    host.do(lambda ipr: ipr.link("del", index=device))
    assert miss.forget(host.sock, through(device), found, stays=False) == ""


@pytest.mark.parametrize("stays", [True, False])
async def test_queued_packets_are_sent_in_order_and_the_addresses_forgotten(host, far, device, sender, monitor, stays):
    for payload in (b"one", b"two", b"three"):
        sender.send("10.5.2.7", payload)
    sender.send("10.5.2.8", b"other")
    found = read_misses(monitor, 2, device)
    miss.send_queued(host.sock, through(device), found)
    sender.send("10.5.2.8", b"later")
    await until(lambda: len(far.packets) == 5)
    miss.forget(host.sock, through(device), found, stays=stays)
    assert far.payloads("10.5.2.7") == [b"one", b"two", b"three"]
    assert far.payloads("10.5.2.8") == [b"other", b"later"]
    assert {(outer, lladdr) for outer, lladdr, _, _ in far.packets} == {(PEER, PEER_MAC)}
    assert neighbours(host, device) == set()
    assert host.fdb(device) == ({PEER_MAC: PEER} if stays else {})


async def test_the_kernel_asks_again_for_what_was_forgotten(host, device, sender, monitor):
    sender.send("10.5.2.7")
    send_and_forget(host, device, read_misses(monitor, 1, device))
    sender.send("10.5.2.7")
    assert read_misses(monitor, 1, device) == [Miss(IPV4, number("10.5.2.7"))]


async def test_a_permanent_neighbour_sends_what_is_queued_as_well(host, far, device, sender, monitor):
    # What becomes of a packet to the base address of a subnet, once its peer is programmed.
    sender.send("10.5.2.0", b"gateway")
    read_misses(monitor, 1, device)
    operations = [
        Operation(Kind.FDB, False, through(device)),
        Operation(Kind.NEIGHBOUR, False, Neighbour(device, IPV4, number("10.5.2.0"), mac(PEER_MAC))),
    ]
    assert dataplane.apply_batch(host.sock, operations) == {}
    await until(lambda: far.payloads("10.5.2.0") == [b"gateway"])
    assert host.neighbours(device) == {"10.5.2.0": PEER_MAC}


async def test_who_is_refused_is_told_at_once(host, device, sender, monitor):
    addresses = [f"10.5.2.{last}" for last in range(1, 11)]
    for address in addresses:
        sender.send(address)
    found = read_misses(monitor, 10, device)
    assert sorted(unresolved(host, device)) == sorted(addresses)
    miss.refuse(host.sock, device, found)
    assert neighbours(host, device) == set()
    for address in addresses:
        opened = sender._sockets[address]
        await until(lambda opened=opened: opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH)


async def test_answers_to_questions_that_nobody_asks_any_more_do_no_harm(host, device):
    asked = [Miss(IPV4, number("10.5.2.7"))]
    miss.refuse(host.sock, device, asked)
    send_and_forget(host, device, asked)
    assert neighbours(host, device) == set()
    assert host.fdb(device) == {}
    host.do(lambda ipr: ipr.link("del", index=device))
    miss.refuse(host.sock, device, asked)
    send_and_forget(host, device, asked)
    miss.refuse(host.sock, device, [])
    send_and_forget(host, device, [])


async def test_idle_times_grow_and_begin_anew_with_each_packet(host, far, device, sender):
    other_mac = "02:00:00:00:01:03"
    for address, lladdr, remote in (("10.5.2.7", PEER_MAC, PEER), ("10.5.3.7", other_mac, "172.30.1.3")):
        operations = [
            Operation(Kind.FDB, False, FdbEntry(device, mac(lladdr), IPV4, number(remote))),
            Operation(Kind.NEIGHBOUR, False, Neighbour(device, IPV4, number(address), mac(lladdr))),
        ]
        assert dataplane.apply_batch(host.sock, operations) == {}

    def idle(lladdr):
        return miss.read_idle_times(host.sock, device)[mac(lladdr)]

    assert miss.read_idle_times(host.sock, device).keys() == {mac(PEER_MAC), mac(other_mac)}
    await until(lambda: idle(PEER_MAC) >= 0.2 and idle(other_mac) >= 0.2)
    sender.send("10.5.2.7")
    await until(lambda: far.payloads("10.5.2.7"))
    assert idle(PEER_MAC) < idle(other_mac)
    before = idle(PEER_MAC)
    await until(lambda: idle(PEER_MAC) > before)


def test_nothing_is_idle_on_a_device_that_is_gone(host, device):
    other = host.make_vxlan("flannel.2", vni=2)
    for index in (device, other):
        host.do(
            lambda ipr, index=index: ipr.fdb(
                "add", ifindex=index, lladdr=PEER_MAC, dst=PEER, flags=SELF, state=PERMANENT
            )
        )
    assert miss.read_idle_times(host.sock, device).keys() == {mac(PEER_MAC)}
    host.do(lambda ipr: ipr.link("del", index=device))
    assert miss.read_idle_times(host.sock, device) == {}


def test_other_messages_are_no_questions(host, device, monitor):
    host.do(lambda ipr: ipr.neigh("add", ifindex=device, dst="10.5.2.0", lladdr=PEER_MAC, state=PERMANENT))
    host.do(lambda ipr: ipr.neigh("del", ifindex=device, dst="10.5.2.0"))
    host.do(lambda ipr: ipr.route("add", dst="10.99.0.0/16", gateway=FAR_ADDRESS))
    wait_until(lambda: monitor.read_changes(scope(device), set()))
    assert monitor.take_misses() == []
