import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.errors import ConfigError
from flanneld_py.core.network_config import NetworkConfig, SubnetRange, boolean, integer, parse_network_config
from flanneld_py.core.prefix import parse_prefix


def parse(**fields):
    return parse_network_config(json.dumps({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}} | fields))


def refuse(text):
    with pytest.raises(ConfigError) as caught:
        parse_network_config(text)
    return caught.value


def spans(part):
    return str(part.network), part.subnet_len, str(part.first), str(part.last), part.count


def test_smallest_configuration():
    assert parse_network_config('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}') == NetworkConfig(
        ipv4=SubnetRange(parse_prefix("10.5.0.0/16"), 24, parse_prefix("10.5.1.0/24"), parse_prefix("10.5.255.0/24")),
        ipv6=None,
        enable_nftables=False,
        backend_type="vxlan",
        backend={"type": "vxlan"},
        backend_given=True,
    )


def test_everything_given():
    config = parse_network_config("""{
        "EnableIPv4": true, "EnableIPv6": true, "EnableNFTables": true,
        "Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0",
        "IPv6Network": "fd42::/48", "IPv6SubnetLen": 60,
        "IPv6SubnetMin": "fd42:0:0:10::", "IPv6SubnetMax": "fd42:0:0:20::",
        "Backend": {"Type": "VXLAN", "VNI": 7, "DirectRouting": true}
    }""")
    assert spans(config.ipv4) == ("10.0.0.0/8", 20, "10.10.0.0/20", "10.99.0.0/20", 89 * 16 + 1)
    assert spans(config.ipv6) == ("fd42::/48", 60, "fd42:0:0:10::/60", "fd42:0:0:20::/60", 2)
    assert config.ranges == (config.ipv4, config.ipv6)
    assert config.enable_nftables
    assert config.backend_type == "vxlan"
    assert config.backend == {"type": "VXLAN", "vni": 7, "directrouting": True}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("10.0.0.0/8", ("10.0.0.0/8", 24, "10.0.1.0/24", "10.255.255.0/24", 65535)),
        ("10.5.0.0/22", ("10.5.0.0/22", 24, "10.5.1.0/24", "10.5.3.0/24", 3)),
        ("10.5.0.0/23", ("10.5.0.0/23", 25, "10.5.0.128/25", "10.5.1.128/25", 3)),
        ("10.5.0.0/28", ("10.5.0.0/28", 30, "10.5.0.4/30", "10.5.0.12/30", 3)),
        ("10.5.77.1/16", ("10.5.0.0/16", 24, "10.5.1.0/24", "10.5.255.0/24", 255)),
    ],
)
def test_defaults_of_ipv4(network, expected):
    assert spans(parse(Network=network).ipv4) == expected


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("fd42::/48", ("fd42::/48", 64, "fd42:0:0:1::/64", "fd42:0:0:ffff::/64", 65535)),
        ("fd42::/62", ("fd42::/62", 64, "fd42:0:0:1::/64", "fd42:0:0:3::/64", 3)),
        ("fd42::/63", ("fd42::/63", 65, "fd42::8000:0:0:0/65", "fd42:0:0:1:8000::/65", 3)),
        ("fd42::/124", ("fd42::/124", 126, "fd42::4/126", "fd42::c/126", 3)),
    ],
)
def test_defaults_of_ipv6(network, expected):
    config = parse_network_config(
        json.dumps({"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": network, "Backend": {"Type": "vxlan"}})
    )
    assert config.ipv4 is None
    assert spans(config.ipv6) == expected
    assert config.ranges == (config.ipv6,)


def test_keys_match_in_any_letter_case_and_unknown_ones_are_ignored():
    text = '{"NETWORK":"10.5.0.0/16","subnetlen":25,"Comment":{"x":[1]},"bAcKeNd":{"tYpE":"vxlan","vNi":9}}'
    config = parse_network_config(text)
    assert config.ipv4.subnet_len == 25
    assert config.backend == {"type": "vxlan", "vni": 9}


