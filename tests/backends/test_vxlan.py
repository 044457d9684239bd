import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.backends.backend import Ground, UnreachableError
from flanneld_py.backends.registry import parse_backend
from flanneld_py.backends.vxlan import link_local, parse_mac, pick_mac, read_vtep
from flanneld_py.core.entries import FdbEntry, Neighbour, Nexthop, Route
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs, parse_attrs
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.peer import Peer
from flanneld_py.core.prefix import IPV4, IPV6, parse_address, parse_prefix
from flanneld_py.core.underlay import AddressOf, Interface, Uplink
from flanneld_py.kernel import vxlan as attributes

MAC = bytes.fromhex("7ae3ab2437fb")
MAC6 = bytes.fromhex("a2000000aa06")
V4 = {"Network": "10.5.0.0/16"}
V6 = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd42::/48"}
DUAL = {"Network": "10.5.0.0/16", "EnableIPv6": True, "IPv6Network": "fd42::/48"}


def ip(text):
    return parse_address(text)[1]


def make_uplink(mtu=1500, *, ipv4=True, ipv6=False, public=None):
    source, source6 = ip_address("172.30.0.12"), ip_address("fd30::12")
    interface = Interface(2, "eth0", mtu, True, (AddressOf(source, 16, True), AddressOf(source6, 64, True)))
    return Uplink(
        interface,
        source if ipv4 else None,
        source6 if ipv6 else None,
        (public or source) if ipv4 else None,
        source6 if ipv6 else None,
        "test",
    )


def make_backend(network=V4, mtu=1500, public=None, **keys):
    config = parse_network_config(json.dumps(network | {"Backend": {"Type": "vxlan"} | keys}))
    uplink = make_uplink(mtu, ipv4=config.ipv4 is not None, ipv6=config.ipv6 is not None, public=public)
    return parse_backend(config)(uplink)


@pytest.fixture
def publish(monkeypatch):
    """`publish` on a kernel that has vxlan and these devices."""

    def call(backend, earlier=None, devices=(), random_bytes=None):
        there = dict(devices)
        monkeypatch.setattr("flanneld_py.backends.vxlan.has_vxlan", lambda sock: True)
        monkeypatch.setattr("flanneld_py.backends.vxlan.read_link", lambda sock, name: there.get(name))
        drawn = iter((MAC, MAC6))
        return backend.publish(None, earlier, random_bytes or (lambda count: next(drawn)))

    return call


# Configuration


@pytest.mark.parametrize(
    ("network", "mtu", "keys", "expected"),
    [
        (V4, 1500, {}, 1450),
        (V4, 9000, {}, 8950),
        (V6, 1500, {}, 1430),
        (DUAL, 1500, {}, 1430),
        (V4, 1500, {"MTU": 1400}, 1350),
        (V6, 1500, {"MTU": 1400}, 1330),
        (V4, 1500, {"MTU": 0}, 1450),
        (V4, 1500, {"MTU": None}, 1450),
        # The kernel refuses a vxlan device more than its parent carries.
        (V4, 1500, {"MTU": 9000}, 1450),
    ],
)
def test_mtu_leaves_room_for_the_outer_headers(network, mtu, keys, expected):
    assert make_backend(network, mtu, **keys).mtu == expected


@pytest.mark.parametrize(("network", "families"), [(V4, (IPV4,)), (V6, (IPV6,)), (DUAL, (IPV4, IPV6))])
def test_new_identity_is_the_same_lease_with_other_macs(network, families):
    backend = make_backend(network)
    drawn = iter(range(10, 20))
    attrs = backend.renew_identity(
        LeaseAttrs(7, None, "vxlan", "old", None), lambda count: bytes([next(drawn)] * count)
    )
    assert attrs[:3] == (7, None, "vxlan")
    macs = {family: data and read_vtep(data)[1] for family, data in ((IPV4, attrs[3]), (IPV6, attrs[4]))}
    assert tuple(family for family, mac in macs.items() if mac) == families
    assert all(mac[0] & 3 == 2 for mac in macs.values() if mac)


@pytest.mark.parametrize(("network", "least"), [(V4, 118), (V6, 1350), (DUAL, 1350)])
def test_mtu_that_leaves_too_little_is_refused(network, least):
    assert make_backend(network, least).mtu == make_backend(network, MTU=least).mtu
    for arguments, keys in (((network, least - 1), {}), ((network,), {"MTU": least - 1})):
        with pytest.raises(ConfigError, match=f"expected {least} or more"):
            make_backend(*arguments, **keys)


