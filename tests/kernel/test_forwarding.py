import pytest

from flanneld_py.kernel.forwarding import heed_routers, lenient_check
from flanneld_py.kernel.sysctl import ensure_sysctl, read_sysctl

pytestmark = pytest.mark.kernel

ACCEPT = ("net", "ipv6", "conf", "eth0", "accept_ra")
FORWARDING = ("net", "ipv6", "conf", "all", "forwarding")


def test_routers_are_heeded_on_when_the_host_is_about_to_forward(host):
    with host.namespace.entered():
        ensure_sysctl("1", *ACCEPT)
        assert heed_routers("eth0")
        assert read_sysctl(*ACCEPT) == "2"
        assert not heed_routers("eth0")


@pytest.mark.parametrize(("accept", "forwarding"), [("0", "0"), ("1", "1"), ("0", "1")])
def test_what_the_operator_has_chosen_stays(host, accept, forwarding):
    with host.namespace.entered():
        ensure_sysctl(forwarding, *FORWARDING)
        ensure_sysctl(accept, *ACCEPT)
        assert not heed_routers("eth0")
        assert read_sysctl(*ACCEPT) == accept


@pytest.mark.parametrize(
    ("device", "host_wide", "loosened"), [("1", "0", True), ("0", "1", True), ("0", "0", False), ("2", "1", False)]
)
def test_a_strict_check_of_the_way_is_made_a_loose_one_and_no_other_is_touched(host, device, host_wide, loosened):
    path = ("net", "ipv4", "conf", "eth0", "rp_filter")
    with host.namespace.entered():
        ensure_sysctl(device, *path)
        ensure_sysctl(host_wide, "net", "ipv4", "conf", "all", "rp_filter")
        assert lenient_check("eth0") == (((path, "2"),) if loosened else ())
