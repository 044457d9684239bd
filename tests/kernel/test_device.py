"""Devices, their addresses, and the vxlan device that is made, adopted, mended or replaced."""

import errno
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import ifinfmsg

from flanneld_py.core.errors import KernelError
from flanneld_py.core.prefix import host_prefix
from flanneld_py.kernel import address, link
from flanneld_py.kernel.device import Device, ensure_device
from flanneld_py.kernel.host import read_interfaces, read_routes
from flanneld_py.kernel.vxlan import has_vxlan, vxlan_options
from tests.host import ADDRESS, ADDRESS6, IPV4, IPV6, ONLINK, PERMANENT, SELF, UPLINK, mac, number, parse_prefix

pytestmark = pytest.mark.kernel

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:09"


def wanted(host, **changes):
    options = {"vni": 1, "port": 8472, "learning": False, "group_policy": False, "source": ip_address(ADDRESS)}
    options |= {key: changes.pop(key) for key in list(changes) if key in options}
    device = Device(
        "flannel.1",
        "vxlan",
        mac(MAC),
        1450,
        (host_prefix(ip_address("10.5.1.0")),),
        vxlan_options(parent=host.uplink, **options),
    )
    return replace(device, **changes)


@pytest.fixture
def gos(host):
    """The device as Go flannel leaves it, with a peer on it."""
    device = host.make_vxlan(mac=MAC)

    def fill(ipr):
        ipr.addr("add", index=device, address="10.5.1.0", prefixlen=32)
        ipr.fdb("add", ifindex=device, lladdr=OTHER, dst="172.30.0.12", flags=SELF, state=PERMANENT)
        ipr.neigh("add", ifindex=device, dst="10.5.2.0", lladdr=OTHER, state=PERMANENT)
        ipr.route("add", dst="10.5.2.0/24", gateway="10.5.2.0", oif=device, flags=ONLINK, proto=3)

    host.do(fill)
    return device


def peers(host, device):
    return host.fdb(device), host.neighbours(device), "10.5.2.0/24" in host.routes()