def test_mtu_over_the_uplinks_is_told(caplog):
    make_backend(MTU=9000)
    assert "Backend.MTU 9000 is over that of eth0" in caplog.text


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"VNI": -1}, "VNI", "out of bounds; expected 0 to 16777215"),
        ({"VNI": 1 << 24}, "VNI", "out of bounds"),
        ({"VNI": "1"}, "VNI", "no integer"),
        ({"Port": 65536}, "Port", "out of bounds; expected 0 to 65535"),
        ({"MTU": "big"}, "MTU", "no integer"),
        ({"MTU": 117}, "MTU", "117 is too little for this network; expected 118 or more"),
        ({"GBP": 1}, "GBP", "no boolean"),
        ({"Learning": "yes"}, "Learning", "no boolean"),
        ({"DirectRouting": 0}, "DirectRouting", "no boolean"),
    ],
)
def test_wrong_key_of_the_configuration(keys, key, words):
    with pytest.raises(ConfigError) as caught:
        make_backend(**keys)
    assert caught.value.key.endswith(key)
    assert words in caught.value.problem


@pytest.mark.parametrize(
    ("keys", "expected"), [({}, "flannel.1"), ({"VNI": 7}, "flannel.7"), ({"VNI": 0}, "flannel.0")]
)
def test_device_is_named_after_the_vni(keys, expected):
    assert make_backend(**keys).device_name(IPV4) == expected
    assert make_backend(**keys).claim_name == expected
    assert make_backend(V6, **keys).claim_name == expected.replace(".", "-v6.")


def test_only_direct_routing_looks_at_the_hosts_routes():
    assert not make_backend().follows_underlay
    assert make_backend(DirectRouting=True).follows_underlay


# What is published, byte for byte (formats.md)


def test_value_of_ipv4(publish):
    assert encode_attrs(publish(make_backend())) == (
        '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
    )


def test_value_of_dual_stack(publish):
    assert encode_attrs(publish(make_backend(DUAL))) == (
        '{"PublicIP":"172.30.0.12","PublicIPv6":"fd30::12","BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"},'
        '"BackendV6Data":{"VNI":1,"VtepMAC":"a2:00:00:00:aa:06"}}'
    )


def test_value_of_ipv6_only(publish):
    assert encode_attrs(publish(make_backend(V6, VNI=77))) == (
        '{"PublicIP":"0.0.0.0","PublicIPv6":"fd30::12","BackendType":"vxlan",'
        '"BackendV6Data":{"VNI":77,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
    )


def test_public_address_is_published_and_the_own_one_is_the_source(publish):
    backend = make_backend(public=ip_address("198.51.100.7"))
    attrs = publish(backend)
    assert attrs.public_ip == ip("198.51.100.7")
    [device] = backend.devices(Lease(parse_prefix("10.5.1.0/24"), None, attrs)).values()
    assert dict(device.options)[attributes.IFLA_VXLAN_LOCAL] == bytes([172, 30, 0, 12])


def test_kernel_without_vxlan_is_told_before_a_lease_is_written(monkeypatch):
    monkeypatch.setattr("flanneld_py.backends.vxlan.has_vxlan", lambda sock: False)
    with pytest.raises(OSError, match="vxlan: this kernel has none: modprobe vxlan"):
        make_backend().publish(None, None, bytes)


# The choice of the MAC


def test_mac_of_the_earlier_lease_then_of_the_device_then_a_new_one():
    lease, device = '{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}', bytes.fromhex("020000000009")
    assert pick_mac(lease, device, bytes) == MAC
    assert pick_mac(None, device, bytes) == device
    assert pick_mac('{"VNI":1}', device, bytes) == device
    assert pick_mac('"a wireguard key"', device, bytes) == device
    assert pick_mac(None, None, lambda count: b"\xff" * count) == bytes.fromhex("feffffffffff")


@given(st.binary(min_size=6, max_size=6))
def test_new_mac_is_local_and_unicast(drawn):
    mac = pick_mac(None, None, lambda count: drawn[:count])
    assert len(mac) == 6
    assert mac[0] & 3 == 2
    assert parse_mac(mac.hex(":")) == mac


