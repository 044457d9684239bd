import pytest

from flanneld_py.core.lease import Lease, LeaseAttrs
from flanneld_py.core.peer import Members, refuse_foreign
from flanneld_py.core.prefix import parse_address, parse_prefix

OWN = "10.5.1.0-24"


def ip(text):
    return None if text is None else parse_address(text)[1]


def make_lease(subnet="10.5.2.0/24", public_ip="172.30.0.12", ipv6_subnet=None, public_ipv6=None):
    return Lease(
        subnet and parse_prefix(subnet),
        ipv6_subnet and parse_prefix(ipv6_subnet),
        LeaseAttrs(ip(public_ip), ip(public_ipv6), "vxlan"),
    )


MEMBERS = Members(
    own_key=OWN,
    own_public=(ip("172.30.0.11"), ip("fd30::11")),
    networks=(parse_prefix("10.5.0.0/16"), parse_prefix("fd42::/48")),
    own_subnets=(parse_prefix("10.5.1.0/24"), parse_prefix("fd42:0:0:1::/64")),
    underlay=(parse_prefix("172.30.0.0/16"), parse_prefix("10.5.200.0/24")),
)


@pytest.mark.parametrize(
    ("lease", "reason"),
    [
        (make_lease("10.6.2.0/24"), "10.6.2.0/24 lies outside the network"),
        (make_lease("0.0.0.0/0"), "0.0.0.0/0 lies outside the network"),
        (make_lease("10.4.0.0/15"), "10.4.0.0/15 lies outside the network"),
        (make_lease("10.5.1.0/24"), "10.5.1.0/24 overlaps this node's own subnet 10.5.1.0/24"),
        (make_lease("10.5.0.0/16"), "10.5.0.0/16 overlaps this node's own subnet 10.5.1.0/24"),
        (make_lease("10.5.1.128/25"), "10.5.1.128/25 overlaps this node's own subnet 10.5.1.0/24"),
        (make_lease("10.5.200.128/25"), "overlaps 10.5.200.0/24, which this node's uplink is attached to"),
        (make_lease("10.5.192.0/20"), "overlaps 10.5.200.0/24, which this node's uplink is attached to"),
        (make_lease(public_ip="172.30.0.11"), "its PublicIP is this node's own"),
        (make_lease(None, None, "fd43::/64", "fd30::12"), "fd43::/64 lies outside the network"),
        (make_lease(None, None, "fd42:0:0:1::/64", "fd30::12"), "overlaps this node's own subnet"),
        (make_lease(None, None, "fd42:0:0:2::/64", "fd30::11"), "its PublicIPv6 is this node's own"),
        (make_lease(ipv6_subnet="fd42:0:0:1::/64", public_ipv6="fd30::12"), "overlaps this node's own subnet"),
        *(
            (make_lease(public_ip=address), f"its PublicIP {address} is no address that a node can have")
            for address in ("0.0.0.1", "127.0.0.1", "224.0.0.1", "239.1.2.3", "255.255.255.255")
        ),
        (
            make_lease(public_ip="10.5.2.1"),
            "its PublicIP 10.5.2.1 lies in the subnet 10.5.2.0/24 that it is to lead to",
        ),
        (make_lease(None, None, "fd42:0:0:2::/64", "ff02::1"), "its PublicIPv6 ff02::1 is no address"),
        (make_lease(None, None, "fd42:0:0:2::/64", "::1"), "its PublicIPv6 ::1 is no address"),
        (make_lease(None, None, "fd42:0:0:2::/64", "fd42:0:0:2::9"), "lies in the subnet fd42:0:0:2::/64"),
    ],
)
def test_lease_that_must_not_be_programmed(lease, reason):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        refuse_foreign(lease, MEMBERS)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "lease",
    [
        make_lease(),
        make_lease("10.5.0.0/24"),
        make_lease("10.5.2.0/30"),
        make_lease("10.5.128.0/18"),
        make_lease(public_ip="10.5.3.1"),  # where nodes lie in the Network as well
        make_lease(public_ip="240.0.0.9"),
        make_lease(None, None, "fd42:0:0:2::/64", "fd30::12"),
        make_lease(ipv6_subnet="fd42:0:0:2::/64", public_ipv6="fd30::12"),
    ],
)
def test_lease_that_may_be_programmed(lease):
    refuse_foreign(lease, MEMBERS)


def test_a_family_that_the_network_does_not_have_is_nobodys_business():
    # As after a network was switched back from dual-stack: its former leases still carry both.
    ipv4_only = MEMBERS._replace(networks=MEMBERS.networks[:1], own_subnets=MEMBERS.own_subnets[:1])
    refuse_foreign(make_lease(ipv6_subnet="fd42:0:0:2::/64", public_ipv6="fd30::12"), ipv4_only)


def test_nobody_is_told_from_nobody_by_an_address_that_neither_has():
    refuse_foreign(make_lease(None, None, "fd42:0:0:2::/64", "fd30::12"), MEMBERS._replace(own_public=(None, 1)))
