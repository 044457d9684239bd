import pytest

from flanneld_py.core.prefix import IPV4, IPV6, parse_address, parse_prefix
from flanneld_py.pods import errors
from flanneld_py.pods.bridge_conf import first_address, gateway_of, last_address, parse_bridge_conf, parse_store_conf
from flanneld_py.pods.errors import CniError


def delegate(**more):
    return {
        "name": "cbr0",
        "type": "bridge",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.2.0/24"}], [{"subnet": "fd42:0:0:1::/64"}]]},
    } | more


def test_what_is_not_said_is_off():
    conf = parse_bridge_conf(delegate(), {})
    assert conf.bridge == "cni0"
    assert conf.mtu == 0
    assert conf.mac is None
    assert not any(
        (conf.is_gateway, conf.is_default_gateway, conf.force_address, conf.hairpin, conf.promiscuous, conf.isolated)
    )
    assert not conf.ip_masq
    assert conf.ipam.store == ("/var/lib/cni/networks", "cbr0")
    assert [str(subnet) for subnet in conf.ipam.subnets] == ["10.5.2.0/24", "fd42:0:0:1::/64"]


def test_a_default_gateway_is_a_gateway():
    assert parse_bridge_conf(delegate(isDefaultGateway=True, isGateway=False), {}).is_gateway


def test_mac_and_addresses_may_be_asked_for_in_two_ways():
    conf = parse_bridge_conf(delegate(), {"MAC": "02:00:00:00:00:07", "IP": "10.5.2.9"})
    assert conf.mac == bytes.fromhex("020000000007")
    assert conf.ipam.requested == ((IPV4, parse_address("10.5.2.9")[1]),)
    runtime = {"mac": "02:00:00:00:00:08", "ips": ["10.5.2.8/24", "fd42:0:0:1::8"]}
    conf = parse_bridge_conf(delegate(runtimeConfig=runtime), {"MAC": "02:00:00:00:00:07"})
    assert conf.mac == bytes.fromhex("020000000008")
    assert [family for family, _ in conf.ipam.requested] == [IPV4, IPV6]


@pytest.mark.parametrize(
    ("change", "args", "code"),
    [
        ({"vlan": 5}, {}, errors.UNSUPPORTED_FIELD),
        ({"vlanTrunk": [{"id": 5}]}, {}, errors.UNSUPPORTED_FIELD),
        ({"vlan": 7}, {}, errors.UNSUPPORTED_FIELD),
        ({"macspoofchk": 1}, {}, errors.INVALID_CONFIG),
        ({"antiSpoof": "yes"}, {}, errors.INVALID_CONFIG),
        ({"disableContainerInterface": True}, {}, errors.UNSUPPORTED_FIELD),
        ({"hairpinMode": True, "promiscMode": True}, {}, errors.INVALID_CONFIG),
        ({"hairpinMode": "yes"}, {}, errors.INVALID_CONFIG),
        ({"bridge": "../cni0"}, {}, errors.INVALID_CONFIG),
        ({"bridge": "sixteen-letters!"}, {}, errors.INVALID_CONFIG),
        ({"mtu": -1}, {}, errors.INVALID_CONFIG),
        ({"mtu": True}, {}, errors.INVALID_CONFIG),
        ({"mtu": 70000}, {}, errors.INVALID_CONFIG),
        ({"dns": {"search": "x"}}, {}, errors.INVALID_CONFIG),
        ({"name": "a/b"}, {}, errors.INVALID_CONFIG),
        ({}, {"MAC": "01:00:00:00:00:01"}, errors.INVALID_CONFIG),
        ({}, {"MAC": "00:00:00:00:00:00"}, errors.INVALID_CONFIG),
        ({}, {"MAC": "02:00:00:00:01"}, errors.INVALID_CONFIG),
        ({}, {"MAC": "zz:00:00:00:00:01"}, errors.INVALID_CONFIG),
        ({}, {"IP": "10.5.3.9"}, errors.INVALID_CONFIG),
        ({}, {"IP": "10.5.2.0"}, errors.INVALID_CONFIG),
        ({}, {"IP": "10.5.2.1"}, errors.INVALID_CONFIG),
        ({}, {"IP": "10.5.2.255"}, errors.INVALID_CONFIG),
        ({}, {"IP": "x"}, errors.INVALID_CONFIG),
    ],
)
def test_what_is_wrong_is_refused(change, args, code):
    with pytest.raises(CniError) as caught:
        parse_bridge_conf(delegate(**change), args)
    assert caught.value.code == code


def test_a_subnet_without_room_is_refused():
    with pytest.raises(CniError, match="too small"):
        parse_bridge_conf(delegate(ipam={"type": "host-local", "ranges": [[{"subnet": "10.5.2.0/31"}]]}), {})


def test_a_store_is_read_from_any_delegate():
    assert parse_store_conf({"name": "n", "type": "ptp", "ipam": {"dataDir": "/d"}}) == ("/d", "n")
    with pytest.raises(CniError):
        parse_store_conf({"name": "../n"})


@pytest.mark.parametrize(
    ("subnet", "gateway", "first", "last"),
    [
        ("10.5.2.0/24", "10.5.2.1", "10.5.2.2", "10.5.2.254"),
        ("10.5.2.4/30", "10.5.2.5", "10.5.2.6", "10.5.2.6"),
        ("fd42::/126", "fd42::1", "fd42::2", "fd42::3"),
    ],
)
def test_which_addresses_of_a_subnet_are_for_what(subnet, gateway, first, last):
    prefix = parse_prefix(subnet)
    assert (gateway_of(prefix), first_address(prefix), last_address(prefix)) == tuple(
        parse_address(text)[1] for text in (gateway, first, last)
    )
