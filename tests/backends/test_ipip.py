import errno
import socket

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from flanneld_py.backends.backend import Ground, UnreachableError
from flanneld_py.core.entries import Nexthop, Route
from flanneld_py.core.errors import ConfigError
from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs
from flanneld_py.core.prefix import IPV4, parse_prefix
from flanneld_py.kernel.ipip import has_ipip
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from tests.backends.nodes import V4, ip, make_backend

UNDERLAY = (
    Route(parse_prefix("0.0.0.0/0"), 0, 0, ip("172.30.0.1"), 2, False, 3),
    Route(parse_prefix("172.30.0.0/24"), 0, 0, 0, 2, False, 2),
)
GROUND = Ground({IPV4: 9}, UNDERLAY, has_nexthops=False)
SUBNET = parse_prefix("10.5.2.0/24")
ID = 0x46000200
# include/uapi/linux/if_tunnel.h
LOCAL, REMOTE, PMTUDISC = 2, 3, 10


def peer_of(backend, public, backend_type="ipip"):
    [peer] = backend.read_peers(Lease(SUBNET, None, LeaseAttrs(ip(public), None, backend_type)))
    return peer


def test_device():
    backend = make_backend("ipip", V4)
    [(family, device)] = backend.devices(Lease(parse_prefix("10.5.1.0/24"), None, None)).items()
    assert (family, device.name, device.kind, device.mac, device.mtu) == (IPV4, "flannel.ipip", "ipip", b"", 1480)
    assert [str(prefix) for prefix in device.addresses] == ["10.5.1.0/32"]
    assert dict(device.options) == {LOCAL: bytes([172, 30, 0, 12]), REMOTE: bytes(4), PMTUDISC: b"\0"}
    assert backend.mtu == 1480


def test_value_in_the_store(monkeypatch):
    monkeypatch.setattr("flanneld_py.backends.ipip.has_ipip", lambda sock: True)
    assert encode_attrs(make_backend("ipip", V4).publish(None, None, bytes)) == (
        '{"PublicIP":"172.30.0.12","PublicIPv6":null,"BackendType":"ipip"}'
    )


def test_kernel_without_ipip_is_told_before_a_lease_is_written(monkeypatch):
    monkeypatch.setattr("flanneld_py.backends.ipip.has_ipip", lambda sock: False)
    with pytest.raises(OSError, match="ipip: this kernel has no ipip: modprobe ipip, or choose vxlan"):
        make_backend("ipip", V4).publish(None, None, bytes)


@pytest.mark.kernel
@pytest.mark.guest
def test_asking_for_ipip_tells_what_the_kernel_can_and_makes_no_device(namespace):
    def ask():
        with NetlinkSocket() as sock:
            return has_ipip(sock)

    def try_it():
        with IPRoute() as ipr:
            try:
                ipr.link("add", ifname="mine", kind="ipip", ipip_local="172.30.0.12")
            except NetlinkError as error:
                return error.code != errno.EOPNOTSUPP
            return True

    before = namespace.run(socket.if_nameindex)
    told = namespace.run(ask)
    # The module, if this loads it, makes a device of its own in each namespace.
    assert {name for _, name in namespace.run(socket.if_nameindex)} - {name for _, name in before} <= {"tunl0"}
    assert told == namespace.run(try_it)


def test_gateway_of_a_route_is_the_remote_of_the_tunnel():
    backend = make_backend("ipip", V4)
    peer = peer_of(backend, "172.31.0.13")
    assert backend.desired(peer, GROUND) == (Route(SUBNET, 0, 0, ip("172.31.0.13"), 9, onlink=True),)
    assert backend.desired(peer, Ground({IPV4: 9}, UNDERLAY, has_nexthops=True)) == (
        Nexthop(ID, IPV4, ip("172.31.0.13"), 9, onlink=True),
        Route(SUBNET, 0, ID, 0, 0, onlink=False),
    )


def test_direct_routing():
    backend = make_backend("ipip", V4, DirectRouting=True)
    assert backend.follows_underlay
    assert backend.desired(peer_of(backend, "172.30.0.13"), GROUND) == (
        Route(SUBNET, 0, 0, ip("172.30.0.13"), 2, onlink=False),
    )
    far = peer_of(backend, "172.31.0.13")
    assert backend.desired(far, GROUND) == make_backend("ipip", V4).desired(far, GROUND)


def test_peer_on_our_layer_2_is_tunnelled_without_direct_routing():
    backend = make_backend("ipip", V4)
    assert not backend.follows_underlay
    assert backend.desired(peer_of(backend, "172.30.0.13"), GROUND)[0].ifindex == 9


def test_node_of_another_backend_is_reached_without_a_tunnel_or_not_at_all():
    backend = make_backend("ipip", V4)
    near, far = (peer_of(backend, address, "host-gw") for address in ("172.30.0.13", "172.31.0.13"))
    assert backend.follows_underlay
    assert backend.desired(near, GROUND)[0].ifindex == 2
    with pytest.raises(UnreachableError, match="not on this node's layer 2"):
        backend.desired(far, GROUND)


def test_ipv6_is_refused():
    with pytest.raises(ConfigError, match="EnableIPv6: ipip carries IPv4 only"):
        make_backend("ipip", V4 | {"EnableIPv6": True, "IPv6Network": "fd42::/48"})
