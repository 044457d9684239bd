"""The codec without a kernel: what pyroute2 writes we read, what we write pyroute2 reads."""

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from flanneld_py.core.entries import FdbEntry, Neighbour, Nexthop, Route
from flanneld_py.core.prefix import IPV4, IPV6, Prefix, bits, format_address, make_address
from flanneld_py.kernel import address, link, neighbour, netlink, nexthop, route
from flanneld_py.kernel.ndmsg import RTM_NEWNEIGH
from flanneld_py.kernel.netlink import Message, Request

FAMILIES = st.sampled_from([IPV4, IPV6])
INDEXES = st.integers(1, 2**31 - 1)
MACS = st.binary(min_size=6, max_size=6)


def addresses(family):
    return st.integers(1, (1 << bits(family)) - 1)


@st.composite
def prefixes(draw, family):
    length = draw(st.integers(0, bits(family)))
    return Prefix(family, draw(st.integers(0, (1 << length) - 1)) << (bits(family) - length), length)


@st.composite
def routes(draw):
    family = draw(FAMILIES)
    dst, metric = draw(prefixes(family)), draw(st.integers(0, 2**32 - 1))
    protocol = draw(st.integers(0, 255))
    if draw(st.booleans()):
        return Route(dst, metric, draw(st.integers(1, 2**32 - 1)), 0, 0, False, protocol)
    gateway = draw(st.just(0) | addresses(family))
    return Route(dst, metric, 0, gateway, draw(INDEXES), bool(gateway) and draw(st.booleans()), protocol)


def sent(request):
    """The request as the kernel would hand it back."""
    data = netlink.encode_request(request, 7)
    [message] = netlink.decode_messages(memoryview(data))
    assert message.sequence == 7
    assert message.flags == request.flags | netlink.NLM_F_REQUEST
    return message


def read_by_pyroute2(kind, request):
    message = kind(netlink.encode_request(request, 1))
    message.decode()
    return message


def written_by_pyroute2(message, kind):
    message["header"]["type"] = kind
    message.encode()
    [decoded] = netlink.decode_messages(memoryview(bytes(message.data)))
    return decoded


def parsed(text):
    # pyroute2 writes some IPv6 addresses in another form.
    return text and ip_address(text)


@given(routes())
def test_route_and_back(entry):
    assert route.decode(sent(route.encode_replace(entry))) == entry


@given(st.builds(lambda family, data: (family, data), FAMILIES, st.data()), INDEXES, MACS)
def test_neighbour_and_back(drawn, ifindex, lladdr):
    family, data = drawn
    entry = Neighbour(ifindex, family, data.draw(addresses(family)), lladdr)
    message = sent(neighbour.encode_replace_neighbour(entry))
    assert neighbour.decode_neighbour(message) == entry
    assert neighbour.decode_fdb(message) is None
    assert neighbour.decode_header(message)[1:] == (ifindex, True)


@given(FAMILIES, st.data(), INDEXES, MACS)
def test_fdb_entry_and_back(family, data, ifindex, lladdr):
    entry = FdbEntry(ifindex, lladdr, family, data.draw(addresses(family)))
    message = sent(neighbour.encode_replace_fdb(entry))
    assert neighbour.decode_fdb(message) == entry
    assert neighbour.decode_neighbour(message) is None


@given(FAMILIES, st.data(), st.integers(1, 2**32 - 1), INDEXES, st.booleans())
def test_nexthop_and_back(family, data, ident, ifindex, onlink):
    entry = Nexthop(ident, family, data.draw(addresses(family)), ifindex, onlink)
    message = sent(nexthop.encode_replace(entry))
    assert nexthop.decode(message) == entry
    assert nexthop.decode_id(message) == ident


@given(FAMILIES, st.data(), INDEXES)
def test_address_and_back(family, data, ifindex):
    length = data.draw(st.integers(0, bits(family)))
    entry = address.InterfaceAddress(ifindex, family, data.draw(addresses(family)), length)
    decoded = address.decode_address(sent(address.encode_add(entry)))
    assert decoded[:5] == entry[:5]
    assert address.decode_address(sent(address.encode_delete(entry)))[:5] == entry[:5]


