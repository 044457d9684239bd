import json
import stat
from ipaddress import ip_address

import pytest

from flanneld_py.backends.backend import Ground
from flanneld_py.backends.wireguard import read_private_key
from flanneld_py.core.entries import Route
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs
from flanneld_py.core.prefix import IPV4, IPV6, parse_prefix
from flanneld_py.core.wireguard import Endpoint, format_wireguard_key, parse_wireguard_key, public_key_of
from flanneld_py.kernel.wireguard import Provider, Way, device_entry, prefix_entry
from tests.backends.nodes import DUAL, V4, V6, ip, make_backend
from tests.fakes.memory_wireguard import MemoryControl

PRIVATE = bytes(range(32))
OURS = format_wireguard_key(public_key_of(PRIVATE))
THEIRS = format_wireguard_key(public_key_of(PRIVATE[::-1]))
SUBNET, SUBNET6 = parse_prefix("10.5.2.0/24"), parse_prefix("fd42:0:0:2::/64")
OWN = Lease(parse_prefix("10.5.1.0/24"), parse_prefix("fd42:0:0:1::/64"), LeaseAttrs(1, 2, "wireguard"))
PSK = format_wireguard_key(bytes(range(100, 132)))


@pytest.fixture
def make_ready(monkeypatch, tmp_path):
    """A backend that is prepared, with devices in memory."""

    async def make(network=V4, *, devices=(), **keys):
        file = tmp_path / "wgkey"
        file.write_text(format_wireguard_key(PRIVATE))
        monkeypatch.setenv("WIREGUARD_KEY_FILE", str(file))
        controls = {}
        provider = Provider("wireguard", None, lambda name: controls.setdefault(name, MemoryControl()))
        monkeypatch.setattr("flanneld_py.backends.wireguard.find_provider", lambda: provider)
        monkeypatch.setattr("flanneld_py.backends.wireguard.read_link", lambda sock, name: name in devices or None)
        backend = make_backend("wireguard", network, **keys)
        await backend.prepare(None)
        backend.controls = controls
        return backend

    return make


def lease(public="172.30.0.13", public6="fd30::13", port=51820, port6=51821, key=THEIRS, **fields):
    data, data6 = (json.dumps({"PublicKey": key, "Port": number}) for number in (port, port6))
    attrs = LeaseAttrs(ip(public), ip(public6) if public6 else None, "wireguard", data, data6)
    return Lease(SUBNET, SUBNET6, attrs._replace(**fields))


async def test_lease_is_written_as_go_flannel_does(make_ready):
    backend = await make_ready()
    assert encode_attrs(backend.publish(None, None, None)) == (
        '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"wireguard",'
        f'"BackendData":{{"PublicKey":"{OURS}","Port":51820}}}}'
    )
    backend = await make_ready(DUAL)
    assert encode_attrs(backend.publish(None, None, None)) == (
        '{"PublicIP":"172.30.0.12","PublicIPv6":"fd30::12","BackendType":"wireguard",'
        f'"BackendData":{{"PublicKey":"{OURS}","Port":51820}},"BackendV6Data":{{"PublicKey":"{OURS}","Port":51821}}}}'
    )


async def test_ipv6_only_lease(make_ready):
    backend = await make_ready(V6, ListenPortV6=7)
    attrs = backend.publish(None, None, None)
    assert (attrs.public_ip, attrs.backend_data) == (None, None)
    assert json.loads(attrs.backend_v6_data) == {"PublicKey": OURS, "Port": 7}


@pytest.mark.parametrize("mode", ["auto", "ipv4", "ipv6"])
async def test_one_tunnel_listens_at_one_port(make_ready, mode):
    attrs = (await make_ready(DUAL, Mode=mode, ListenPort=9)).publish(None, None, None)
    assert [json.loads(data)["Port"] for data in attrs[3:5]] == [9, 9]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"Mode": "both"}, "Mode: 'both' is not known here; expected one of: separate, auto, ipv4, ipv6"),
        ({"ListenPort": 0}, "ListenPort: 0 is out of bounds"),
        ({"ListenPort": 51821}, "ListenPortV6: 51821 is ListenPort as well"),
        ({"PersistentKeepaliveInterval": -1}, "PersistentKeepaliveInterval: -1 is out of bounds"),
        ({"PSK": "hunter2"}, "PSK: it is no key of 32 bytes in base64"),
        ({"PSK": 5}, "PSK: it is no key"),
    ],
)
def test_bad_configuration_is_told(keys, told):
    with pytest.raises(ConfigError) as caught:
        make_backend("wireguard", DUAL, **keys)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_each_family_has_a_device(make_ready):
    devices = (await make_ready(DUAL)).devices(OWN)
    assert {family: (device.name, device.mtu) for family, device in devices.items()} == {
        IPV4: ("flannel-wg", 1420),
        IPV6: ("flannel-wg-v6", 1420),
    }
    assert [str(device.addresses[0]) for device in devices.values()] == ["10.5.1.0/32", "fd42:0:0:1::/128"]


async def test_one_tunnel_is_one_device(make_ready):
    devices = (await make_ready(DUAL, Mode="auto", MTU=1400)).devices(OWN)
    assert devices[IPV4] == devices[IPV6]
    assert (devices[IPV4].name, devices[IPV4].mtu) == ("flannel-wg", 1320)
    assert list(map(str, devices[IPV4].addresses)) == ["10.5.1.0/32", "fd42:0:0:1::/128"]


async def test_ipv6_only_has_one_device(make_ready):
    devices = (await make_ready(V6)).devices(OWN._replace(subnet=None))
    assert [device.name for device in devices.values()] == ["flannel-wg-v6"]