def test_mac_is_kept_over_a_restart(publish):
    first = publish(make_backend(DUAL))
    again = publish(make_backend(DUAL), parse_attrs(encode_attrs(first)), random_bytes=lambda count: b"\0" * count)
    assert again == first


# Our devices


def devices_of(backend, publish, lease4="10.5.1.0/24", lease6=None):
    attrs = publish(backend)
    return backend.devices(Lease(parse_prefix(lease4) if lease4 else None, lease6 and parse_prefix(lease6), attrs))


def test_device_of_ipv4(publish):
    [(family, device)] = devices_of(make_backend(Port=4789, Learning=True, GBP=True), publish).items()
    assert (family, device.name, device.kind, device.mac, device.mtu) == (IPV4, "flannel.1", "vxlan", MAC, 1450)
    assert [str(prefix) for prefix in device.addresses] == ["10.5.1.0/32"]
    assert dict(device.options) == {
        attributes.IFLA_VXLAN_ID: (1).to_bytes(4, "little"),
        attributes.IFLA_VXLAN_LINK: (2).to_bytes(4, "little"),
        attributes.IFLA_VXLAN_LOCAL: bytes([172, 30, 0, 12]),
        attributes.IFLA_VXLAN_LEARNING: b"\1",
        attributes.IFLA_VXLAN_PORT: (4789).to_bytes(2, "big"),
        attributes.IFLA_VXLAN_GBP: b"",
    }


def test_devices_of_dual_stack(publish):
    devices = devices_of(make_backend(DUAL), publish, lease6="fd42:0:0:1::/64")
    assert {family: device.name for family, device in devices.items()} == {4: "flannel.1", 6: "flannel-v6.1"}
    assert {family: device.mac for family, device in devices.items()} == {4: MAC, 6: MAC6}
    assert [str(prefix) for prefix in devices[IPV6].addresses] == ["fd42:0:0:1::/128"]
    assert devices[IPV4].mtu == devices[IPV6].mtu == 1430
    options = dict(devices[IPV6].options)
    assert options[attributes.IFLA_VXLAN_LOCAL6] == ip_address("fd30::12").packed
    assert options[attributes.IFLA_VXLAN_GBP] is None
    assert options[attributes.IFLA_VXLAN_PORT] == (8472).to_bytes(2, "big")


# Other nodes' leases


def peer_lease(data='{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}', data6=None, **attrs):
    ipv6 = parse_prefix("fd42:0:0:2::/64") if data6 else None
    fields = {"public_ip": ip("172.30.0.13"), "public_ipv6": ip("fd30::13") if data6 else None, "backend_type": "vxlan"}
    return Lease(
        parse_prefix("10.5.2.0/24"), ipv6, LeaseAttrs(**(fields | attrs), backend_data=data, backend_v6_data=data6)
    )


def test_peer_of_one_family():
    [peer] = make_backend().read_peers(peer_lease())
    assert peer == Peer(parse_prefix("10.5.2.0/24"), ip("172.30.0.13"), bytes.fromhex("020000000002"))


def test_peers_of_two_families():
    lease = peer_lease(data6='{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}')
    four, six = make_backend(DUAL).read_peers(lease)
    assert six == Peer(parse_prefix("fd42:0:0:2::/64"), ip("fd30::13"), bytes.fromhex("020000000006"))
    assert make_backend(V4).read_peers(lease) == (four,)
    assert make_backend(V6).read_peers(lease) == (six,)


