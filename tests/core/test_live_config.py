import json

import pytest

from flanneld_py.core.live_config import follow_config
from flanneld_py.core.network_config import parse_network_config

RUNNING = {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1, "MTU": 1400}}


def parse(config):
    return parse_network_config(json.dumps(config))


def follow(running, told):
    return follow_config(parse(running), parse(told), ("MTU", "VNI", "Port", "DirectRouting", "GBP"))


def backend(**keys):
    return RUNNING | {"Backend": RUNNING["Backend"] | keys}


def test_the_same_is_no_change():
    assert follow(RUNNING, RUNNING) == (parse(RUNNING), ())


@pytest.mark.parametrize(
    "keys", [{"Type": "VXLAN", "vni": 1, "mtu": 1400}, {"VNI": 1, "Comment": "ours"}, {"VNI": 1, "GBP": None}]
)
def test_neither_letter_case_nor_a_key_that_means_nothing_is_a_change(keys):
    assert not follow(RUNNING, RUNNING | {"Backend": {"Type": "vxlan", **keys}}).pending


@pytest.mark.parametrize(
    "told",
    [
        backend(MTU=1300),
        backend(DirectRouting=True),
        backend(mtu=9000, directrouting=False),
        RUNNING | {"Backend": {"Type": "vxlan", "VNI": 1}},
    ],
)
def test_mtu_and_direct_routing_are_followed(told):
    change = follow(RUNNING, told)
    assert change == (parse(told), ())


@pytest.mark.parametrize(
    ("told", "pending"),
    [
        (RUNNING | {"Network": "10.6.0.0/16"}, ("Network", "SubnetMin", "SubnetMax")),
        (RUNNING | {"SubnetMax": "10.5.9.0"}, ("SubnetMax",)),
        (RUNNING | {"EnableIPv6": True, "IPv6Network": "fd05::/48"}, ("EnableIPv6",)),
        (RUNNING | {"EnableNFTables": True}, ("EnableNFTables",)),
        (RUNNING | {"Backend": {"Type": "host-gw"}}, ("Backend.Type",)),
        (backend(VNI=2, Port=4789), ("Backend.VNI", "Backend.Port")),
    ],
)
def test_all_else_waits(told, pending):
    assert follow(RUNNING, told) == (parse(RUNNING), pending)


def test_of_two_changes_each_has_its_own_way():
    change = follow(RUNNING, backend(MTU=1300, VNI=2))
    assert change == (parse(backend(MTU=1300)), ("Backend.VNI",))
