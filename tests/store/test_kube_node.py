import pytest

from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import Lease, LeaseAttrs
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.store.kube_node import (
    NodeRecord,
    changed_annotations,
    overwrite_public,
    read_lease,
    read_node_public,
    trim_node,
)
from flanneld_py.store.kube_options import parse_annotation_prefix

PREFIX = "flannel.alpha.coreos.com/"
DATA = '{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}'
IP, IP6 = 0xAC1E000C, (0xFD30 << 112) + 0x12


def annotations(**changes):
    there = {
        "kube-subnet-manager": "true",
        "backend-type": "vxlan",
        "backend-data": DATA,
        "public-ip": "172.30.0.12",
    }
    there |= {name.replace("_", "-"): text for name, text in changes.items()}
    return {name: text for name, text in there.items() if text is not None}


def record(cidrs=("10.5.1.0/24",), **changes):
    return NodeRecord("node1", cidrs, annotations(**changes))


def test_a_node_is_trimmed_to_what_concerns_us():
    whole = {
        "metadata": {
            "name": "node1",
            "annotations": {PREFIX + "public-ip": "172.30.0.12", PREFIX + "foreign": "x", "other/public-ip": "x"},
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {"podCIDR": "10.5.1.0/24", "podCIDRs": ["10.5.1.0/24", "fd05::/64"]},
        "status": {"images": []},
    }
    assert trim_node(whole, PREFIX) == ("node1", ("10.5.1.0/24", "fd05::/64"), {"public-ip": "172.30.0.12"})


@pytest.mark.parametrize(
    ("spec", "cidrs"),
    [({}, ()), ({"podCIDR": ""}, ()), ({"podCIDR": "10.5.1.0/24"}, ("10.5.1.0/24",)), (None, ())],
)
def test_a_node_with_less(spec, cidrs):
    assert trim_node({"metadata": {"name": "node1"}, "spec": spec}, PREFIX) == ("node1", cidrs, {})


@pytest.mark.parametrize("whole", [{}, {"metadata": {}}, {"metadata": {"name": 7}}, {"metadata": []}])
def test_what_is_no_node_is_refused(whole):
    with pytest.raises(ValueError, match="without a name"):
        trim_node(whole, PREFIX)


def test_a_lease_is_read():
    assert read_lease(record()) == Lease(parse_prefix("10.5.1.0/24"), None, LeaseAttrs(IP, None, "vxlan", DATA))


def test_a_dual_stack_lease_is_read_whatever_the_order():
    node = record(("fd05::/64", "10.5.1.0/24"), public_ipv6="fd30::12", backend_v6_data=DATA)
    attrs = LeaseAttrs(IP, IP6, "vxlan", DATA, DATA)
    assert read_lease(node) == Lease(parse_prefix("10.5.1.0/24"), parse_prefix("fd05::/64"), attrs)


def test_host_bits_of_a_pod_cidr_are_masked_as_by_go_flannel():
    assert str(read_lease(record(("10.5.1.7/24",))).subnet) == "10.5.1.0/24"


@pytest.mark.parametrize("node", [record(()), record(kube_subnet_manager=None), record(kube_subnet_manager="false")])
def test_no_lease_yet(node):
    assert read_lease(node) is None


def test_backends_without_data():
    lease = read_lease(record(backend_type="", backend_data="null"))
    assert (lease.attrs.backend_type, lease.attrs.backend_data) == ("", None)


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (record(public_ip="x" * 100), "annotation public-ip is no address: '" + "x" * 60),
        (record(public_ip="fd30::12"), "annotation public-ip is no IPv4 address"),
        (record(public_ipv6="172.30.0.12"), "annotation public-ipv6 is no IPv6 address"),
        (record(("nonsense",)), "podCIDR 'nonsense' is no prefix"),
    ],
)
def test_what_cannot_be_read_is_told(node, told):
    with pytest.raises(ValueError, match=told):
        read_lease(node)