@pytest.mark.parametrize(
    ("lease", "words"),
    [
        (peer_lease(backend_type="wireguard"), "its backend is 'wireguard', this node's is 'vxlan': they have no way"),
        (peer_lease(public_ip=None), "it has no PublicIP"),
        (peer_lease(None), "it has no BackendData"),
        (peer_lease('"text"'), "it has no BackendData"),
        (peer_lease("{}"), "its BackendData has no VNI"),
        (peer_lease('{"VNI":true,"VtepMAC":"02:00:00:00:00:02"}'), "its BackendData has no VNI"),
        (peer_lease('{"VNI":1}'), "its BackendData has no VtepMAC"),
        (peer_lease('{"VNI":2,"VtepMAC":"02:00:00:00:00:02"}'), "its VNI is 2, the network's is 1"),
        (peer_lease('{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}'), "its VtepMAC is zero"),
        (peer_lease('{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}'), "01:00:5e:00:00:01 is a multicast address"),
        (peer_lease('{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}'), "is a multicast address"),
        (peer_lease('{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}'), "its VtepMAC 7a:e3:ab:24:37:fb is this node's own"),
        (peer_lease('{"VNI":1,"VtepMAC":"02:00:00:00:00"}'), "is no Ethernet address"),
        (peer_lease("[" * 5000), "nested too deeply"),
    ],
)
def test_lease_that_is_no_peer(publish, lease, words):
    backend = make_backend()
    publish(backend)
    with pytest.raises(ValueError, match=r"^[^\n]{1,200}$") as caught:
        backend.read_peers(lease)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text", ['{"vni":1,"vtepmac":"02:00:00:00:0A:02"}', '{"VtepMAC":"02:00:00:00:0a:02","X":0,"VNI":1}']
)
def test_backend_data_is_read_as_go_reads_it(text):
    assert read_vtep(text) == (1, bytes.fromhex("020000000a02"))


