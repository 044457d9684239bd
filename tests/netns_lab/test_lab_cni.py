import json
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest

from netns_lab.cni import (
    Attachment,
    CniError,
    NetworkList,
    describe_failure,
    fit_to_lab,
    parse_network_list,
    plugin_environment,
    plugin_input,
    result_addresses,
)

CONFLIST = {
    "name": "cbr0",
    "cniVersion": "1.1.0",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True}, "ipam": {"routes": []}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
NETWORK = NetworkList("cbr0", "1.1.0", tuple(CONFLIST["plugins"]))


def test_a_conflist_is_read():
    assert parse_network_list(json.dumps(CONFLIST)) == NETWORK


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a", "cniVersion": "1.1.0", "plugins": 3}'])
def test_a_conflist_that_is_none_is_refused(text):
    with pytest.raises(CniError):
        parse_network_list(text)


def test_the_first_plugin_gets_its_own_configuration_with_name_and_version():
    assert json.loads(plugin_input(NETWORK, NETWORK.plugins[0], None)) == {
        **CONFLIST["plugins"][0],
        "name": "cbr0",
        "cniVersion": "1.1.0",
    }


def test_the_next_plugin_gets_the_result_before_it():
    result = {"ips": [{"address": "10.0.0.2/24"}]}
    assert json.loads(plugin_input(NETWORK, NETWORK.plugins[1], result))["prevResult"] == result


def test_the_parameters_of_an_operation():
    assert plugin_environment("ADD", Attachment("c1", Path("/run/netns/pod-a"))) == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/pod-a",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/run/cni/bin",
    }


def test_flannels_state_moves_to_the_nodes_own_run_without_masquerading_and_the_rest_stays():
    values = json.loads(fit_to_lab(json.dumps(CONFLIST)))
    assert values["plugins"][0] == {
        "type": "flannel",
        "delegate": {"ipMasq": False, "hairpinMode": True},
        "dataDir": "/run/cni/flannel",
        "ipam": {"routes": [], "dataDir": "/run/cni/networks"},
    }
    assert values["plugins"][1] == CONFLIST["plugins"][1]


def test_the_addresses_of_a_result():
    result = {"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]}
    assert result_addresses(result) == (IPv4Interface("10.0.0.2/24"), IPv6Interface("fd00::2/64"))


@pytest.mark.parametrize("result", [{}, {"ips": []}, {"ips": None}])
def test_a_result_without_addresses_is_an_error(result):
    with pytest.raises(CniError, match="gave the container no address"):
        result_addresses(result)


def test_an_error_object_is_told_by_code_and_message():
    text = describe_failure("flannel", "ADD", '{"code": 11, "msg": "try again later", "details": "no subnet"}', "")
    assert text == "CNI ADD by flannel failed: code 11: try again later no subnet"


@pytest.mark.parametrize("stdout", ["", "Traceback", "[]", '{"code": 1}'])
def test_what_is_no_error_object_is_shown_as_it_is(stdout):
    assert describe_failure("flannel", "DEL", stdout, "boom") == f"CNI DEL by flannel failed: {stdout}boom"
