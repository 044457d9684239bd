from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from flanneld_py.core.ip_packet import (
    FRAGMENTATION_NEEDED,
    ICMP_TIME_EXCEEDED,
    ICMP_UNREACHABLE,
    NET_UNREACHABLE,
    checksum,
    decrement_ttl,
    make_icmp_error,
    may_fragment,
)


def packet(**fields):
    return bytes(IP(src="10.5.2.7", dst="10.5.9.9", **fields) / UDP(sport=1, dport=2) / Raw(b"0123456789"))


@given(st.integers(2, 255), st.integers(0, 0xFFFF), st.integers(0, 9))
def test_time_to_live_falls_by_one_and_the_checksum_stays_right(ttl, ident, start):
    packets = bytearray(bytes(start) + packet(ttl=ttl, id=ident))
    assert decrement_ttl(packets, start)
    assert packets == bytes(start) + packet(ttl=ttl - 1, id=ident)


def test_checksum_stays_right_for_every_value():
    """The carry that comes in at the other end is too rare for chance."""
    header = bytearray(packet(ttl=9)[:20])
    for ident in range(0x10000):
        header[4:6], header[8], header[10:12] = ident.to_bytes(2, "big"), 9, bytes(2)
        header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
        decrement_ttl(header, 0)
        # Over a header with its own checksum the sum is one of the two zeros.
        assert checksum(bytes(header)) in {0, 0xFFFF}, ident


@pytest.mark.parametrize("ttl", [0, 1])
def test_packet_at_its_end_is_left_alone(ttl):
    packets = bytearray(packet(ttl=ttl))
    assert not decrement_ttl(packets, 0)
    assert packets == packet(ttl=ttl)


@given(st.binary(max_size=64).filter(lambda data: len(data) % 2 == 0))
def test_checksum_is_that_of_rfc_1071(data):
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == 0xFFFF - total


def test_answer_tells_the_sender_what_is_wrong_with_which_packet():
    offender = packet(ttl=3)
    sender, message = make_icmp_error(offender, ICMP_UNREACHABLE, NET_UNREACHABLE)
    answer = ICMP(message)
    assert IPv4Address(sender) == IPv4Address("10.5.2.7")
    assert (answer.type, answer.code, bytes(answer.payload)) == (3, 0, offender[:28])
    told = answer.chksum
    del answer.chksum
    assert ICMP(bytes(answer)).chksum == told


def test_answer_names_the_mtu_that_fits():
    _, message = make_icmp_error(packet(flags="DF"), ICMP_UNREACHABLE, FRAGMENTATION_NEEDED, 1400)
    assert (ICMP(message).code, ICMP(message).nexthopmtu) == (4, 1400)


@pytest.mark.parametrize(
    "offender",
    [
        bytes(IP(src="10.5.2.7", dst="10.5.9.9") / ICMP() / Raw(b"ping")),
        packet(frag=5),
        packet(frag=0x100),
        bytes(IP(src="224.0.0.5", dst="10.5.9.9") / UDP()),
        bytes(IP(src="0.0.0.0", dst="10.5.9.9") / UDP()),
        b"\x4f" + packet()[1:30],
    ],
    ids=["ICMP", "a later fragment", "a much later fragment", "from many", "from nobody", "cut off"],
)
def test_nothing_is_said_where_nothing_must_be(offender):
    assert make_icmp_error(offender, ICMP_TIME_EXCEEDED, 0) is None


def test_whoever_forbids_fragments_is_heard():
    assert may_fragment(packet())
    assert not may_fragment(packet(flags="DF"))


@given(st.binary(min_size=20, max_size=80))
def test_any_bytes_are_borne(data):
    answer = make_icmp_error(data, ICMP_TIME_EXCEEDED, 0)
    assert answer is None or checksum(answer[1]) in {0, 0xFFFF}