@given(st.text(max_size=30) | st.from_regex(r"\A[0-9a-fA-F:+_ -]{10,20}\Z"))
def test_any_text_is_a_mac_or_refused(text):
    try:
        mac = parse_mac(text)
    except ValueError:
        return
    assert mac.hex(":") == text.lower()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=17),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["VNI", "vni", "VtepMAC", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(JSON.map(json.dumps) | st.text(max_size=20))
def test_any_backend_data_is_read_or_refused(text):
    try:
        vni, mac = read_vtep(text)
    except ValueError:
        return
    assert isinstance(vni, int)
    assert len(mac) == 6


@pytest.mark.parametrize("backend_type", ["host-gw", "ipip", ""])
def test_node_of_another_backend_is_reached_without_a_tunnel_or_not_at_all(backend_type):
    backend = make_backend()
    [peer] = backend.read_peers(peer_lease(None, backend_type=backend_type))
    assert peer == Peer(parse_prefix("10.5.2.0/24"), ip("172.30.0.13"), direct_only=True)
    assert backend.follows_underlay
    assert backend.desired(peer, Ground(DEVICES, UNDERLAY, has_nexthops=False)) == (
        Route(PEER.subnet, 0, 0, PEER.public_ip, 2, False),
    )
    with pytest.raises(UnreachableError, match=r"172\.31\.0\.13 is not on this node's layer 2"):
        backend.desired(peer._replace(public_ip=ip("172.31.0.13")), Ground(DEVICES, UNDERLAY, has_nexthops=True))


def test_windows_node_with_our_vni_and_port_is_a_peer(publish):
    # As its daemon writes it: only VNIs from 4096 on, port 4789, and its own prefix of MACs.
    backend = make_backend(VNI=4096, Port=4789, MacPrefix="0E-2A")
    publish(backend)
    [peer] = backend.read_peers(peer_lease('{"VNI":4096,"VtepMAC":"00:15:5d:9e:4d:29"}'))
    assert peer.vtep_mac == bytes.fromhex("00155d9e4d29")


def test_vni_is_published_and_read_as_go_flannel_cuts_it(publish):
    backend = make_backend(VNI=0x12345)
    assert publish(backend).backend_data == '{"VNI":9029,"VtepMAC":"7a:e3:ab:24:37:fb"}'
    assert backend.device_name(IPV4) == "flannel.74565"
    for vni in (9029, 74565):
        assert backend.read_peers(peer_lease(f'{{"VNI":{vni},"VtepMAC":"02:00:00:00:00:02"}}'))


# The way to a peer

PEER = Peer(parse_prefix("10.5.2.0/24"), ip("172.30.0.13"), bytes.fromhex("020000000002"))
PEER6 = Peer(parse_prefix("fd42:0:0:2::/64"), ip("fd30::13"), bytes.fromhex("020000000006"))
UNDERLAY = (
    Route(parse_prefix("0.0.0.0/0"), 0, 0, ip("172.30.0.1"), 2, False, 3),
    Route(parse_prefix("172.30.0.0/24"), 0, 0, 0, 2, False, 2),
    Route(parse_prefix("fd30::/64"), 256, 0, 0, 2, False, 2),
)
DEVICES = {IPV4: 7, IPV6: 8}
ID, ID6 = 0x46100200, 0x46180010


def test_tunnelled_by_nexthop_object():
    assert make_backend().desired(PEER, Ground(DEVICES, UNDERLAY, has_nexthops=True)) == (
        FdbEntry(7, PEER.vtep_mac, IPV4, PEER.public_ip),
        Neighbour(7, IPV4, ip("10.5.2.0"), PEER.vtep_mac),
        Nexthop(ID, IPV4, ip("10.5.2.0"), 7, True),
        Route(PEER.subnet, 0, ID, 0, 0, False),
    )


def test_tunnelled_by_plain_route():
    assert make_backend().desired(PEER, Ground(DEVICES, UNDERLAY, has_nexthops=False)) == (
        FdbEntry(7, PEER.vtep_mac, IPV4, PEER.public_ip),
        Neighbour(7, IPV4, ip("10.5.2.0"), PEER.vtep_mac),
        Route(PEER.subnet, 0, 0, ip("10.5.2.0"), 7, True),
    )


def test_tunnelled_over_ipv6():
    backend = make_backend(V6)
    assert backend.desired(PEER6, Ground(DEVICES, (), has_nexthops=True)) == (
        FdbEntry(8, PEER6.vtep_mac, IPV6, PEER6.public_ip),
        Neighbour(8, IPV6, ip("fe80::ff:fe00:6"), PEER6.vtep_mac),
        Nexthop(ID6, IPV6, ip("fe80::ff:fe00:6"), 8, False),
        Route(PEER6.subnet, 1024, ID6, 0, 0, False),
    )
    assert backend.desired(PEER6, Ground(DEVICES, (), has_nexthops=False))[-1] == Route(
        PEER6.subnet, 1024, 0, ip("fe80::ff:fe00:6"), 8, False
    )


def test_direct_over_the_uplink():
    backend = make_backend(DUAL, DirectRouting=True)
    ground = Ground(DEVICES, UNDERLAY, has_nexthops=True)
    assert backend.desired(PEER, ground) == (
        Nexthop(ID, IPV4, PEER.public_ip, 2, False),
        Route(PEER.subnet, 0, ID, 0, 0, False),
    )
    assert backend.desired(PEER6, ground) == (
        Nexthop(ID6, IPV6, PEER6.public_ip, 2, False),
        Route(PEER6.subnet, 1024, ID6, 0, 0, False),
    )
    assert backend.desired(PEER, Ground(DEVICES, UNDERLAY, has_nexthops=False)) == (
        Route(PEER.subnet, 0, 0, PEER.public_ip, 2, False),
    )


def test_peer_behind_a_router_is_tunnelled_with_direct_routing_too():
    far = PEER._replace(public_ip=ip("172.31.0.13"))
    ground = Ground(DEVICES, UNDERLAY, has_nexthops=True)
    assert make_backend(DirectRouting=True).desired(far, ground) == make_backend().desired(far, ground)


def test_peer_on_our_layer_2_is_tunnelled_without_direct_routing():
    ground = Ground(DEVICES, UNDERLAY, has_nexthops=True)
    assert make_backend().desired(PEER, ground)[0] == FdbEntry(7, PEER.vtep_mac, IPV4, PEER.public_ip)


def test_peer_too_small_for_an_id_of_its_own_has_a_plain_route():
    wide = make_backend({"Network": "10.0.0.0/8"})
    small = PEER._replace(subnet=parse_prefix("10.5.2.0/30"))
    assert wide.desired(small, Ground(DEVICES, (), has_nexthops=True))[-1].nexthop_id == 0
    assert wide.desired(PEER, Ground(DEVICES, (), has_nexthops=True))[-1].nexthop_id != 0


@pytest.mark.parametrize("vni", [0, 1, 7, (1 << 24) - 1])
def test_nexthop_ids_are_those_of_the_vni(vni):
    backend = make_backend(VNI=vni)
    [nexthop] = [
        entry for entry in backend.desired(PEER, Ground(DEVICES, (), has_nexthops=True)) if isinstance(entry, Nexthop)
    ]
    assert nexthop.id in backend.nexthop_ids


def test_link_local_address_is_that_of_the_mac():
    assert link_local(bytes.fromhex("00155d9e4d29")) == ip("fe80::215:5dff:fe9e:4d29")
