import pytest

from flanneld_py.kernel.forwarding import heed_routers
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
