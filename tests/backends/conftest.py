"""What the tests of all backends share: an uplink, and a backend made from a configuration."""

import json
from ipaddress import ip_address

import pytest

from flanneld_py.backends.registry import parse_backend
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.underlay import AddressOf, Interface, Uplink


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


@pytest.fixture
def make():
    """`make(type, network, **keys of Backend)`."""

    def make(kind, network, *, mtu=1500, public=None, **keys):
        config = parse_network_config(json.dumps(network | {"Backend": {"Type": kind} | keys}))
        uplink = make_uplink(mtu, ipv4=config.ipv4 is not None, ipv6=config.ipv6 is not None, public=public)
        return parse_backend(config)(uplink)

    return make
