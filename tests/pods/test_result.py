import json

import pytest

from flanneld_py.core.prefix import parse_address, parse_prefix
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.json_text import encode_json
from flanneld_py.pods.result import Dns, Interface, PodAddress, PodRoute, Result, encode_result, parse_result
from flanneld_py.pods.versions import SUPPORTED


def number(text):
    return parse_address(text)[1]


RESULT = Result(
    (
        Interface("cni0", "02:00:00:00:00:01", 1450),
        Interface("vethdeadbeef", "02:00:00:00:00:02", 1450),
        Interface("eth0", "02:00:00:00:00:03", 1450, "/run/netns/pod"),
    ),
    (
        PodAddress(parse_prefix("10.5.2.0/24"), number("10.5.2.9"), number("10.5.2.1"), 2),
        PodAddress(parse_prefix("fd42:0:0:1::/64"), number("fd42:0:0:1::9"), number("fd42:0:0:1::1"), 2),
    ),
    (
        PodRoute(parse_prefix("10.5.0.0/16"), mtu=1400, metric=7, table=100),
        PodRoute(parse_prefix("0.0.0.0/0"), number("10.5.2.1")),
        PodRoute(parse_prefix("::/0"), number("fd42:0:0:1::1")),
    ),
    Dns(("10.96.0.10",), "", ("svc.cluster.local",), ()),
)

INTERFACES_110 = (
    '[{"name":"cni0","mac":"02:00:00:00:00:01","mtu":1450},{"name":"vethdeadbeef","mac":"02:00:00:00:00:02","mtu":1450},'
    '{"name":"eth0","mac":"02:00:00:00:00:03","mtu":1450,"sandbox":"/run/netns/pod"}]'
)
INTERFACES = INTERFACES_110.replace(',"mtu":1450', "")
IPS = (
    '[{"interface":2,"address":"10.5.2.9/24","gateway":"10.5.2.1"},'
    '{"interface":2,"address":"fd42:0:0:1::9/64","gateway":"fd42:0:0:1::1"}]'
)
IPS_WITH_VERSION = (
    '[{"version":"4","interface":2,"address":"10.5.2.9/24","gateway":"10.5.2.1"},'
    '{"version":"6","interface":2,"address":"fd42:0:0:1::9/64","gateway":"fd42:0:0:1::1"}]'
)
ROUTES = '[{"dst":"10.5.0.0/16"},{"dst":"0.0.0.0/0","gw":"10.5.2.1"},{"dst":"::/0","gw":"fd42:0:0:1::1"}]'
ROUTES_110 = ROUTES.replace('"10.5.0.0/16"}', '"10.5.0.0/16","mtu":1400,"priority":7,"table":100}')
DNS = '"dns":{"nameservers":["10.96.0.10"],"search":["svc.cluster.local"]}'
FAMILIES = (
    '"ip4":{"ip":"10.5.2.9/24","gateway":"10.5.2.1",'
    '"routes":[{"dst":"10.5.0.0/16"},{"dst":"0.0.0.0/0","gw":"10.5.2.1"}]},'
    '"ip6":{"ip":"fd42:0:0:1::9/64","gateway":"fd42:0:0:1::1","routes":[{"dst":"::/0","gw":"fd42:0:0:1::1"}]}'
)

GOLDEN = {
    "0.1.0": FAMILIES,
    "0.2.0": FAMILIES,
    "0.3.0": f'"interfaces":{INTERFACES},"ips":{IPS_WITH_VERSION},"routes":{ROUTES}',
    "0.3.1": f'"interfaces":{INTERFACES},"ips":{IPS_WITH_VERSION},"routes":{ROUTES}',
    "0.4.0": f'"interfaces":{INTERFACES},"ips":{IPS_WITH_VERSION},"routes":{ROUTES}',
    "1.0.0": f'"interfaces":{INTERFACES},"ips":{IPS},"routes":{ROUTES}',
    "1.1.0": f'"interfaces":{INTERFACES_110},"ips":{IPS},"routes":{ROUTES_110}',
}


@pytest.mark.parametrize(("version", "body"), GOLDEN.items())
def test_each_version_has_its_own_format(version, body):
    assert encode_json(encode_result(RESULT, version)) == f'{{"cniVersion":"{version}",{body},{DNS}}}'


def test_there_is_a_golden_for_each_version():
    assert tuple(GOLDEN) == SUPPORTED


def test_what_is_empty_is_left_out_save_for_the_dns_of_old_versions():
    empty = Result((), (), (), Dns())
    assert encode_result(empty, "1.0.0") == {"cniVersion": "1.0.0", "interfaces": [], "ips": []}
    assert encode_result(empty, "0.4.0") == {"cniVersion": "0.4.0", "interfaces": [], "ips": [], "dns": {}}
    assert encode_result(empty, "0.2.0") == {"cniVersion": "0.2.0", "dns": {}}


def test_a_result_of_the_newest_version_reads_back_whole():
    assert parse_result(json.loads(encode_json(encode_result(RESULT, "1.1.0")))) == RESULT


@pytest.mark.parametrize(
    "broken",
    [
        {"ips": [{"address": "10.5.2.9"}]},
        {"ips": [{"address": "10.5.2.9/24", "interface": 3}]},
        {"ips": [{"address": "10.5.2.9/24", "gateway": "x"}]},
        {"ips": {}},
        {"interfaces": [1]},
        {"interfaces": [{"name": 1}]},
        {"routes": [{"dst": "x"}]},
        {"dns": []},
    ],
)
def test_a_broken_one_is_refused(broken):
    with pytest.raises(CniError):
        parse_result(broken)