def described(host, name="flannel.1"):
    told = host.link(name)
    data = dict(told.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")["attrs"])
    return {
        "mac": told.get_attr("IFLA_ADDRESS"),
        "mtu": told.get_attr("IFLA_MTU"),
        "up": bool(told["flags"] & 1),
        "vni": data["IFLA_VXLAN_ID"],
        "parent": data["IFLA_VXLAN_LINK"],
        "local": data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6"),
        "port": data["IFLA_VXLAN_PORT"],
        "learning": data["IFLA_VXLAN_LEARNING"],
        "gbp": "IFLA_VXLAN_GBP" in data,
    }


def plain(host, **changes):
    return {
        "mac": MAC,
        "mtu": 1450,
        "up": True,
        "vni": 1,
        "parent": host.uplink,
        "local": ADDRESS,
        "port": 8472,
        "learning": 0,
        "gbp": False,
    } | changes


def test_created(host):
    made = ensure_device(host.sock, wanted(host))
    assert made.created
    assert made.mended == ()
    assert made.ifindex == host.index("flannel.1")
    assert described(host) == plain(host)
    assert host.addresses(made.ifindex) == {"10.5.1.0/32"}


def test_created_of_ipv6(host):
    device = wanted(host, source=ip_address(ADDRESS6), name="flannel-v6.1", mtu=1430)
    device = replace(device, addresses=(host_prefix(ip_address("fd42:0:0:1::")),))
    made = ensure_device(host.sock, device)
    assert described(host, "flannel-v6.1") == plain(host, mtu=1430, local=ADDRESS6)
    assert host.addresses(made.ifindex) == {"fd42:0:0:1::/128"}
    assert ensure_device(host.sock, device) == replace(made, created=False)


def test_created_with_every_option(host):
    ensure_device(host.sock, wanted(host, vni=0xABCDEF, port=4789, learning=True, group_policy=True))
    assert described(host) == plain(host, vni=0xABCDEF, port=4789, learning=1, gbp=True)
    again = ensure_device(host.sock, wanted(host, vni=0xABCDEF, port=4789, learning=True, group_policy=True))
    assert (again.created, again.mended) == (False, ())


def test_second_look_changes_nothing(host):
    first = ensure_device(host.sock, wanted(host))
    second = ensure_device(host.sock, wanted(host))
    assert second == replace(first, created=False)


def test_gos_device_is_adopted_as_it_is(host, gos):
    before = host.link("flannel.1"), peers(host, gos)
    found = ensure_device(host.sock, wanted(host))
    assert (found.ifindex, found.created, found.mended) == (gos, False, ())
    assert peers(host, gos) == before[1] == ({OTHER: "172.30.0.12"}, {"10.5.2.0": OTHER}, True)


def test_device_made_by_ip_as_go_flannel_does_is_adopted(host):
    kind = f"type vxlan id 1 dev {UPLINK} local {ADDRESS} dstport 8472 nolearning"
    host.ip(f"link add flannel.1 address {MAC} mtu 1450 {kind}")
    host.ip("addr add 10.5.1.0/32 dev flannel.1")
    host.ip("link set flannel.1 up")
    found = ensure_device(host.sock, wanted(host))
    assert (found.created, found.mended) == (False, ())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"address": OTHER}, ("mac",)),
        ({"mtu": 1400}, ("mtu",)),
        ({"mtu": 1400, "address": OTHER}, ("mac", "mtu")),
    ],
)
def test_mac_and_mtu_are_mended_in_place(host, gos, change, what):
    host.do(lambda ipr: ipr.link("set", index=gos, **change))
    found = ensure_device(host.sock, wanted(host))
    assert (found.ifindex, found.created, found.mended) == (gos, False, what)
    assert described(host) == plain(host)
    # With these the kernel itself takes the neighbours away.
    assert host.fdb(gos) == {OTHER: "172.30.0.12"}


def test_device_that_somebody_made_a_bridges_port_is_none_any_more(host, gos):
    host.ip("link add br0 type bridge")
    host.ip("link set flannel.1 master br0")
    found = ensure_device(host.sock, wanted(host))
    assert (found.ifindex, found.created, found.mended) == (gos, False, ("master",))
    assert host.link("flannel.1").get_attr("IFLA_MASTER") is None
    assert ensure_device(host.sock, wanted(host)).mended == ()


def test_device_that_asks_for_no_neighbours_any_more_does_so_again(host, gos):
    host.ip("link set flannel.1 arp off")
    found = ensure_device(host.sock, wanted(host))
    assert (found.ifindex, found.created, found.mended) == (gos, False, ("arp",))
    assert not host.link("flannel.1")["flags"] & ifinfmsg.IFF_NOARP
    assert ensure_device(host.sock, wanted(host)).mended == ()


def test_device_that_is_down_comes_up(host, gos):
    host.do(lambda ipr: ipr.link("set", index=gos, state="down"))
    found = ensure_device(host.sock, wanted(host))
    assert (found.ifindex, found.created, found.mended) == (gos, False, ("up",))
    assert described(host)["up"]


def test_ipv6_device_that_was_down_has_its_address_back(host):
    device = replace(
        wanted(host, source=ip_address(ADDRESS6), name="flannel-v6.1", mtu=1430),
        addresses=(host_prefix(ip_address("fd42:0:0:1::")),),
    )
    made = ensure_device(host.sock, device)
    host.do(lambda ipr: ipr.link("set", index=made.ifindex, state="down"))
    found = ensure_device(host.sock, device)
    assert set(found.mended) == {"address", "up"}
    assert host.addresses(made.ifindex) == {"fd42:0:0:1::/128"}


