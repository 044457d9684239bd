"""ICMP echo messages (RFC 792, and RFC 4443 for IPv6), encoded and decoded. Pure.

A raw ICMPv6 socket gives messages without their IP header, and the kernel writes and checks their checksums, which
cover addresses that only it knows (RFC 3542, section 3.1).
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

ECHO_REPLY = 0
ECHO_REQUEST = 8
ECHO_REPLY6 = 129
ECHO_REQUEST6 = 128
HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number


@dataclass(frozen=True, slots=True)
class EchoReply:
    """A reply, and who sent it."""

    source: IPv4Address | IPv6Address
    identifier: int
    sequence: int


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def encode_echo_request(identifier: int, sequence: int, payload: bytes) -> bytes:
    """Return an echo request without its IP header."""
    blank = HEADER.pack(ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    return HEADER.pack(ECHO_REQUEST, 0, checksum(blank), identifier, sequence) + payload


def decode_echo_reply(packet: bytes) -> EchoReply | None:
    """Return the reply in an IPv4 packet as a raw socket gives it; None if it holds something else or is damaged."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    message = packet[(packet[0] & 0xF) * 4 :]
    if len(message) < HEADER.size or checksum(message) != 0:
        return None
    kind, _, _, identifier, sequence = HEADER.unpack_from(message)
    return EchoReply(IPv4Address(packet[12:16]), identifier, sequence) if kind == ECHO_REPLY else None


def encode_echo_request6(identifier: int, sequence: int, payload: bytes) -> bytes:
    """Return an echo request for a raw ICMPv6 socket."""
    return HEADER.pack(ECHO_REQUEST6, 0, 0, identifier, sequence) + payload


def decode_echo_reply6(message: bytes, source: str) -> EchoReply | None:
    """Return the reply that a raw ICMPv6 socket gave, with its sender's address; None if it holds something else."""
    if len(message) < HEADER.size:
        return None
    kind, _, _, identifier, sequence = HEADER.unpack_from(message)
    return EchoReply(IPv6Address(source), identifier, sequence) if kind == ECHO_REPLY6 else None
