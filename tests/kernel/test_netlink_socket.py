import errno
import itertools

import pytest

from flanneld_py.core.entries import Neighbour, Route
from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import link, neighbour, netlink, route
from flanneld_py.kernel.netlink import Request
from flanneld_py.kernel.netlink_socket import NetlinkSocket
from tests.host import IPV4, number, parse_prefix

pytestmark = pytest.mark.kernel


def make_route(index, device, gateway=None):
    subnet = parse_prefix(f"10.{64 + index // 250}.{index % 250}.0/24")
    return Route(subnet, 0, 0, gateway or subnet.address, device, gateway is None)


def good(device, index=1):
    return route.encode_replace(make_route(index, device))


NOWHERE = number("198.51.100.1")


def test_errors_come_by_index_and_the_others_apply(host):
    device = host.make_vxlan()
    # A gateway that no device leads to is refused.
    bad = [route.encode_replace(make_route(index, 0, NOWHERE)) for index in range(3)]
    failed = host.sock.execute_batch([bad[0], good(device, 10), bad[1], good(device, 11), bad[2]])
    assert {index: code for index, (code, _) in failed.items()} == dict.fromkeys((0, 2, 4), errno.ENETUNREACH)
    assert {"10.64.10.0/24", "10.64.11.0/24"} <= host.routes().keys()
    assert not {"10.64.0.0/24", "10.64.1.0/24", "10.64.2.0/24"} & host.routes().keys()


def test_error_in_the_kernels_own_words(host):
    failed = host.sock.execute_batch([route.encode_replace(make_route(1, 0, NOWHERE))])
    assert failed == {0: (errno.ENETUNREACH, "Nexthop has invalid gateway")}
    with pytest.raises(KernelError) as caught:
        host.sock.execute(route.encode_replace(make_route(1, 0, NOWHERE)), "write the route to 10.64.1.0/24")
    assert caught.value.errno == errno.ENETUNREACH
    assert caught.value.operation == "write the route to 10.64.1.0/24"
    assert "write the route to 10.64.1.0/24: Nexthop has invalid gateway" in str(caught.value)


def test_error_where_the_kernel_has_no_words(host):
    request = neighbour.encode_delete_neighbour(Neighbour(host.uplink, IPV4, number("172.30.0.77"), b""))
    assert host.sock.execute_batch([request]) == {0: (errno.ENOENT, "No such file or directory")}


def test_empty_batch_is_nothing(host):
    assert host.sock.execute_batch([]) == {}


def test_a_large_batch_in_which_all_fail_is_answered_whole(host):
    requests = [route.encode_replace(make_route(index, 0, NOWHERE)) for index in range(200)]
    failed = host.sock.execute_batch(requests)
    assert sorted(failed) == list(range(200))
    assert host.sock.execute_batch([good(host.make_vxlan())]) == {}


def test_answers_of_an_earlier_request_are_no_answers_of_a_later(host):
    # As after a batch whose reading was broken off: its answers are still in the socket.
    host.sock._socket.send(netlink.encode_request(Request(99, 0, b"\0" * 16), 1, netlink.NLM_F_ACK))
    host.sock._sequence = 5
    device = host.make_vxlan()
    assert host.sock.execute_batch([good(device)]) == {}
    host.sock._socket.send(netlink.encode_request(Request(99, 0, b"\0" * 16), 1, netlink.NLM_F_ACK))
    assert link.read_link(host.sock, "flannel.1").ifindex == device
    host.sock._socket.send(netlink.encode_request(Request(99, 0, b"\0" * 16), 1, netlink.NLM_F_ACK))
    assert "flannel.1" in {found.name for found in link.read_links(host.sock)}


def test_dump_of_some_thousand_routes_in_steps(host):
    device = host.make_vxlan()
    count = 5000
    written = [make_route(index, device) for index in range(count)]
    for start in range(0, count, 200):
        assert host.sock.execute_batch([route.encode_replace(entry) for entry in written[start : start + 200]]) == {}
    steps = [len(found) for found in host.sock.dump_steps(route.encode_dump(IPV4), route.decode, "read")]
    assert len(steps) > 5
    assert steps == sorted(steps)
    found = host.sock.dump(route.encode_dump(IPV4), route.decode, "read")
    assert {entry for entry in found if entry.protocol == 119} == set(written)
    assert len(found) == count + 1


class Interrupted(NetlinkSocket):
    """The first reads of a table are marked as interrupted, as when it changes meanwhile."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def _receive(self):
        data = bytearray(super()._receive())
        if self.left:
            kind, flags = (int.from_bytes(data[at : at + 2], "little") for at in (4, 6))
            data[6:8] = (flags | netlink.NLM_F_DUMP_INTR).to_bytes(2, "little")
            offset, kinds = 0, []
            while offset < len(data):
                kinds.append(int.from_bytes(data[offset + 4 : offset + 6], "little"))
                offset += (int.from_bytes(data[offset : offset + 4], "little") + 3) & ~3
            assert kind == kinds[0]
            self.left -= netlink.NLMSG_DONE in kinds
        return memoryview(bytes(data))


def test_interrupted_dump_is_read_anew_without_duplicates(host):
    with host.namespace.run(Interrupted, 3) as sock:
        found = [entry.name for entry in sock.dump(Request(18, 0, link.link_message()), link.decode_link, "read")]
        assert sorted(found) == ["eth0", "far0", "lo"]
        assert sock.left == 0


def test_dump_that_is_always_interrupted_is_an_error(host):
    with host.namespace.run(Interrupted, 1000) as sock, pytest.raises(KernelError, match="changed during each"):
        link.read_links(sock)


def test_refused_dump_is_an_error(host):
    # Strict checking: a link dump with a broken header.
    with pytest.raises(KernelError) as caught:
        host.sock.dump(Request(18, 0, b"\0" * 4), link.decode_link, "read devices")
    assert caught.value.errno == errno.EINVAL


def test_dump_broken_off_half_way_does_not_spoil_the_next(host):
    device = host.make_vxlan()
    for start in range(0, 2000, 200):
        host.sock.execute_batch([good(device, index) for index in range(start, start + 200)])
    next(host.sock.dump_steps(route.encode_dump(IPV4), route.decode, "read"))
    # The kernel refuses a second dump while one is under way (EBUSY), or ends the first: both are told.
    for attempt in itertools.count():
        try:
            found = link.read_link(host.sock, "flannel.1")
            break
        except KernelError:
            assert attempt < 100
    assert found.ifindex == device


def test_query_tells_what_is_not_there(host):
    with pytest.raises(KernelError) as caught:
        host.sock.query(Request(18, 0, link.link_message(999)), "read device 999")
    assert caught.value.errno == errno.ENODEV
