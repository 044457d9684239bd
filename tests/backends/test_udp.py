import os
from ipaddress import ip_address

import pytest

from flanneld_py.backends.backend import Ground
from flanneld_py.backends.registry import parse_backend
from flanneld_py.core.entries import DrivenEntry, Route
from flanneld_py.core.errors import ConfigError, KernelError
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.peer import Peer
from flanneld_py.core.plan import plan_change
from flanneld_py.core.prefix import IPV4, parse_prefix
from tests.backends.nodes import DUAL, V6, ip, make_backend

SUBNET = parse_prefix("10.5.2.0/24")
PEER = Peer(SUBNET, ip("172.30.0.13"))
OWN = Lease(parse_prefix("10.5.1.0/24"), None, LeaseAttrs(ip("172.30.0.12"), None, ""))


def test_lease_carries_the_public_address_alone():
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no /dev/net/tun: modprobe tun")
    attrs = make_backend("udp", public=ip_address("198.51.100.1")).publish(None, None, None)
    assert encode_attrs(attrs) == '{"PublicIP":"198.51.100.1","PublicIPv6":null}'


def test_missing_tun_is_told_before_any_lease(monkeypatch):
    monkeypatch.setattr("flanneld_py.kernel.tun._PATH", "/dev/net/none")
    with pytest.raises(KernelError, match="modprobe tun"):
        make_backend("udp").publish(None, None, None)


def test_missing_backend_means_udp():
    parse_backend(parse_network_config('{"Network":"10.5.0.0/16"}'))


@pytest.mark.parametrize("network", [V6, DUAL])
def test_ipv6_is_refused(network):
    with pytest.raises(ConfigError, match="IPv4 only"):
        make_backend("udp", network)


def test_port_out_of_bounds_is_refused():
    with pytest.raises(ConfigError, match="65536 is out of bounds"):
        make_backend("udp", Port=65536)


def test_device_has_the_base_of_our_subnet_and_room_for_the_headers():
    backend = make_backend("udp", mtu=9000)
    [device] = backend.devices(OWN).values()
    assert (device.name, device.kind, device.mtu, backend.mtu) == ("flannel0", "tun", 8972, 8972)
    assert device.addresses == (parse_prefix("10.5.1.0/32"),)
    assert device.make is not None


def test_peer_is_one_entry_and_the_network_one_route():
    backend, ground = make_backend("udp"), Ground({IPV4: 7}, (), has_nexthops=True)
    assert backend.desired(PEER, ground) == (DrivenEntry("udp", (SUBNET,), ip("172.30.0.13")),)
    assert backend.standing(ground) == (Route(parse_prefix("10.5.0.0/16"), 0, 0, 0, 7, onlink=False),)


def test_driver_holds_what_it_was_given():
    [driver] = make_backend("udp").drivers
    moved = DrivenEntry("udp", (SUBNET,), ip("172.30.0.14"))
    before = [DrivenEntry("udp", (SUBNET,), ip("172.30.0.13")), DrivenEntry("udp", (parse_prefix("10.5.3.0/24"),), 9)]
    assert driver.apply(plan_change([], before)) == {}
    assert sorted(driver.read()) == sorted(before)
    assert driver.apply(plan_change(before, [moved])) == {}
    assert driver.read() == [moved]
    assert driver.apply(plan_change(before, [])) == {}
    assert driver.read() == []


def test_leases_become_peers():
    backend = make_backend("udp")
    assert backend.read_peers(Lease(SUBNET, None, LeaseAttrs(ip("172.30.0.13"), None, ""))) == (PEER,)
    with pytest.raises(ValueError, match="its backend is 'wireguard', this node's is 'udp'"):
        backend.read_peers(Lease(SUBNET, None, LeaseAttrs(1, None, "wireguard")))
    with pytest.raises(ValueError, match="no PublicIP"):
        backend.read_peers(Lease(SUBNET, None, LeaseAttrs(None, None, "")))


def test_node_of_another_backend_is_reached_without_the_tunnel():
    backend = make_backend("udp")
    [peer] = backend.read_peers(Lease(SUBNET, None, LeaseAttrs(ip("172.30.0.13"), None, "vxlan")))
    assert backend.follows_underlay
    routes = (Route(parse_prefix("172.30.0.0/24"), 0, 0, 0, 2, False, 2),)
    ground = Ground({IPV4: 7}, routes, has_nexthops=False)
    assert backend.desired(peer, ground) == (Route(SUBNET, 0, 0, ip("172.30.0.13"), 2, onlink=False),)