def test_the_operators_addresses():
    assert read_node_public(record()) == (None, None)
    assert read_node_public(record(node_public_ip="172.30.0.12", node_public_ipv6="fd30::12")) == (IP, IP6)
    attrs = LeaseAttrs(1, 2, "vxlan", DATA, DATA)
    assert overwrite_public(record(), attrs) == attrs
    assert overwrite_public(record(public_ip_overwrite="172.30.0.12"), attrs) == attrs._replace(public_ip=IP)
    assert overwrite_public(record(public_ipv6_overwrite="fd30::12"), attrs) == attrs._replace(public_ipv6=IP6)
    # A family that is not carried is not published because an overwrite lies about.
    only = attrs._replace(public_ip=None)
    assert overwrite_public(record(public_ip_overwrite="172.30.0.12"), only) == only


NEW = NodeRecord("node1", (), {})


@pytest.mark.parametrize(
    ("attrs", "written"),
    [
        (
            LeaseAttrs(IP, None, "vxlan", DATA),
            {"backend-type": "vxlan", "backend-data": DATA, "public-ip": "172.30.0.12"},
        ),
        (
            LeaseAttrs(IP, IP6, "vxlan", DATA, DATA),
            {
                "backend-type": "vxlan",
                "backend-data": DATA,
                "public-ip": "172.30.0.12",
                "backend-v6-data": DATA,
                "public-ipv6": "fd30::12",
            },
        ),
        (
            LeaseAttrs(None, IP6, "vxlan", None, DATA),
            {"backend-type": "vxlan", "backend-v6-data": DATA, "public-ipv6": "fd30::12"},
        ),
        (
            LeaseAttrs(IP, None, "host-gw"),
            {"backend-type": "host-gw", "backend-data": "null", "public-ip": "172.30.0.12"},
        ),
        (
            LeaseAttrs(IP, IP6, "host-gw"),
            {
                "backend-type": "host-gw",
                "backend-data": "null",
                "public-ip": "172.30.0.12",
                "backend-v6-data": "null",
                "public-ipv6": "fd30::12",
            },
        ),
        (LeaseAttrs(IP, None, ""), {"backend-type": "", "backend-data": "null", "public-ip": "172.30.0.12"}),
    ],
    ids=["vxlan", "vxlan dual-stack", "vxlan IPv6 only", "host-gw", "host-gw dual-stack", "udp"],
)
def test_what_is_written_is_go_flannels(attrs, written):
    assert changed_annotations(NEW, attrs) == {"kube-subnet-manager": "true"} | written
    # What is written is read again as what it was.
    back = read_lease(NodeRecord("node1", ("10.5.1.0/24", "fd05::/64"), {"kube-subnet-manager": "true"} | written))
    assert back.attrs == attrs


def test_only_what_differs_is_written_and_what_is_stale_is_deleted():
    attrs = LeaseAttrs(IP, None, "vxlan", DATA)
    assert changed_annotations(record(), attrs) == {}
    assert changed_annotations(record(public_ip="172.30.0.99"), attrs) == {"public-ip": "172.30.0.12"}
    stale = record(public_ipv6="fd30::12", backend_v6_data=DATA, public_ip_overwrite="172.30.0.12")
    assert changed_annotations(stale, attrs) == {"public-ipv6": None, "backend-v6-data": None}


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
        ("flannel.example.com/", "flannel.example.com/"),
        ("example.com/lab", "example.com/lab-"),
        ("example.com/lab-", "example.com/lab-"),
    ],
)
def test_annotation_prefix(text, prefix):
    assert parse_annotation_prefix(text) == prefix


@pytest.mark.parametrize("text", ["", "nodots", "a.b/c/d", "A.B", "a.b c", "a..b", "/x"])
def test_wrong_annotation_prefix(text):
    with pytest.raises(ConfigError, match="kube-annotation-prefix"):
        parse_annotation_prefix(text)
