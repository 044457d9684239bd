import pytest

from flanneld_py.core.entries import Nexthop
from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import nexthop
from tests.host import IPV4, IPV6, number

pytestmark = pytest.mark.kernel

ID = 0x46100200


def read(host):
    return set(host.sock.dump(nexthop.encode_dump(), nexthop.decode, "read"))


def test_this_kernel_has_them(host):
    assert nexthop.has_nexthops(host.sock)


@pytest.mark.parametrize(("family", "gateway"), [(IPV4, "10.5.2.0"), (IPV6, "fd42:0:0:2::")])
def test_written_read_and_deleted(host, family, gateway):
    device = host.make_vxlan()
    entry = Nexthop(ID, family, number(gateway), device, True)
    for _ in range(2):
        host.sock.execute(nexthop.encode_replace(entry), "write")
        assert read(host) == {entry}
    [told] = host.ip(f"-json nexthop show id {ID}")
    assert (told["id"], told["gateway"], told["dev"]) == (ID, gateway, "flannel.1")
    assert (told["protocol"], told["flags"]) == ("119", ["onlink"])
    host.sock.execute(nexthop.encode_delete(entry), "delete")
    assert read(host) == set()
    with pytest.raises(KernelError) as caught:
        host.sock.execute(nexthop.encode_delete(entry), "delete it again")
    assert caught.value.errno == 2


def test_replaced_in_place_routes_follow(host):
    device = host.make_vxlan()
    host.sock.execute(nexthop.encode_replace(Nexthop(ID, IPV4, number("10.5.2.0"), device, True)), "write")
    host.ip(f"route add 10.5.2.0/24 nhid {ID}")
    direct = Nexthop(ID, IPV4, number("172.30.0.12"), host.uplink, False)
    host.sock.execute(nexthop.encode_replace(direct), "write")
    assert read(host) == {direct}
    assert host.routes()["10.5.2.0/24"] == (3, "172.30.0.12", host.uplink, False)


def test_what_others_make_is_not_ours(host):
    host.ip(f"nexthop add id {ID} via 172.30.0.12 dev eth0 proto static")
    host.ip(f"nexthop add id {ID + 1} via 172.30.0.12 dev eth0")
    host.ip(f"nexthop add id {ID + 2} group {ID}/{ID + 1} proto 119")
    host.ip(f"nexthop add id {ID + 3} blackhole proto 119")
    assert read(host) == set()
    host.ip(f"nexthop add id {ID + 4} via 172.30.0.12 dev eth0 proto 119")
    assert read(host) == {Nexthop(ID + 4, IPV4, number("172.30.0.12"), host.uplink, False)}