def test_last_duplicate_wins_whatever_its_letter_case():
    text = '{"Network":"10.5.0.0/16","network":"10.6.0.0/16","Backend":{"Type":"udp","type":"vxlan"}}'
    config = parse_network_config(text)
    assert str(config.ipv4.network) == "10.6.0.0/16"
    assert config.backend_type == "vxlan"


def test_null_is_no_value():
    text = '{"Network":"10.5.0.0/16","Network":null,"SubnetLen":null,"EnableIPv6":null,"SubnetMin":null,"Backend":null}'
    config = parse_network_config(text)
    assert spans(config.ipv4) == ("10.5.0.0/16", 24, "10.5.1.0/24", "10.5.255.0/24", 255)
    assert not config.backend_given


def test_missing_backend_means_udp():
    config = parse_network_config('{"Network":"10.5.0.0/16"}')
    assert (config.backend_type, config.backend, config.backend_given) == ("udp", {}, False)


def test_length_zero_is_the_default_as_with_go_flannel():
    assert parse(SubnetLen=0).ipv4.subnet_len == 24


def test_limits_are_not_looked_at_with_kubernetes():
    text = '{"Network":"10.5.0.0/29","SubnetLen":99,"SubnetMin":"1.2.3.4","Backend":{"Type":"vxlan"}}'
    network = parse_prefix("10.5.0.0/29")
    assert parse_network_config(text, limits=False).ipv4 == SubnetRange(network, 29, network, network)


ERRORS = {
    "empty": ("", "config", "no JSON"),
    "no json": ("{Network}", "config", "no JSON"),
    "cut off": ('{"Network":"10.5.0.0/16"', "config", "no JSON"),
    "list": ("[]", "config", "no JSON object"),
    "string": ('"10.5.0.0/16"', "config", "no JSON object"),
    "too deep": ("[" * 100_000, "config", "no JSON"),
    "not utf-8": (b'{"Network":"\xff"}', "config", "no JSON"),
    "no network": ('{"Backend":{"Type":"vxlan"}}', "Network", "missing; expected a prefix"),
    "network is a number": ('{"Network":5}', "Network", "no prefix"),
    "network is no prefix": ('{"Network":"pods"}', "Network", "'pods' is no prefix"),
    "network of IPv6": ('{"Network":"fd42::/48"}', "Network", "other address family"),
    "network too small": ('{"Network":"10.5.0.0/29"}', "Network", "too small; expected a prefix length up to 28"),
    "network without a length": ('{"Network":"10.5.0.0"}', "Network", "too small"),
    "length too short": ('{"Network":"10.5.0.0/16","SubnetLen":17}', "SubnetLen", "expected 18 to 30"),
    "length too long": ('{"Network":"10.5.0.0/16","SubnetLen":31}', "SubnetLen", "expected 18 to 30"),
    "length negative": ('{"Network":"10.5.0.0/16","SubnetLen":-1}', "SubnetLen", "out of bounds"),
    "length is text": ('{"Network":"10.5.0.0/16","SubnetLen":"24"}', "SubnetLen", "no integer"),
    "length is a fraction": ('{"Network":"10.5.0.0/16","SubnetLen":24.0}', "SubnetLen", "no integer"),
    "length is a boolean": ('{"Network":"10.5.0.0/16","SubnetLen":true}', "SubnetLen", "no integer"),
    "min outside": ('{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}', "SubnetMin", "not inside 10.5.0.0/16"),
    "min between": ('{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.128"}', "SubnetMin", "where a /24 begins"),
    "min is no address": ('{"Network":"10.5.0.0/16","SubnetMin":"low"}', "SubnetMin", "no address"),
    "min is a number": ('{"Network":"0.0.0.0/8","SubnetMin":256}', "SubnetMin", "no address"),
    "min of IPv6": ('{"Network":"10.5.0.0/16","SubnetMin":"fd42::"}', "SubnetMin", "not inside"),
    "max outside": ('{"Network":"10.5.0.0/16","SubnetMax":"11.0.0.0"}', "SubnetMax", "not inside 10.5.0.0/16"),
    "max between": ('{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.1"}', "SubnetMax", "where a /24 begins"),
    "min over max": (
        '{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}',
        "SubnetMin",
        "10.5.9.0 lies behind SubnetMax 10.5.8.0",
    ),
    "switch is a number": ('{"Network":"10.5.0.0/16","EnableIPv6":1}', "EnableIPv6", "no boolean"),
    "both off": ('{"EnableIPv4":false}', "EnableIPv4", "at least one on"),
    "no IPv6 network": ('{"Network":"10.5.0.0/16","EnableIPv6":true}', "IPv6Network", "missing"),
    "IPv6 network too small": (
        '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd42::/125"}',
        "IPv6Network",
        "up to 124",
    ),
    "IPv6 length too long": (
        '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd42::/64","IPv6SubnetLen":127}',
        "IPv6SubnetLen",
        "expected 66 to 126",
    ),
    "IPv6 max outside": (
        '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd42::/48","IPv6SubnetMax":"fd43::"}',
        "IPv6SubnetMax",
        "not inside fd42::/48",
    ),
    "backend is text": ('{"Network":"10.5.0.0/16","Backend":"vxlan"}', "Backend", "no JSON object"),
    "backend without type": ('{"Network":"10.5.0.0/16","Backend":{}}', "Backend.Type", "missing"),
    "backend type is empty": ('{"Network":"10.5.0.0/16","Backend":{"Type":""}}', "Backend.Type", "missing"),
    "backend type is a number": ('{"Network":"10.5.0.0/16","Backend":{"Type":1}}', "Backend.Type", "no string"),
}


