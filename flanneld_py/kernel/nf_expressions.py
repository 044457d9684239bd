"""What rules of nf_tables are made of: expressions that load, compare, look up, count and decide.

Owns how they are written and how a counter is read (include/uapi/linux/netfilter/nf_tables.h); rules, chains and sets
are `nf_tables`'. It imports next to nothing, because the CNI plugin pays for every import.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.kernel import netlink, nf_tables
from flanneld_py.kernel.nf_tables import number, text

if TYPE_CHECKING:
    from flanneld_py.kernel.netlink import Message

LINK, NETWORK, TRANSPORT = 0, 1, 2
"""Where the offset of a payload begins."""

META_MARK = 3
META_NFPROTO = 15
META_L4PROTO = 16

FIRST = 1
"""NFT_REG_1, the register that everything is loaded to, and compared and looked up in."""

_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2


def load(base: int, offset: int, length: int, register: int = FIRST) -> bytes:
    """Load bytes of the packet; a rule ends without effect where the packet is shorter."""
    return expression(
        "payload",
        number(1, register),
        number(2, base),
        number(3, offset),
        number(4, length),
    )


def register(word: int) -> int:
    """Return the register that begins with this word of four bytes, as the kernel names it when it is asked."""
    return 8 + word if word % 4 else FIRST + word // 4


def load_meta(key: int) -> bytes:
    """Load what is known of the packet beside its bytes."""
    return expression("meta", number(1, FIRST), number(2, key))


def mask(value: bytes, register: int = FIRST) -> bytes:
    """Take the loaded bytes as far as this mask has bits."""
    zeros = bytes(len(value))
    return expression(
        "bitwise",
        number(1, register),
        number(2, register),
        number(3, len(value)),
        netlink.encode_nested(4, netlink.encode_attribute(1, value)),
        netlink.encode_nested(5, netlink.encode_attribute(1, zeros)),
    )


def compare(value: bytes, *, equal: bool = True) -> bytes:
    """Go on only if the loaded bytes are, or are not, these."""
    data = netlink.encode_nested(3, netlink.encode_attribute(1, value))
    return expression("cmp", number(1, FIRST), number(2, 0 if equal else 1), data)


def load_extension(header: int, offset: int, length: int) -> bytes:
    """Load bytes of an IPv6 extension header; a rule ends without effect where the packet has none."""
    return expression(
        "exthdr",
        number(1, FIRST),
        netlink.encode_u8(2, header),
        number(3, offset),
        number(4, length),
    )


def look_up(name: str, *, inverted: bool = False) -> bytes:
    """Go on only if the loaded bytes are in a set, or are not."""
    flags = (number(5, 1),) if inverted else ()
    return expression("lookup", text(1, name), number(2, FIRST), *flags)


def verdict(code: int, chain: str = "") -> bytes:
    """End with a verdict."""
    target = (text(2, chain),) if chain else ()
    data = netlink.encode_nested(2, netlink.encode_nested(2, number(1, code), *target))
    return expression("immediate", number(1, 0), data)


def counter() -> bytes:
    """Count what comes here."""
    return expression("counter")


def expression(name: str, *attributes: bytes) -> bytes:
    """Write any expression as the element of a rule."""
    data = (netlink.encode_nested(2, *attributes),) if attributes else ()
    return netlink.encode_nested(nf_tables.LIST_ELEMENT, text(1, name), *data)


def decode_count(answer: Message) -> tuple[str, int]:
    """Read a rule as its comment and how many packets it has counted."""
    attributes = netlink.decode_attributes(nf_tables.payload_of(answer))
    said = bytes(attributes.get(nf_tables.RULE_USERDATA, b""))
    comment = said[2:].rstrip(b"\0").decode(errors="replace") if said[:1] == bytes((nf_tables.COMMENT,)) else ""
    for _, _, value in netlink.walk_attributes(attributes.get(nf_tables.RULE_EXPRESSIONS, memoryview(b""))):
        counted = decode_counter(value)
        if counted is not None:
            return comment, counted[0]
    return comment, 0


def decode_counter(value: memoryview) -> tuple[int, int] | None:
    """Read an expression as the packets and bytes that it has counted; None if it is no counter."""
    part = netlink.decode_attributes(value)
    if netlink.decode_text(part[1]) != "counter":
        return None
    counted = netlink.decode_attributes(part[2])
    return int.from_bytes(counted[_COUNTER_PACKETS], "big"), int.from_bytes(counted[_COUNTER_BYTES], "big")
