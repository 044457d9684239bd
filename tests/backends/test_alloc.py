from flanneld_py.core.lease import Lease, LeaseAttrs, encode_attrs
from flanneld_py.core.prefix import parse_prefix
from tests.backends.nodes import make_backend


def test_lease_and_nothing_else():
    backend = make_backend("alloc", {"Network": "10.5.0.0/16"})
    lease = Lease(parse_prefix("10.5.2.0/24"), None, LeaseAttrs(1, None, "vxlan", '{"VNI":1}'))
    assert encode_attrs(backend.publish(None, None, bytes)) == '{"PublicIP":"172.30.0.12","PublicIPv6":null}'
    assert backend.mtu == 1500
    assert backend.devices(lease) == {}
    assert backend.read_peers(lease) == ()
    assert not backend.adopts_routes
