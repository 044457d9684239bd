import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.prefix import IPV4, IPV6, Prefix, host_mask, parse_prefix
from flanneld_py.core.subnet_env import SubnetEnv, encode_subnet_env, parse_subnet_env

GOLDEN = {
    "FLANNEL_NETWORK=10.0.0.0/8\n"
    "FLANNEL_SUBNET=10.0.67.1/24\n"
    "FLANNEL_IPV6_NETWORK=fd42::/48\n"
    "FLANNEL_IPV6_SUBNET=fd42:0:0:1e::1/64\n"
    "FLANNEL_MTU=1450\n"
    "FLANNEL_IPMASQ=true\n": SubnetEnv(
        (parse_prefix("10.0.0.0/8"), parse_prefix("fd42::/48")),
        (parse_prefix("10.0.67.0/24"), parse_prefix("fd42:0:0:1e::/64")),
        1450,
        True,
    ),
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.2.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n": SubnetEnv(
        (parse_prefix("10.5.0.0/16"),), (parse_prefix("10.5.2.0/24"),), 1500, False
    ),
    "FLANNEL_IPV6_NETWORK=fd42::/48\nFLANNEL_IPV6_SUBNET=fd42:0:0:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n": (
        SubnetEnv((parse_prefix("fd42::/48"),), (parse_prefix("fd42:0:0:1::/64"),), 1430, True)
    ),
}


@pytest.mark.parametrize(("text", "env"), GOLDEN.items())
def test_writes_and_reads_the_golden_bytes(text, env):
    assert encode_subnet_env(env) == text
    assert parse_subnet_env(text) == env


def prefixes(family, longest):
    bits = {IPV4: 32, IPV6: 128}[family]
    return st.builds(
        lambda address, length: Prefix(family, address & ~host_mask(family, length), length),
        st.integers(0, 2**bits - 1),
        st.integers(1, longest),
    )


@given(
    st.lists(prefixes(IPV4, 30), min_size=1, max_size=3),
    st.lists(prefixes(IPV6, 126), max_size=3),
    st.integers(0, 65535),
    st.booleans(),
)
def test_what_is_written_is_read_back(ipv4, ipv6, mtu, ip_masq):
    env = SubnetEnv(tuple(ipv4 + ipv6), tuple(ipv4 + ipv6), mtu, ip_masq)
    assert parse_subnet_env(encode_subnet_env(env)) == env


def test_reads_comma_lists_comments_and_repeated_keys():
    env = parse_subnet_env(
        "# by hand\nFLANNEL_MTU=1\nFLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16,\nFLANNEL_SUBNET=10.5.2.1/24,10.6.2.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=yes\nOTHER=x=y\n"
    )
    assert [str(prefix) for prefix in env.networks] == ["10.5.0.0/16", "10.6.0.0/16"]
    assert [str(prefix) for prefix in env.subnets] == ["10.5.2.0/24", "10.6.2.0/24"]
    assert env.mtu == 1450
    assert env.ip_masq is False


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"FLANNEL_NETWORK": None}, "FLANNEL_NETWORK"),
        ({"FLANNEL_SUBNET": None}, "FLANNEL_SUBNET"),
        ({"FLANNEL_MTU": None}, "FLANNEL_MTU"),
        ({"FLANNEL_IPMASQ": None}, "FLANNEL_IPMASQ"),
        ({"FLANNEL_SUBNET": "10.5.2.1"}, "FLANNEL_SUBNET"),
        ({"FLANNEL_SUBNET": "10.5.2.1/33"}, "FLANNEL_SUBNET"),
        ({"FLANNEL_NETWORK": "fd00::/48"}, "FLANNEL_NETWORK"),
        ({"FLANNEL_MTU": "-1"}, "FLANNEL_MTU"),
        ({"FLANNEL_MTU": "²"}, "FLANNEL_MTU"),
    ],
)
def test_names_the_key_that_is_missing_or_wrong(change, named):
    values = {
        "FLANNEL_NETWORK": "10.5.0.0/16",
        "FLANNEL_SUBNET": "10.5.2.1/24",
        "FLANNEL_MTU": "1450",
        "FLANNEL_IPMASQ": "true",
    } | change
    text = "".join(f"{key}={value}\n" for key, value in values.items() if value is not None)
    with pytest.raises(ValueError, match=named):
        parse_subnet_env(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ValueError):
        parse_subnet_env(text)
