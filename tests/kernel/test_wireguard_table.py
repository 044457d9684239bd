"""The table of WireGuard's peers: the same suite for a device in memory and for a real one in user space."""

import os
import shutil
import uuid
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flanneld_py.core.errors import KernelError
from flanneld_py.core.plan import plan_change
from flanneld_py.core.prefix import IPV4, IPV6, parse_prefix
from flanneld_py.core.wireguard import (
    DeviceChange,
    Endpoint,
    PeerChange,
    clamp_private_key,
    format_wireguard_key,
    public_key_of,
)
from flanneld_py.kernel import wireguard
from flanneld_py.kernel.wireguard import Way, WireguardDriver, device_entry, find_provider, prefix_entry
from flanneld_py.kernel.wireguard_netlink import NetlinkControl, has_wireguard
from flanneld_py.kernel.wireguard_uapi import UapiControl, socket_path, start_process
from tests.fakes.memory_wireguard import MemoryControl
from tests.waiting import wait_until

BUILT = Path(__file__).parents[2] / ".cache" / "peers"
PROGRAM = shutil.which("wireguard-go", path=f"{BUILT}:{os.environ['PATH']}")
OURS = clamp_private_key(bytes(range(1, 33)))
SECRET = bytes(range(32))
A, B = (clamp_private_key(bytes([value]) * 32) for value in (1, 2))
SUBNET, OTHER, SUBNET6 = map(parse_prefix, ("10.5.2.0/24", "10.5.3.0/24", "fd42:0:0:2::/64"))


@cache
def way(private_key, last=13):
    key = format_wireguard_key(public_key_of(private_key))
    return Way(key, Endpoint(IPV4, 0xAC1E0000 + last, 51820), 25)


@pytest.fixture(params=["memory", pytest.param("wireguard-go", marks=pytest.mark.kernel)])
def name_and_control(request):
    if request.param == "memory":
        yield "wg-memory", MemoryControl()
        return
    if PROGRAM is None:
        pytest.skip("no wireguard-go: apt-get install wireguard-go, or make peers")
    host = request.getfixturevalue("host")
    name = f"wg{uuid.uuid4().hex[:10]}"
    host.namespace.run(start_process, PROGRAM, name)
    yield name, UapiControl(name)
    # The process ends with its device.
    host.do(lambda ipr: ipr.link("del", index=ipr.link_lookup(ifname=name)[0]))
    wait_until(lambda: not socket_path(name).exists())


@pytest.fixture
def device(name_and_control):
    return Device(*name_and_control)


class Device:
    def __init__(self, name, control, secret=SECRET):
        self.name, self.control, self.secret = name, control, secret
        self.driver = self.make_driver()

    def make_driver(self):
        return WireguardDriver({self.name: self.control}, OURS, self.secret)

    def entry(self, prefix, held):
        return prefix_entry(self.name, prefix, held)

    def become(self, *entries):
        """Reconcile as the daemon does: read, plan, apply."""
        return self.driver.apply(plan_change(self.driver.read(), [self.own, *entries]))

    @property
    def own(self):
        return device_entry(self.name, public_key_of(OURS), 51999)

    def holds(self):
        state = self.control.read()
        return {format_wireguard_key(peer.public_key): set(peer.allowed) for peer in state.peers}


def test_device_and_peers_become_what_is_wanted_and_stay(device):
    wanted = [device.entry(SUBNET, way(A)), device.entry(SUBNET6, way(A)), device.entry(OTHER, way(B, 14))]
    assert device.become(*wanted) == {}
    state = device.control.read()
    assert (state.private_key, state.port) == (OURS, 51999)
    assert device.holds() == {way(A).public_key: {SUBNET, SUBNET6}, way(B).public_key: {OTHER}}
    assert {peer.preshared_key for peer in state.peers} == {SECRET}
    assert {peer.endpoint for peer in state.peers} == {way(A).endpoint, way(B, 14).endpoint}
    assert {peer.keepalive for peer in state.peers} == {25}
    for driver in (device.driver, device.make_driver()):
        assert plan_change(driver.read(), [device.own, *wanted]) == []


def test_subnet_moves_to_another_key_and_the_old_peer_goes(device):
    device.become(device.entry(SUBNET, way(A)))
    device.become(device.entry(SUBNET, way(B)))
    assert device.holds() == {way(B).public_key: {SUBNET}}


def test_peer_keeps_what_is_left_to_it(device):
    device.become(device.entry(SUBNET, way(A)), device.entry(SUBNET6, way(A)))
    device.become(device.entry(SUBNET6, way(A)))
    assert device.holds() == {way(A).public_key: {SUBNET6}}
    assert device.control.read().peers[0].keepalive == 25
    device.become()
    assert device.holds() == {}


def test_two_peers_change_places(device):
    device.become(device.entry(SUBNET, way(A)), device.entry(OTHER, way(B)))
    device.become(device.entry(SUBNET, way(B)), device.entry(OTHER, way(A)))
    assert device.holds() == {way(A).public_key: {OTHER}, way(B).public_key: {SUBNET}}


