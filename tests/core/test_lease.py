"""Keys and values of leases, byte for byte as Go flannel writes them."""

import ipaddress
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flanneld_py.core.lease import LeaseAttrs, encode_attrs, encode_key, parse_attrs, parse_key
from flanneld_py.core.prefix import IPV4, IPV6, host_mask, make_prefix, parse_prefix


def ipv4(text):
    return int(ipaddress.IPv4Address(text))


def ipv6(text):
    return int(ipaddress.IPv6Address(text))


NODE = ipv4("172.30.0.12")
VXLAN = '{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}'
VXLAN_V6 = '{"VNI":1,"VtepMAC":"a2:11:22:33:44:55"}'
WIREGUARD = '{"PublicKey":"aGVsbG8=","Port":51820}'
WIREGUARD_V6 = '{"PublicKey":"aGVsbG8=","Port":51821}'

KEYS = [
    ("10.5.2.0-24", "10.5.2.0/24", None),
    ("10.5.2.0-24&fd00:1::-64", "10.5.2.0/24", "fd00:1::/64"),
    ("0.0.0.0-0&fd42:0:0:1e::-64", None, "fd42:0:0:1e::/64"),
    ("255.255.255.252-30&::-126", "255.255.255.252/30", "::/126"),
]

VALUES = [
    (
        LeaseAttrs(NODE, None, "vxlan", VXLAN),
        (
            '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"vxlan",'
            '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
        ),
    ),
    (
        LeaseAttrs(NODE, ipv6("fd30::12"), "vxlan", VXLAN, VXLAN_V6),
        (
            '{"PublicIP":"172.30.0.12","PublicIPv6":"fd30::12","BackendType":"vxlan",'
            '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"},'
            '"BackendV6Data":{"VNI":1,"VtepMAC":"a2:11:22:33:44:55"}}'
        ),
    ),
    (
        LeaseAttrs(None, ipv6("fd30::11"), "vxlan", None, VXLAN_V6),
        (
            '{"PublicIP":"0.0.0.0","PublicIPv6":"fd30::11","BackendType":"vxlan",'
            '"BackendV6Data":{"VNI":1,"VtepMAC":"a2:11:22:33:44:55"}}'
        ),
    ),
    (
        LeaseAttrs(NODE, None, "host-gw"),
        '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"host-gw"}',
    ),
    (LeaseAttrs(NODE, None, "ipip"), '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"ipip"}'),
    (LeaseAttrs(NODE, None, ""), '{"PublicIP":"172.30.0.12","PublicIPv6":null}'),
    (
        LeaseAttrs(NODE, ipv6("fd30::12"), "wireguard", WIREGUARD, WIREGUARD_V6),
        (
            '{"PublicIP":"172.30.0.12","PublicIPv6":"fd30::12","BackendType":"wireguard",'
            '"BackendData":{"PublicKey":"aGVsbG8=","Port":51820},'
            '"BackendV6Data":{"PublicKey":"aGVsbG8=","Port":51821}}'
        ),
    ),
    (
        LeaseAttrs(NODE, None, "extension", '"what the command said"'),
        '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"extension","BackendData":"what the command said"}',
    ),
]


@pytest.mark.parametrize(("key", "subnet", "ipv6_subnet"), KEYS)
def test_keys(key, subnet, ipv6_subnet):
    pair = tuple(None if text is None else parse_prefix(text) for text in (subnet, ipv6_subnet))
    assert encode_key(*pair) == key
    assert parse_key(key) == pair


@pytest.mark.parametrize(("attrs", "value"), VALUES)
def test_values(attrs, value):
    assert encode_attrs(attrs) == value
    assert parse_attrs(value) == attrs
    assert parse_attrs(value.encode()) == attrs


@pytest.mark.parametrize(
    "key",
    [
        "",
        "10.5.2.0",
        "10.5.2.0/24",
        "10.5.2.0-33",
        "10.5.2.1-24",
        "10.5.2-24",
        "10.5.2.0.0-24",
        "10.5.02.0-24",
        "10.5.2.256-24",
        "10.5.2.0-24/nested",
        "nested/10.5.2.0-24",
        "10.5.2.0-24\n",
        " 10.5.2.0-24",
        "10.5.2.0-24&",
        "10.5.2.0-24&fd00::1-64",
        "10.5.2.0-24&fd00::-129",
        "10.5.2.0-24&10.5.3.0-24",
        "10.5.2.0-24&fd00::-64&fd01::-64",
        "fd00::-64",
        "\uff110.5.2.0-24",
        "config",
    ],
)
def test_keys_that_are_none(key):
    with pytest.raises(ValueError, match=r"."):
        parse_key(key)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        "1",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        '{"PublicIP":12}',
        '{"PublicIP":"172.30.0"}',
        '{"PublicIP":"fd30::1"}',
        '{"PublicIPv6":"172.30.0.12"}',
        '{"BackendType":1}',
        b"\xff\xfe",
        b'{"PublicIP":"\xff"}',
    ],
)
def test_values_that_are_none(value):
    with pytest.raises(ValueError, match=r"."):
        parse_attrs(value)