@pytest.mark.parametrize(("text", "key", "words"), ERRORS.values(), ids=ERRORS)
def test_error_names_the_key_and_what_is_expected(text, key, words):
    error = refuse(text)
    assert error.key == key
    assert words in error.problem
    assert str(error).startswith(f"{key}: ")
    assert "\n" not in str(error)


def test_subnets_of_a_range():
    part = parse(SubnetLen=26, SubnetMin="10.5.1.64", SubnetMax="10.5.2.0").ipv4
    assert part.count == 4
    assert [str(part.subnet_at(index)) for index in range(4)] == [
        "10.5.1.64/26",
        "10.5.1.128/26",
        "10.5.1.192/26",
        "10.5.2.0/26",
    ]
    assert all(part.fits(part.subnet_at(index)) for index in range(4))
    for other in ("10.5.1.0/26", "10.5.2.64/26", "10.5.1.64/27", "10.5.1.128/25", "fd42::/26"):
        assert not part.fits(parse_prefix(other)), other


def test_values_of_a_backend():
    fields = {"port": 8472, "gbp": True}
    assert integer(fields, "Port", default=1) == 8472
    assert integer(fields, "VNI", default=1) == 1
    assert boolean(fields, "GBP", default=False) is True
    with pytest.raises(ConfigError, match="Port: 8472 is out of bounds; expected 0 to 100"):
        integer(fields, "Port", default=1, high=100)
    with pytest.raises(ConfigError, match="Port: 8472 is no boolean; expected true or false"):
        boolean(fields, "Port", default=False)


KEYS = st.sampled_from(
    [
        *("Network", "network", "SubnetLen", "SubnetMin", "SubnetMax", "EnableIPv4", "EnableIPv6", "Backend", "Type"),
        *("IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"),
    ]
)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.ip_addresses().map(str)
    | st.sampled_from(["10.5.0.0/16", "fd42::/48", "10.5.0.0", "10.5.1.0", "fd42::", "vxlan", "10.0.0.0/33"])
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_json_is_read_or_refused(fields):
    try:
        config = parse_network_config(json.dumps(fields))
    except ConfigError:
        return
    assert config.ranges
    assert all(part.count >= 1 and part.network.contains(part.first) for part in config.ranges)
    assert all(part.network.contains(part.last) for part in config.ranges)


@given(st.text(max_size=40) | st.binary(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        parse_network_config(text)
    except ConfigError:
        return
