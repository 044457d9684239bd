"""A node for tests of backends: an uplink, and the backend that a configuration makes on it."""

import json
from ipaddress import ip_address

from flanneld_py.backends.registry import parse_backend
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.prefix import parse_address
from flanneld_py.core.underlay import AddressOf, Interface, Uplink

V4 = {"Network": "10.5.0.0/16"}
V6 = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd42::/48"}
DUAL = {"Network": "10.5.0.0/16", "EnableIPv6": True, "IPv6Network": "fd42::/48"}


def ip(text):
    return parse_address(text)[1]


def make_uplink(*, ipv4=True, ipv6=False, mtu=1500, public=None):
    source, source6 = ip_address("172.30.0.12"), ip_address("fd30::12")
    interface = Interface(2, "eth0", mtu, True, (AddressOf(source, 16, True), AddressOf(source6, 64, True)))
    sources = (source if ipv4 else None, source6 if ipv6 else None)
    return Uplink(interface, *sources, (public or source) if ipv4 else None, sources[1], "test")


def make_backend(kind, network=V4, *, mtu=1500, public=None, **keys):
    config = parse_network_config(json.dumps(network | {"Backend": {"Type": kind} | keys}))
    uplink = make_uplink(ipv4=config.ipv4 is not None, ipv6=config.ipv6 is not None, mtu=mtu, public=public)
    return parse_backend(config)(uplink)
