import pytest

from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError
from flanneld_py.pods.invocation import parse_invocation

ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "3f0e-a.b_c",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}


def test_a_whole_call():
    call = parse_invocation(
        ADD | {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=a=b;IP=10.5.2.9;", "CNI_NETNS_OVERRIDE": "True"}, b"{}"
    )
    assert call.verb == "ADD"
    assert call.container_id == "3f0e-a.b_c"
    assert call.netns == "/run/netns/x"
    assert call.ifname == "eth0"
    assert call.plugin_path == "/opt/cni/bin"
    assert call.args == {"IgnoreUnknown": "1", "K8S_POD_NAME": "a=b", "IP": "10.5.2.9"}
    assert call.netns_override
    assert call.config == b"{}"


def test_a_del_needs_no_namespace_and_a_status_nothing():
    assert parse_invocation(ADD | {"CNI_COMMAND": "DEL", "CNI_NETNS": ""}, b"").netns == ""
    assert parse_invocation({"CNI_COMMAND": "STATUS"}, b"").verb == "STATUS"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"CNI_COMMAND": ""}, "CNI_COMMAND"),
        ({"CNI_COMMAND": "add"}, "CNI_COMMAND"),
        ({"CNI_CONTAINERID": ""}, "CNI_CONTAINERID"),
        ({"CNI_NETNS": ""}, "CNI_NETNS"),
        ({"CNI_IFNAME": ""}, "CNI_IFNAME"),
        ({"CNI_CONTAINERID": ".."}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "a/b"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "-a"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "é"}, "CNI_CONTAINERID"),
        ({"CNI_IFNAME": ".."}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a:b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "sixteen-letters!"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "é" * 8}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "\udcff"}, "CNI_IFNAME"),
        ({"CNI_ARGS": "IP"}, "CNI_ARGS"),
    ],
)
def test_what_is_wrong_is_named_with_code_4(change, named):
    with pytest.raises(CniError, match=named) as caught:
        parse_invocation(ADD | change, b"")
    assert caught.value.code == errors.INVALID_ENVIRONMENT
