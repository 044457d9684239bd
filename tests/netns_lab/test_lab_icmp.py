from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest

from netns_lab.icmp import (
    EchoReply,
    checksum,
    decode_echo_reply,
    decode_echo_reply6,
    encode_echo_request,
    encode_echo_request6,
)

SHORT = st.integers(0, 0xFFFF)


def reply(identifier=1, sequence=2, payload=b"abc", **fields):
    return bytes(IP(src="10.0.0.7", dst="10.0.0.8") / ICMP(type=0, id=identifier, seq=sequence, **fields) / payload)


@given(SHORT, SHORT, st.binary(max_size=200))
def test_a_request_is_what_scapy_makes(identifier, sequence, payload):
    assert encode_echo_request(identifier, sequence, payload) == bytes(
        ICMP(type=8, id=identifier, seq=sequence) / payload
    )


@given(SHORT, SHORT, st.binary(max_size=200))
def test_a_reply_is_read(identifier, sequence, payload):
    expected = EchoReply(IPv4Address("10.0.0.7"), identifier, sequence)
    assert decode_echo_reply(reply(identifier, sequence, payload)) == expected


def test_ip_options_are_skipped():
    packet = bytes(IP(src="10.0.0.7", options=b"\x01\x01\x01\x00") / ICMP(type=0, id=1, seq=2))
    assert decode_echo_reply(packet) == EchoReply(IPv4Address("10.0.0.7"), 1, 2)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        reply()[:24],
        b"\x60" + reply()[1:],
        reply(chksum=1),
        bytes(IP(src="10.0.0.7") / ICMP(type=8, id=1, seq=2)),
        bytes(IP(src="10.0.0.7") / ICMP(type=3, code=1)),
    ],
    ids=["empty", "cut short", "version 6", "damaged", "a request", "unreachable"],
)
def test_anything_else_is_no_reply(packet):
    assert decode_echo_reply(packet) is None


@given(st.binary(max_size=100))
def test_no_bytes_break_the_decoder(packet):
    decode_echo_reply(packet)


def test_the_checksum_of_rfc_1071():
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


@given(SHORT, SHORT, st.binary(max_size=200))
def test_an_ipv6_request_is_what_scapy_makes_but_for_the_checksum(identifier, sequence, payload):
    expected = bytes(ICMPv6EchoRequest(id=identifier, seq=sequence, data=payload, cksum=0))
    assert encode_echo_request6(identifier, sequence, payload) == expected


@given(SHORT, SHORT, st.binary(max_size=200))
def test_an_ipv6_reply_is_read(identifier, sequence, payload):
    message = bytes(ICMPv6EchoReply(id=identifier, seq=sequence, data=payload))
    assert decode_echo_reply6(message, "fd42::7") == EchoReply(IPv6Address("fd42::7"), identifier, sequence)


@pytest.mark.parametrize("message", [b"", b"\x81\0\0", bytes(ICMPv6EchoRequest()), bytes(ICMPv6DestUnreach())])
def test_anything_else_is_no_ipv6_reply(message):
    assert decode_echo_reply6(message, "fd42::7") is None