@given(routes())
def test_pyroute2_reads_our_routes(entry):
    message = read_by_pyroute2(rtmsg, route.encode_replace(entry))
    dst = entry.dst
    assert message["family"] == {IPV4: 2, IPV6: 10}[dst.family]
    assert (parsed(message.get_attr("RTA_DST")), message["dst_len"]) == (dst.base, dst.length)
    assert (message["proto"], message["type"], message["table"]) == (entry.protocol, entry.type, 254)
    assert (message.get_attr("RTA_PRIORITY") or 0) == entry.metric
    assert (message.get_attr("RTA_OIF") or 0) == entry.ifindex
    gateway = make_address(dst.family, entry.gateway) if entry.gateway else None
    assert parsed(message.get_attr("RTA_GATEWAY")) == gateway
    assert bool(message["flags"] & 4) == entry.onlink


@given(FAMILIES, st.data(), INDEXES, MACS)
def test_pyroute2_reads_our_neighbours_and_fdb_entries(family, data, ifindex, lladdr):
    remote = data.draw(addresses(family))
    for request, flags in (
        (neighbour.encode_replace_neighbour(Neighbour(ifindex, family, remote, lladdr)), 0),
        (neighbour.encode_replace_fdb(FdbEntry(ifindex, lladdr, family, remote)), 2),
    ):
        message = read_by_pyroute2(ndmsg, request)
        assert (message["ifindex"], message["state"], message["flags"]) == (ifindex, 0x80, flags)
        assert message.get_attr("NDA_LLADDR") == lladdr.hex(":")
        if not flags:
            assert parsed(message.get_attr("NDA_DST")) == make_address(family, remote)


@given(FAMILIES, st.data(), INDEXES, st.booleans())
def test_we_read_pyroute2s_routes(family, data, ifindex, onlink):
    dst, gateway = data.draw(prefixes(family)), data.draw(addresses(family))
    message = rtmsg()
    message["family"] = {IPV4: 2, IPV6: 10}[family]
    message["dst_len"] = dst.length
    message["table"], message["proto"], message["type"] = 254, 3, 1
    message["flags"] = 4 if onlink else 0
    message["attrs"] = [
        ("RTA_PRIORITY", 9),
        ("RTA_GATEWAY", format_address(family, gateway)),
        ("RTA_DST", format_address(family, dst.address)),
        ("RTA_OIF", ifindex),
    ]
    decoded = written_by_pyroute2(message, route.RTM_NEWROUTE)
    assert route.decode(decoded) == Route(dst, 9, 0, gateway, ifindex, onlink, 3)


@given(FAMILIES, st.data(), INDEXES, MACS)
def test_we_read_pyroute2s_neighbours(family, data, ifindex, lladdr):
    value = data.draw(addresses(family))
    message = ndmsg()
    message["family"], message["ifindex"], message["state"] = {IPV4: 2, IPV6: 10}[family], ifindex, 0x80
    message["attrs"] = [("NDA_LLADDR", lladdr.hex(":")), ("NDA_DST", format_address(family, value))]
    decoded = written_by_pyroute2(message, RTM_NEWNEIGH)
    assert neighbour.decode_neighbour(decoded) == Neighbour(ifindex, family, value, lladdr)


@given(FAMILIES, st.data(), INDEXES)
def test_we_read_pyroute2s_addresses(family, data, ifindex):
    value = data.draw(addresses(family))
    message = ifaddrmsg()
    message["family"], message["index"], message["prefixlen"] = {IPV4: 2, IPV6: 10}[family], ifindex, 24
    message["attrs"] = [("IFA_ADDRESS", format_address(family, value)), ("IFA_FLAGS", 0x82)]
    decoded = written_by_pyroute2(message, address.RTM_NEWADDR)
    assert address.decode_address(decoded) == address.InterfaceAddress(ifindex, family, value, 24, 0, 0x82)