def test_values_are_read_as_go_reads_them():
    attrs = parse_attrs(
        ' {"publicip":"172.30.0.9","PUBLICIP":"172.30.0.12","unknown":[1],"backendTYPE":"vxlan","BackendData":null} '
    )
    assert attrs == LeaseAttrs(NODE, None, "vxlan")
    assert parse_attrs("{}") == LeaseAttrs(None, None, "")
    assert parse_attrs('{"PublicIP":"0.0.0.0","PublicIPv6":"::"}') == LeaseAttrs(None, None, "")


def prefixes(family, width):
    return st.builds(
        lambda address, length: make_prefix(ipaddress.ip_address(address), length),
        (st.ip_addresses(v=family)),
        st.integers(0, width),
    )


@settings(deadline=None)
@given(prefixes(IPV4, 32), st.none() | prefixes(IPV6, 128))
def test_keys_round_trip(subnet, ipv6_subnet):
    key = encode_key(subnet, ipv6_subnet)
    if ipv6_subnet is not None and subnet == (IPV4, 0, 0):
        subnet = None
    assert parse_key(key) == (subnet, ipv6_subnet)


json_values = st.recursive(
    st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
raw_data = st.none() | json_values.map(lambda value: json.dumps(value, separators=(",", ":")))
attributes = st.builds(
    LeaseAttrs,
    st.none() | st.integers(1, host_mask(IPV4, 0)),
    st.none() | st.integers(1, host_mask(IPV6, 0)),
    st.text(),
    raw_data,
    raw_data,
)


@settings(deadline=None)
@given(attributes)
def test_values_round_trip(attrs):
    assert parse_attrs(encode_attrs(attrs)) == attrs


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[0-9.]{0,20}-[0-9]{0,3}(&[0-9a-f:.]{0,40}-[0-9]{0,4})?"))
def test_any_text_is_a_key_or_a_value_error(text):
    try:
        pair = parse_key(text)
    except ValueError:
        return
    assert any(pair)
    assert parse_key(encode_key(*pair)) == pair


@settings(deadline=None)
@given(
    st.binary()
    | st.text()
    | json_values.map(json.dumps)
    | st.dictionaries(
        st.sampled_from(["PublicIP", "publicipv6", "BackendType", "backendData", "BackendV6Data"]), json_values
    ).map(json.dumps)
)
def test_anything_is_a_value_or_a_value_error(value):
    try:
        attrs = parse_attrs(value)
    except ValueError:
        return
    assert parse_attrs(encode_attrs(attrs)) == attrs


@pytest.mark.parametrize("depth", [1, 100, 500, *range(800, 1010, 7), 5000])
def test_any_depth_is_a_value_or_a_value_error(depth):
    with suppress(ValueError):
        parse_attrs('{"BackendData":' + "[" * depth + "]" * depth + "}")


scalars = st.integers(0, 10**12) | st.text("09azAZ:+/=", max_size=20)
flat_data = st.dictionaries(st.text("azAZ", min_size=1, max_size=5), scalars, max_size=4)


@settings(deadline=None)
@given(st.lists(st.integers(0, 999), min_size=4, max_size=4), st.sampled_from(["vxlan", "x-9", "VXLAN"]), flat_data)
def test_how_a_value_is_written_does_not_matter(octets, backend_type, data):
    public_ip = ".".join(map(str, octets))
    fields = {"PublicIP": public_ip, "PublicIPv6": None, "BackendType": backend_type, "BackendData": data}
    read = []
    for text in (json.dumps(fields, separators=(",", ":")), json.dumps(fields, indent=1)):
        try:
            read.append(parse_attrs(text))
        except ValueError:
            read.append(None)
    assert read[0] == read[1]
    assert (read[0] is None) == any(octet > 255 for octet in octets)
