import pytest

from flanneld_py.core.entries import FdbEntry, Neighbour
from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import neighbour
from tests.host import IPV4, IPV6, PERMANENT, SELF, mac, number

pytestmark = pytest.mark.kernel

MAC, OTHER = "02:00:00:00:00:02", "02:00:00:00:00:03"


@pytest.fixture
def device(host):
    return host.make_vxlan()


def read_neighbours(host, device, family=IPV4):
    dump = neighbour.encode_dump_neighbours(family, device)
    return set(host.sock.dump(dump, neighbour.decode_neighbour, "read"))


def read_fdb(host, device):
    return set(host.sock.dump(neighbour.encode_dump_fdb(device), neighbour.decode_fdb, "read"))


@pytest.mark.parametrize(("family", "address"), [(IPV4, "10.5.2.0"), (IPV6, "fd42:0:0:2::")])
def test_neighbour_written_changed_and_deleted(host, device, family, address):
    for text in (MAC, MAC, OTHER):
        entry = Neighbour(device, family, number(address), mac(text))
        host.sock.execute(neighbour.encode_replace_neighbour(entry), "write")
        assert host.neighbours(device, family) == {address: text}
        assert read_neighbours(host, device, family) == {entry}
    host.sock.execute(neighbour.encode_delete_neighbour(entry), "delete")
    assert host.neighbours(device, family) == {}
    with pytest.raises(KernelError) as caught:
        host.sock.execute(neighbour.encode_delete_neighbour(entry), "delete it again")
    assert caught.value.errno == 2


def test_neighbours_of_others(host, device):
    def write(ipr):
        ipr.neigh("add", ifindex=device, dst="10.5.2.0", lladdr=MAC, state=PERMANENT)
        ipr.neigh("add", ifindex=device, dst="10.5.3.0", lladdr=OTHER, state=4)
        ipr.neigh("add", ifindex=host.uplink, dst="172.30.0.12", lladdr=OTHER, state=PERMANENT)
        ipr.neigh("add", ifindex=device, dst="fd42:0:0:2::", lladdr=MAC, state=PERMANENT)

    host.do(write)
    assert read_neighbours(host, device) == {Neighbour(device, IPV4, number("10.5.2.0"), mac(MAC))}
    assert read_neighbours(host, device, IPV6) == {Neighbour(device, IPV6, number("fd42:0:0:2::"), mac(MAC))}


def test_a_neighbour_that_is_not_permanent_becomes_so(host, device):
    host.do(lambda ipr: ipr.neigh("add", ifindex=device, dst="10.5.2.0", lladdr=OTHER, state=4))
    entry = Neighbour(device, IPV4, number("10.5.2.0"), mac(MAC))
    host.sock.execute(neighbour.encode_replace_neighbour(entry), "write")
    assert host.neighbours(device) == {"10.5.2.0": MAC}


def test_fdb_entry_written_changed_and_deleted(host, device):
    for remote in ("172.30.0.12", "172.30.0.12", "172.30.0.13"):
        entry = FdbEntry(device, mac(MAC), IPV4, number(remote))
        host.sock.execute(neighbour.encode_replace_fdb(entry), "write")
        assert host.fdb(device) == {MAC: remote}
        assert read_fdb(host, device) == {entry}
    # Whichever remote it has: what somebody else wrote there goes as well.
    host.sock.execute(neighbour.encode_delete_fdb(entry._replace(remote=1)), "delete")
    assert host.fdb(device) == {}
    with pytest.raises(KernelError) as caught:
        host.sock.execute(neighbour.encode_delete_fdb(entry), "delete it again")
    assert caught.value.errno == 2


def test_fdb_entry_of_ipv6(host):
    device = host.make_vxlan("flannel-v6.1", vxlan_local6="fd30::11")
    entry = FdbEntry(device, mac(MAC), IPV6, number("fd30::12"))
    host.sock.execute(neighbour.encode_replace_fdb(entry), "write")
    assert read_fdb(host, device) == {entry}
    assert host.fdb(device) == {MAC: "fd30::12"}


def test_fdb_entries_of_others(host, device):
    second = host.make_vxlan("flannel.2", vni=2)

    def write(ipr):
        ipr.fdb("add", ifindex=device, lladdr=MAC, dst="172.30.0.12", flags=SELF, state=PERMANENT)
        ipr.fdb("add", ifindex=device, lladdr=OTHER, dst="172.30.0.13", flags=SELF, state=2)
        ipr.fdb("add", ifindex=second, lladdr=OTHER, dst="172.30.0.13", flags=SELF, state=PERMANENT)

    host.do(write)
    assert read_fdb(host, device) == {FdbEntry(device, mac(MAC), IPV4, number("172.30.0.12"))}
    assert read_fdb(host, second) == {FdbEntry(second, mac(OTHER), IPV4, number("172.30.0.13"))}


def test_what_ip_and_bridge_read_and_write(host, device):
    host.sock.execute(
        neighbour.encode_replace_neighbour(Neighbour(device, IPV4, number("10.5.2.0"), mac(MAC))), "write"
    )
    host.sock.execute(neighbour.encode_replace_fdb(FdbEntry(device, mac(MAC), IPV4, number("172.30.0.12"))), "write")
    assert host.ip("neigh show dev flannel.1").strip() == f"10.5.2.0 lladdr {MAC} PERMANENT"
    assert f"{MAC} dst 172.30.0.12 self permanent" in host.ip("fdb show dev flannel.1", program="bridge")
    host.ip(f"neigh add 10.5.3.0 lladdr {OTHER} dev flannel.1")
    host.ip(f"fdb add {OTHER} dst 172.30.0.13 dev flannel.1 self", program="bridge")
    assert Neighbour(device, IPV4, number("10.5.3.0"), mac(OTHER)) in read_neighbours(host, device)
    assert FdbEntry(device, mac(OTHER), IPV4, number("172.30.0.13")) in read_fdb(host, device)


def test_a_device_that_is_gone_has_no_neighbours(host):
    assert read_neighbours(host, 999) == set()
