import pytest

from flanneld_py.core.prefix import parse_prefix
from flanneld_py.core.subnet_env import SubnetEnv
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.json_text import encode_json
from flanneld_py.pods.network_conf import complete_delegate, is_own, parse_network_conf

ENV = SubnetEnv((parse_prefix("10.5.0.0/16"),), (parse_prefix("10.5.2.0/24"),), 1450, True)
DUAL = SubnetEnv(
    (parse_prefix("10.5.0.0/16"), parse_prefix("10.6.0.0/16"), parse_prefix("fd42::/48")),
    (parse_prefix("10.5.2.0/24"), parse_prefix("fd42:0:0:1e::/64")),
    1430,
    False,
)


def conf(**more):
    return parse_network_conf({"cniVersion": "1.0.0", "name": "cbr0", "type": "flannel"} | more)


def test_the_defaults_are_go_flannels():
    found = conf()
    assert found.subnet_file == "/run/flannel/subnet.env"
    assert found.data_dir == "/var/lib/cni/flannel"
    assert found.previous is None


def test_the_delegate_of_an_empty_configuration_byte_for_byte():
    # As Go flannel's plugin writes it: keys in order, no spaces.
    assert encode_json(complete_delegate(conf(), ENV)) == (
        '{"cniVersion":"1.0.0","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.5.2.0/24"}]],'
        '"routes":[{"dst":"10.5.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}'
    )


def test_the_delegate_of_kube_flannel_with_two_families():
    found = conf(delegate={"hairpinMode": True, "isDefaultGateway": True})
    assert encode_json(complete_delegate(found, DUAL)) == (
        '{"cniVersion":"1.0.0","hairpinMode":true,"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.5.2.0/24"}],'
        '[{"subnet":"fd42:0:0:1e::/64"}]],"routes":[{"dst":"10.5.0.0/16"},{"dst":"10.6.0.0/16"},{"dst":"fd42::/48"}],'
        '"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1430,"name":"cbr0","type":"bridge"}'
    )


def test_what_the_delegate_has_stands():
    own = {"type": "bridge", "ipMasq": True, "mtu": 1300, "isGateway": False, "bridge": "br7", "unknown": [1]}
    assert own.items() <= complete_delegate(conf(delegate=own), ENV).items()


def test_another_type_gets_no_gateway():
    assert "isGateway" not in complete_delegate(conf(delegate={"type": "ptp"}), ENV)


def test_ranges_are_replaced_and_the_users_routes_come_first():
    ipam = {
        "type": "host-local",
        "dataDir": "/d",
        "ranges": [[{"subnet": "1.2.3.0/24"}]],
        "routes": [{"dst": "192.168.0.0/16", "gw": "10.5.2.7", "mtu": 1400, "priority": 5, "table": 0}],
    }
    found = complete_delegate(conf(ipam=ipam), ENV)["ipam"]
    assert found["ranges"] == [[{"subnet": "10.5.2.0/24"}]]
    assert found["routes"] == [ipam["routes"][0], {"dst": "10.5.0.0/16"}]
    assert found["dataDir"] == "/d"


def test_runtime_config_is_handed_on_and_a_missing_version_is_not_made_up():
    found = complete_delegate(parse_network_conf({"name": "n", "runtimeConfig": {"mac": "x"}}), ENV)
    assert found["runtimeConfig"] == {"mac": "x"}
    assert "cniVersion" not in found


@pytest.mark.parametrize(
    ("change", "own"),
    [
        ({}, True),
        ({"delegate": {"type": "bridge", "ipMasqBackend": "iptables"}, "ipam": {"type": "host-local"}}, True),
        (
            {"ipam": {"ranges": [[{"subnet": "1.2.3.0/24"}]]}, "runtimeConfig": {"ips": ["10.5.2.7"], "ipRanges": []}},
            True,
        ),
        ({"delegate": {"type": "ptp"}}, False),
        ({"delegate": {"ipMasqBackend": "nftables"}}, False),
        ({"delegate": {"ipMasqBackend": []}}, False),
        ({"ipam": {"type": "static"}}, False),
        ({"ipam": {"type": None}}, False),
        ({"ipam": {"subnet": "1.2.3.0/24"}}, False),
        ({"runtimeConfig": {"ipRanges": [[{"subnet": "1.2.3.0/24"}]]}}, False),
    ],
)
def test_what_is_left_to_another_plugin(change, own):
    assert is_own(conf(**change).raw_delegate) is own
    assert is_own(complete_delegate(conf(**change), ENV)) is own


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"cniVersion": "2.0.0"}, errors.INCOMPATIBLE_VERSION, "cniVersion"),
        ({"cniVersion": 1}, errors.INCOMPATIBLE_VERSION, "cniVersion"),
        ({"cniVersion": {}}, errors.INCOMPATIBLE_VERSION, "cniVersion"),
        ({"name": ""}, errors.INVALID_CONFIG, "name"),
        ({"name": "../a"}, errors.INVALID_CONFIG, "name"),
        ({"name": ["a"]}, errors.INVALID_CONFIG, "name"),
        ({"delegate": []}, errors.INVALID_CONFIG, "delegate"),
        ({"delegate": {"name": "n"}}, errors.INVALID_CONFIG, "delegate"),
        ({"delegate": {"ipam": {}}}, errors.INVALID_CONFIG, "delegate"),
        ({"delegate": {"type": 1}}, errors.INVALID_CONFIG, "type"),
        ({"delegate": {"type": "../../bin/sh"}}, errors.INVALID_CONFIG, "type"),
        ({"ipam": "x"}, errors.INVALID_CONFIG, "ipam"),
        ({"subnetFile": 1}, errors.INVALID_CONFIG, "subnetFile"),
        ({"dataDir": "a\0b"}, errors.INVALID_CONFIG, "dataDir"),
        ({"runtimeConfig": 1}, errors.INVALID_CONFIG, "runtimeConfig"),
        ({"prevResult": 1}, errors.INVALID_CONFIG, "prevResult"),
    ],
)
def test_what_is_wrong_is_named(change, code, named):
    with pytest.raises(CniError, match=named) as caught:
        conf(**change)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "route", [{}, {"dst": "x"}, {"dst": "10.0.0.0/8", "gw": "fd00::1"}, {"dst": "10.0.0.0/8", "mtu": -1}, "x"]
)
def test_a_wrong_route_is_refused(route):
    with pytest.raises(CniError) as caught:
        complete_delegate(conf(ipam={"routes": [route]}), ENV)
    assert caught.value.code == errors.INVALID_CONFIG