@given(st.text("abcxyz.0129-", min_size=1, max_size=15), MACS, st.integers(68, 65535))
def test_we_read_pyroute2s_links(name, mac, mtu):
    message = ifinfmsg()
    message["index"], message["flags"] = 5, 1
    message["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_ADDRESS", mac.hex(":")),
        ("IFLA_LINK", 2),
        ("IFLA_MASTER", 9),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "vxlan")]}),
    ]
    found = link.decode_link(written_by_pyroute2(message, link.RTM_NEWLINK))
    assert (found.ifindex, found.name, found.mtu, found.mac, found.kind) == (5, name, mtu, mac, "vxlan")
    assert (found.is_up, found.parent, found.master) == (True, 2, 9)


@given(st.lists(st.tuples(st.integers(1, 100), st.binary(max_size=9)), unique_by=lambda pair: pair[0]))
def test_attributes_and_back(pairs):
    data = b"".join(netlink.encode_attribute(kind, payload) for kind, payload in pairs)
    assert len(data) % 4 == 0
    assert {kind: bytes(value) for kind, value in netlink.decode_attributes(memoryview(data)).items()} == dict(pairs)
    [(kind, nested)] = netlink.decode_attributes(memoryview(netlink.encode_nested(9, data))).items()
    assert (kind, bytes(nested)) == (9, data)


def test_values_and_back():
    assert netlink.decode_u16(memoryview(netlink.encode_u16(1, 0xABCD))[4:6]) == 0xABCD
    assert netlink.decode_u32(memoryview(netlink.encode_u32(1, 0xABCDEF01))[4:]) == 0xABCDEF01
    assert netlink.decode_text(memoryview(netlink.encode_text(1, "flannel.1"))[4:]) == "flannel.1"
    assert bytes(netlink.encode_u8(1, 7)) == b"\x05\0\x01\0\x07\0\0\0"


def test_several_messages_in_one_read_with_padding_between():
    one = struct.pack("=IHHII", 19, 5, 1, 2, 3) + b"abc\0"
    two = struct.pack("=IHHII", 16, 6, 1, 3, 3)
    messages = list(netlink.decode_messages(memoryview(one + two)))
    assert [(message.kind, message.sequence, bytes(message.payload)) for message in messages] == [
        (5, 2, b"abc"),
        (6, 3, b""),
    ]


DECODERS = (
    link.decode_link,
    address.decode_address,
    route.decode,
    neighbour.decode_neighbour,
    neighbour.decode_fdb,
    nexthop.decode,
)


@given(st.sampled_from(DECODERS), st.sampled_from([16, 20, 24, 28, 104]), st.binary(max_size=60))
def test_attributes_that_are_broken_are_left_out(decode, kind, tail):
    # The kernel writes whole fixed headers; what follows may be anything.
    header = {16: 16, 20: 8, 24: 12, 28: 12, 104: 8}[kind]
    payload = bytes([2]) + bytes(header - 1) + tail
    decode(Message(kind, 0, 1, 0, memoryview(payload)))


@given(st.binary(max_size=80))
def test_framing_of_garbage_ends(data):
    for message in netlink.decode_messages(memoryview(data)):
        netlink.decode_attributes(message.payload)


def error_message(errno, *, capped, words=b"", request_size=28):
    """struct nlmsgerr as the kernel writes it."""
    request = struct.pack("=IHHII", request_size, 24, 5, 1, 0) + bytes(0 if capped else request_size - 16)
    tail = netlink.encode_attribute(1, words + b"\0") if words else b""
    flags = (netlink.NLM_F_CAPPED if capped else 0) | (netlink.NLM_F_ACK_TLVS if words else 0)
    return Message(netlink.NLMSG_ERROR, flags, 1, 0, memoryview(struct.pack("=i", -errno) + request + tail))


def test_error_in_the_kernels_words():
    assert netlink.decode_error(error_message(0, capped=True)) == (0, "")
    assert netlink.decode_error(error_message(22, capped=True)) == (22, "")
    assert netlink.decode_error(error_message(22, capped=True, words=b"Invalid prefix")) == (22, "Invalid prefix")
    assert netlink.decode_error(error_message(22, capped=False, words=b"Invalid prefix")) == (22, "Invalid prefix")


def test_request_carries_extra_flags():
    data = netlink.encode_request(Request(24, 0x400, b"abcd"), 9, netlink.NLM_F_ACK)
    assert struct.unpack_from("=IHHII", data) == (20, 24, 0x400 | 0x4 | 0x1, 9, 0)
