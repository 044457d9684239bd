import pytest

from flanneld_py.backends.backend import Ground, UnreachableError
from flanneld_py.core.entries import Nexthop, Route
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs
from flanneld_py.core.peer import Peer
from flanneld_py.core.prefix import IPV4, IPV6, parse_prefix
from tests.backends.nodes import DUAL, V4, V6, ip, make_backend

UNDERLAY = (
    Route(parse_prefix("0.0.0.0/0"), 0, 0, ip("172.30.0.1"), 2, False, 3),
    Route(parse_prefix("172.30.0.0/24"), 0, 0, 0, 2, False, 2),
    Route(parse_prefix("fd30::/64"), 256, 0, 0, 2, False, 2),
)
ID, ID6 = 0x46000200, 0x46080010


def lease(backend_type="host-gw", public="172.30.0.13", public6="fd30::13", data=None):
    return Lease(
        parse_prefix("10.5.2.0/24"),
        parse_prefix("fd42:0:0:2::/64"),
        LeaseAttrs(ip(public), ip(public6), backend_type, data, data),
    )


@pytest.mark.parametrize(
    ("network", "value"),
    [
        (V4, '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"host-gw"}'),
        (DUAL, '{"PublicIP":"172.30.0.12","PublicIPv6":"fd30::12","BackendType":"host-gw"}'),
        (V6, '{"PublicIP":"0.0.0.0","PublicIPv6":"fd30::12","BackendType":"host-gw"}'),
    ],
)
def test_value_in_the_store(network, value):
    assert encode_attrs(make_backend("host-gw", network).publish(None, None, bytes)) == value


def test_packets_are_as_large_as_the_uplink_carries_and_there_is_no_device():
    backend = make_backend("host-gw", DUAL, mtu=9000)
    assert backend.mtu == 9000
    assert backend.devices(lease()) == {}


def test_peer_on_layer_2_is_the_gateway_to_its_subnets():
    backend = make_backend("host-gw", DUAL)
    four, six = backend.read_peers(lease())
    ground = Ground({}, UNDERLAY, has_nexthops=True)
    assert backend.desired(four, ground) == (
        Nexthop(ID, IPV4, ip("172.30.0.13"), 2, False),
        Route(parse_prefix("10.5.2.0/24"), 0, ID, 0, 0, False),
    )
    assert backend.desired(six, ground) == (
        Nexthop(ID6, IPV6, ip("fd30::13"), 2, False),
        Route(parse_prefix("fd42:0:0:2::/64"), 1024, ID6, 0, 0, False),
    )


def test_route_without_nexthop_objects_is_go_flannels_but_for_the_protocol():
    backend = make_backend("host-gw", V4)
    [peer] = backend.read_peers(lease())
    assert backend.desired(peer, Ground({}, UNDERLAY, has_nexthops=False)) == (
        Route(parse_prefix("10.5.2.0/24"), 0, 0, ip("172.30.0.13"), 2, onlink=False, protocol=119),
    )


@pytest.mark.parametrize(("public", "public6"), [("172.30.1.13", "fd31::13")])
def test_peer_behind_a_router_is_told(public, public6):
    backend = make_backend("host-gw", DUAL)
    for peer, address in zip(backend.read_peers(lease(public=public, public6=public6)), (public, public6), strict=True):
        with pytest.raises(UnreachableError, match=f"{address} is not on this node's layer 2, and there is no tunnel"):
            backend.desired(peer, Ground({}, UNDERLAY, has_nexthops=True))


@pytest.mark.parametrize("backend_type", ["vxlan", "ipip", "", "udp"])
def test_node_of_another_backend_is_reached_over_layer_2(backend_type):
    [peer] = make_backend("host-gw", V4).read_peers(lease(backend_type, data='{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}'))
    assert peer == Peer(parse_prefix("10.5.2.0/24"), ip("172.30.0.13"), direct_only=True)


@pytest.mark.parametrize("backend_type", ["wireguard", "extension", "carrier-pigeon"])
def test_node_whose_packets_must_not_travel_bare_is_refused(backend_type):
    with pytest.raises(
        ValueError, match=f"its backend is '{backend_type}', this node's is 'host-gw': they have no way"
    ):
        make_backend("host-gw", V4).read_peers(lease(backend_type))


def test_lease_without_the_address_that_is_needed_is_refused():
    attrs = LeaseAttrs(None, None, "host-gw")
    with pytest.raises(ValueError, match="it has no PublicIP"):
        make_backend("host-gw", V4).read_peers(Lease(parse_prefix("10.5.2.0/24"), None, attrs))