def test_strangers_go_and_a_changed_key_and_secret_are_put_right(device):
    device.become(device.entry(SUBNET, way(A)))
    stranger, idle = (public_key_of(bytes([value]) * 32) for value in (7, 8))
    device.control.change(
        DeviceChange(B, 5, (PeerChange(stranger, allowed=(parse_prefix("0.0.0.0/0"),)), PeerChange(idle)))
    )
    device.control.change(DeviceChange(None, None, (PeerChange(public_key_of(A), preshared_key=bytes(32)),)))
    device.become(device.entry(SUBNET, way(A)))
    state = device.control.read()
    assert (state.private_key, state.port) == (OURS, 51999)
    assert device.holds() == {way(A).public_key: {SUBNET}}
    assert state.peers[0].preshared_key == SECRET


def test_peer_that_has_roamed_is_left_where_it_is(device):
    device.become(device.entry(SUBNET, way(A)))
    elsewhere = Endpoint(IPV6, 1, 999)
    device.control.change(DeviceChange(None, None, (PeerChange(public_key_of(A), endpoint=elsewhere),)))
    device.become(device.entry(SUBNET, way(A)))
    assert device.control.read().peers[0].endpoint == elsewhere
    device.become(device.entry(SUBNET, way(A, 14)))
    assert device.control.read().peers[0].endpoint == way(A, 14).endpoint


def test_two_leases_of_one_node_and_one_of_them_goes(device):
    device.become(device.entry(SUBNET, way(A)), device.entry(OTHER, way(A)))
    assert device.driver.apply(plan_change([device.entry(SUBNET, way(A))], [])) == {}
    assert device.holds() == {way(A).public_key: {OTHER}}


def test_one_that_is_refused_holds_up_no_other():
    control = MemoryControl()
    device = Device("wg-memory", control)
    control.refused = {public_key_of(B)}
    entries = [device.entry(SUBNET, way(A)), device.entry(OTHER, way(B))]
    operations = plan_change([], entries)
    failed = device.driver.apply(operations)
    assert {operations[index].entry for index in failed} == {entries[1]}
    assert set(failed.values()) == {(22, "change: refused")}
    assert device.holds() == {way(A).public_key: {SUBNET}}


def test_peers_are_changed_by_one_request():
    control = MemoryControl()
    device = Device("wg-memory", control)
    subnets = [parse_prefix(f"10.5.{index}.0/24") for index in range(40)]
    device.become(*(device.entry(subnet, way(bytes([index]) * 32)) for index, subnet in enumerate(subnets)))
    assert (control.requests, len(control.state.peers)) == (1, 40)


PLANS = st.dictionaries(st.sampled_from([SUBNET, OTHER, SUBNET6]), st.sampled_from([A, B, OURS[::-1]]))


@settings(deadline=None)
@given(st.lists(PLANS, min_size=1, max_size=4))
def test_any_change_leads_to_what_is_wanted(plans):
    device = Device("wg-memory", MemoryControl())
    before = []
    for plan in plans:
        after = [device.entry(prefix, way(key)) for prefix, key in plan.items()]
        # As leases change, without reading in between.
        assert device.driver.apply(plan_change(before, after)) == {}
        held = {}
        for prefix, key in plan.items():
            held.setdefault(way(key).public_key, set()).add(prefix)
        assert device.holds() == held
        assert not [entry for entry in device.driver.read() if entry.value is None]
        before = after


def test_no_entry_holds_a_secret(device):
    device.become(device.entry(SUBNET, way(A)))
    told = repr(device.driver.read())
    for secret in (OURS, SECRET):
        assert format_wireguard_key(secret) not in told
        assert secret.hex() not in told


@pytest.mark.kernel
def test_process_that_cannot_start_is_told(host, tmp_path):
    program = tmp_path / "wireguard-go"
    program.write_text("#!/bin/sh\necho no such thing >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(KernelError, match="no such thing"):
        start_process(str(program), f"wg{uuid.uuid4().hex[:10]}")


def test_nobody_at_the_socket_is_an_error():
    with pytest.raises(KernelError, match="No such file"):
        UapiControl(f"wg{uuid.uuid4().hex[:10]}").read()


@pytest.mark.kernel
def test_machine_without_wireguard_is_told_what_to_do(host, monkeypatch):
    monkeypatch.setattr(wireguard, "has_wireguard", lambda: False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(KernelError, match="modprobe wireguard, apt-get install wireguard-go"):
        find_provider()


@pytest.mark.kernel
@pytest.mark.guest
def test_kernel_device(host):
    if not host.namespace.run(has_wireguard):
        pytest.skip("this kernel has no WireGuard: make test-kernels has one that does")
    host.do(lambda ipr: ipr.link("add", ifname="flannel-wg", kind="wireguard"))
    device = Device("flannel-wg", NetlinkControl("flannel-wg"))
    with host.namespace.entered():
        test_peer_keeps_what_is_left_to_it(device)
        test_two_peers_change_places(device)