def endpoints(backend, told):
    return {peer.subnet: peer.data.endpoint for peer in backend.read_peers(told)}


async def test_each_family_is_reached_by_its_own_tunnel(make_ready):
    backend = await make_ready(DUAL, PersistentKeepaliveInterval=25)
    four, six = backend.read_peers(lease())
    assert (four.subnet, four.public_ip) == (SUBNET, ip("172.30.0.13"))
    assert four.data == Way(THEIRS, Endpoint(IPV4, ip("172.30.0.13"), 51820), 25)
    assert six.data == Way(THEIRS, Endpoint(IPV6, ip("fd30::13"), 51821), 25)
    ground = Ground({IPV4: 4, IPV6: 6}, (), has_nexthops=True)
    assert backend.desired(four, ground) == (prefix_entry("flannel-wg", SUBNET, four.data),)
    assert backend.desired(six, ground) == (prefix_entry("flannel-wg-v6", SUBNET6, six.data),)


@pytest.mark.parametrize(
    ("mode", "public", "public6", "family"),
    [
        ("ipv4", "172.30.0.13", "fd30::13", IPV4),
        ("ipv6", "172.30.0.13", "fd30::13", IPV6),
        ("auto", "172.30.0.13", "fd30::13", IPV4),
        ("auto", "8.8.8.8", "2a00::1", IPV4),
        ("auto", "172.30.0.13", "2a00::1", IPV4),
    ],
)
async def test_one_tunnel_carries_both_families_over_one(make_ready, mode, public, public6, family):
    backend = await make_ready(DUAL, Mode=mode)
    found = set(endpoints(backend, lease(public, public6, port6=51820)).values())
    assert found == {Endpoint(family, ip(public if family == IPV4 else public6), 51820)}
    entries = [backend.desired(peer, None)[0] for peer in backend.read_peers(lease())]
    assert [entry.key[0] for entry in entries] == ["flannel-wg", "flannel-wg"]


async def test_port_that_is_not_told_is_our_own(make_ready):
    backend = await make_ready(ListenPort=7)
    data = json.dumps({"PublicKey": THEIRS})
    assert endpoints(backend, lease(backend_data=data))[SUBNET].port == 7
    assert endpoints(backend, lease(port=0))[SUBNET].port == 7


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"backend_type": "vxlan"}, "its backend is 'vxlan', this node's is 'wireguard'"),
        ({"backend_type": ""}, "its backend is 'udp'"),
        ({"backend_data": None}, "no PublicKey"),
        ({"backend_data": "[]"}, "no PublicKey"),
        ({"backend_data": '{"PublicKey":"x"}'}, "no key of 32 bytes"),
        ({"backend_data": f'{{"PublicKey":"{OURS}"}}'}, "this node's own"),
        ({"backend_data": f'{{"PublicKey":"{THEIRS}","Port":70000}}'}, "no good Port"),
        ({"public_ip": None}, "no PublicIP"),
    ],
)
async def test_lease_that_leads_nowhere_is_refused(make_ready, fields, told):
    backend = await make_ready()
    with pytest.raises(ValueError, match=told):
        backend.read_peers(lease(**fields))


async def test_devices_have_our_key_and_networks_lead_there(make_ready):
    ground = Ground({IPV4: 4, IPV6: 6}, (), has_nexthops=True)
    networks = parse_prefix("10.5.0.0/16"), parse_prefix("fd42::/48")
    public = parse_wireguard_key(OURS)
    separate = (await make_ready(DUAL)).standing(ground)
    assert set(separate) == {
        device_entry("flannel-wg", public, 51820),
        device_entry("flannel-wg-v6", public, 51821),
        Route(networks[0], 0, 0, 0, 4, onlink=False),
        Route(networks[1], 1024, 0, 0, 6, onlink=False),
    }
    one = (await make_ready(DUAL, Mode="auto")).standing(ground)
    assert device_entry("flannel-wg", public, 51820) in one
    assert len(one) == 3


async def test_device_that_is_there_gets_the_key_before_the_lease_tells_it(make_ready):
    backend = await make_ready(DUAL, devices=("flannel-wg",))
    assert backend.controls["flannel-wg"].state.private_key == PRIVATE
    assert backend.controls["flannel-wg-v6"].requests == 0


async def test_preshared_key_is_given_to_peers(make_ready):
    backend = await make_ready(PSK=PSK)
    assert backend.drivers[0]._preshared_key == parse_wireguard_key(PSK)


def test_key_is_made_once_and_for_root_alone(tmp_path):
    file = tmp_path / "run" / "wgkey"
    key = read_private_key(file)
    assert parse_wireguard_key(file.read_text()) == key
    assert len(file.read_text()) == 44
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert read_private_key(file) == key
    assert [entry.name for entry in file.parent.iterdir()] == ["wgkey"]


def test_key_file_that_holds_none_is_named_and_not_shown(tmp_path):
    file = tmp_path / "wgkey"
    file.write_text("c2VjcmV0")
    with pytest.raises(ConfigError, match="wgkey: it is no key of 32 bytes") as caught:
        read_private_key(file)
    assert "c2VjcmV0" not in str(caught.value)


async def test_public_ipv6_of_both_is_preferred_to_a_private_ipv4(make_ready, monkeypatch):
    monkeypatch.setattr("tests.backends.nodes.ip_address", lambda text: ip_address(text.replace("fd30", "2a00")))
    backend = await make_ready(DUAL, Mode="auto")
    assert {endpoint.family for endpoint in endpoints(backend, lease(public6="2a00::13")).values()} == {IPV6}