@pytest.mark.parametrize("text", ["10.5.1.0/32", "10.5.9.0/32", "10.5.1.0/24", "10.5.1.1/32"])
def test_addresses_are_just_the_wanted_ones(host, gos, text):
    def vandalise(ipr):
        ipr.addr("del", index=gos, address="10.5.1.0", prefixlen=32)
        if text != "10.5.1.0/32":
            base, length = text.split("/")
            ipr.addr("add", index=gos, address=base, prefixlen=int(length))

    host.do(vandalise)
    found = ensure_device(host.sock, wanted(host))
    assert (found.created, found.mended) == (False, ("address",))
    assert host.addresses(gos) == {"10.5.1.0/32"}
    # With these the kernel itself takes the neighbours away.
    assert host.fdb(gos) == {OTHER: "172.30.0.12"}


@pytest.mark.parametrize(
    "make",
    [
        lambda host: host.make_vxlan(vni=2),
        lambda host: host.make_vxlan(port=4789),
        lambda host: host.make_vxlan(vxlan_local="172.30.0.99"),
        lambda host: host.make_vxlan(vxlan_gbp=True),
        lambda host: host.do(lambda ipr: ipr.link("add", ifname="flannel.1", kind="bridge")),
    ],
    ids=["vni", "port", "source", "group policy", "kind"],
)
def test_device_of_another_make_is_replaced(host, make):
    make(host)
    before = host.index("flannel.1")
    made = ensure_device(host.sock, wanted(host))
    assert made.created
    assert made.ifindex != before
    assert described(host) == plain(host)


def test_device_that_learns_is_replaced(host):
    host.ip(f"link add flannel.1 type vxlan id 1 dev {UPLINK} local {ADDRESS} dstport 8472 learning")
    assert ensure_device(host.sock, wanted(host)).created
    assert described(host)["learning"] == 0


def test_device_that_was_renamed_gets_its_name_back_with_all_that_is_on_it(host, gos):
    before = peers(host, gos)
    try:
        host.do(lambda ipr: ipr.link("set", index=gos, ifname="foo0"))
    except NetlinkError as error:
        if error.code != errno.EBUSY:
            raise
        pytest.skip("this kernel renames no device that is up: Linux 6.2 does")
    ensured = ensure_device(host.sock, wanted(host))
    assert (ensured.ifindex, ensured.created, ensured.mended) == (gos, False, ("name",))
    assert host.index("flannel.1") == gos
    assert peers(host, gos) == before
    assert all(before)


@pytest.mark.guest
def test_device_that_was_down_to_be_renamed_gets_its_name_back(host, gos):
    entries = host.fdb(gos)
    for words in ("flannel.1 down", "flannel.1 name foo0", "foo0 up"):
        host.ip(f"link set {words}")
    ensured = ensure_device(host.sock, wanted(host))
    assert (ensured.ifindex, ensured.created, ensured.mended) == (gos, False, ("name",))
    assert host.index("flannel.1") == gos
    assert described(host) == plain(host)
    assert host.fdb(gos) == entries
    assert entries


def test_port_that_a_program_has_is_told_in_words(host):
    def take():
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("0.0.0.0", 8472))
        return taken

    with host.namespace.run(take), pytest.raises(KernelError, match="another program has its UDP port"):
        ensure_device(host.sock, wanted(host))
    assert ensure_device(host.sock, wanted(host)).mended == ("up",)


def test_vni_that_another_device_has_is_refused_in_words(host):
    host.make_vxlan("calico.1", mac=OTHER)
    with pytest.raises(
        KernelError,
        match=r"create vxlan device flannel\.1: .*VNI already exists: `ip -d link show type vxlan` shows it",
    ):
        ensure_device(host.sock, wanted(host))
    assert host.index("flannel.1") is None


def test_this_kernel_has_vxlan_and_asking_makes_no_device(host):
    assert has_vxlan(host.sock)
    assert {found.name for found in link.read_links(host.sock)} == {"lo", UPLINK, "far0"}


