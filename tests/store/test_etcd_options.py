"""Endpoints and options as the operator writes them."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.errors import ConfigError
from flanneld_py.store.etcd_options import DEFAULT_ENDPOINTS, Endpoint, EtcdOptions, parse_endpoints


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("http://10.0.0.1:2379", [Endpoint("10.0.0.1:2379", secure=False)]),
        ("https://etcd.example", [Endpoint("etcd.example:2379", secure=True)]),
        ("https://[fd00::1]:4001/", [Endpoint("[fd00::1]:4001", secure=True)]),
        (
            "http://a:1, https://b:2,",
            [Endpoint("a:1", secure=False), Endpoint("b:2", secure=True)],
        ),
        (DEFAULT_ENDPOINTS, [Endpoint("127.0.0.1:4001", secure=False), Endpoint("127.0.0.1:2379", secure=False)]),
    ],
)
def test_endpoints(text, endpoints):
    assert list(parse_endpoints(text)) == endpoints


@pytest.mark.parametrize(
    "text", ["", ",", "10.0.0.1:2379", "ftp://a:1", "http://", "http://a:0", "http://a:70000", "http://a:1/path"]
)
def test_wrong_endpoints_name_the_flag(text):
    with pytest.raises(ConfigError, match="etcd-endpoints"):
        parse_endpoints(text)


def test_a_password_in_an_endpoint_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        parse_endpoints("http://user:hush@10.0.0.1:2379")
    assert "hush" not in str(caught.value)


@given(st.text(max_size=200))
def test_whatever_is_written_is_an_endpoint_or_a_config_error(text):
    try:
        endpoints = parse_endpoints(text)
    except ConfigError:
        return
    assert parse_endpoints(",".join(map(str, endpoints))) == endpoints


def test_what_belongs_together_is_given_together():
    endpoints = parse_endpoints("https://a:1")
    for given_alone, missing in [
        ({"certfile": "c"}, "etcd-keyfile"),
        ({"keyfile": "k"}, "etcd-certfile"),
        ({"password": "p"}, "etcd-username"),
    ]:
        with pytest.raises(ConfigError, match=missing):
            EtcdOptions(endpoints, **given_alone)


def test_the_password_is_not_shown():
    secret = "hush"  # noqa: S105 - nobody's
    assert secret not in repr(EtcdOptions(parse_endpoints("http://a:1"), username="u", password=secret))


def test_options_load_no_grpc():
    program = "import sys, flanneld_py.store.etcd_options; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
