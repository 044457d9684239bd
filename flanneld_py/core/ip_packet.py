"""IPv4 packets as bytes: the time to live, and the ICMP messages about those that go no further (RFC 791, 792, 1624).

For data paths of our own; the kernel's devices need none of this.
"""

from __future__ import annotations

IPV4_HEADER = 20
ICMP_UNREACHABLE = 3
ICMP_TIME_EXCEEDED = 11
NET_UNREACHABLE = 0
FRAGMENTATION_NEEDED = 4
TTL_EXCEEDED = 0

_TTL = 8
_PROTOCOL = 9
_CHECKSUM = 10
_PROTOCOL_ICMP = 1
_DONT_FRAGMENT = 0x40
_OFFSET_BITS = 0x1F
_QUOTED = 8
"""Bytes of the payload that an ICMP message quotes beside the header."""


def decrement_ttl(packets: bytearray, start: int) -> bool:
    """Take one off the time to live of the packet at `start`, in place; False if it must not go on."""
    ttl = packets[start + _TTL]
    if ttl <= 1:
        return False
    packets[start + _TTL] = ttl - 1
    high = start + _CHECKSUM
    if packets[high] != 0xFF:
        packets[high] += 1
        return True
    # The carry out of the ones' complement sum comes in again at its other end.
    low = packets[high + 1] + 1
    packets[high], packets[high + 1] = low >> 8, low & 0xFF
    return True


def may_fragment(packet: bytes | bytearray | memoryview) -> bool:
    """Say whether a packet may be cut into fragments on its way."""
    return not packet[6] & _DONT_FRAGMENT


def checksum(data: bytes) -> int:
    """Return the Internet checksum of data of even length (RFC 1071)."""
    # A number's remainder by 0xFFFF is the ones' complement sum of its 16-bit digits, but for 0 and 0xFFFF.
    total = int.from_bytes(data, "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def make_icmp_error(packet: bytes, kind: int, code: int, mtu: int = 0) -> tuple[int, bytes] | None:
    """Return the sender of `packet`, and the ICMP message that says why it goes no further; None where none must be.

    `mtu` is for FRAGMENTATION_NEEDED (RFC 1191). Nothing is said about ICMP messages, later fragments, or senders that
    are nobody (RFC 1122, 3.2.2).
    """
    length = (packet[0] & 0x0F) * 4
    is_first = not (packet[6] & _OFFSET_BITS or packet[7])
    sender = int.from_bytes(packet[12:16], "big")
    is_somebody = 0 < sender >> 24 < 224
    if (
        packet[_PROTOCOL] == _PROTOCOL_ICMP
        or not is_first
        or not is_somebody
        or not IPV4_HEADER <= length <= len(packet)
    ):
        return None
    quoted = packet[: length + _QUOTED]
    body = bytes((kind, code, 0, 0, 0, 0)) + mtu.to_bytes(2, "big") + quoted + bytes(len(quoted) % 2)
    return sender, body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