def test_links_as_others_see_them(host):
    device = host.make_vxlan(mac=MAC)
    for found in link.read_links(host.sock):
        told = host.link(found.name)
        assert found.ifindex == told["index"]
        assert found.flags == told["flags"]
        assert found.mtu == told.get_attr("IFLA_MTU")
        assert found.mac.hex(":") == told.get_attr("IFLA_ADDRESS")
    vxlan = link.read_link(host.sock, "flannel.1")
    assert vxlan == link.read_link_at(host.sock, device)
    assert (vxlan.ifindex, vxlan.kind, vxlan.mac, vxlan.is_up) == (device, "vxlan", mac(MAC), True)


def test_link_that_is_not_there(host):
    assert link.read_link(host.sock, "nowhere0") is None
    assert link.read_link_at(host.sock, 999) is None
    link.delete_link(host.sock, 999)
    with pytest.raises(KernelError) as caught:
        link.create_link(host.sock, UPLINK, "bridge")
    assert caught.value.errno == 17


def test_link_deleted(host):
    device = host.make_vxlan()
    link.delete_link(host.sock, device)
    assert host.index("flannel.1") is None


def test_addresses_as_others_see_them(host):
    device = host.make_vxlan()
    entries = [
        address.InterfaceAddress(device, IPV4, number("10.5.1.0"), 32),
        address.InterfaceAddress(device, IPV4, number("10.5.77.1"), 24),
        address.InterfaceAddress(device, IPV6, number("fd42::1"), 64),
    ]
    for entry in entries * 2:
        address.ensure_address(host.sock, entry)
    assert host.addresses(device) == {"10.5.1.0/32", "10.5.77.1/24", "fd42::1/64"}
    told = host.do(lambda ipr: [entry.get_attr("IFA_BROADCAST") for entry in ipr.get_addr(index=device, family=2)])
    assert set(told) == {None, "10.5.77.255"}
    found = address.read_addresses(host.sock, device)
    assert {entry[:5] for entry in found if entry.scope == 0} == {entry[:5] for entry in entries}
    for entry in entries * 2:
        address.delete_address(host.sock, entry)
    assert host.addresses(device) == set()


def test_addresses_that_others_make(host):
    host.do(lambda ipr: ipr.addr("add", index=host.uplink, address="192.168.7.1", local="192.168.7.2", prefixlen=32))
    found = {(entry.address, entry.length) for entry in address.read_addresses(host.sock, host.uplink)}
    assert {(number(ADDRESS), 16), (number("192.168.7.2"), 32), (number(ADDRESS6), 64)} <= found


def test_refused_address_says_so(host):
    with pytest.raises(KernelError, match="add an address to device 999"):
        address.ensure_address(host.sock, address.InterfaceAddress(999, IPV4, 1, 32))


def test_host_as_the_choice_of_the_uplink_sees_it(host):
    host.do(lambda ipr: ipr.addr("add", index=host.uplink, address="172.30.0.99", prefixlen=16))
    host.do(lambda ipr: ipr.route("add", dst="default", gateway="172.30.0.1"))
    interfaces = {found.name: found for found in read_interfaces(host.sock)}
    assert set(interfaces) == {UPLINK, "far0"}
    uplink = interfaces[UPLINK]
    assert (uplink.ifindex, uplink.mtu, uplink.is_up) == (host.uplink, 1500, True)
    assert (str(uplink.address(IPV4)), str(uplink.address(IPV6))) == (ADDRESS, ADDRESS6)
    # A secondary address comes and goes with the first one.
    assert {str(prefix) for prefix in uplink.prefixes} == {"172.30.0.0/16", "fd30::/64"}
    assert [entry.is_global for entry in uplink.addresses if str(entry.address) == "172.30.0.99"] == [False]
    routes = {str(found.dst): found for found in read_routes(host.sock)}
    assert routes["0.0.0.0/0"].gateway == number("172.30.0.1")
    assert routes["172.30.0.0/16"].ifindex == host.uplink
    assert routes["fd30::/64"].ifindex == host.uplink
    assert parse_prefix("127.0.0.0/8") not in {found.dst for found in routes.values()}
