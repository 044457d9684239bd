"""What nf_tables is told over netlink: tables, chains, rules and sets, and the expressions that rules are made of.

Owns the messages (include/uapi/linux/netfilter/nf_tables.h), as `nf_tables_socket` owns the socket for them; what the
rules mean is its callers'. It imports next to nothing, because the CNI plugin pays for every import.
"""

from __future__ import annotations

import struct

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.kernel import netlink
from flanneld_py.kernel.netlink import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flanneld_py.kernel.netlink import Message

NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_NETDEV = 5
NFPROTO_IPV6 = 10
"""What a table is for."""

NF_DROP, NF_ACCEPT, NFT_GOTO, NFT_RETURN = 0, 1, -4, -5
"""Verdicts, and what a chain may have for a policy."""

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
BATCH_BEGIN, BATCH_END = 16, 17
SUBSYSTEM = 10
(
    NEWTABLE,
    GETTABLE,
    DELTABLE,
    NEWCHAIN,
    GETCHAIN,
    DELCHAIN,
    NEWRULE,
    GETRULE,
    DELRULE,
    NEWSET,
    GETSET,
    DELSET,
    NEWSETELEM,
    GETSETELEM,
    DELSETELEM,
    NEWGEN,
    GETGEN,
) = (SUBSYSTEM << 8 | number for number in range(17))

CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 4, 7
SET_TABLE, SET_NAME, _SET_EXPRESSION = 1, 2, 17
SET_TIMEOUT, SET_BY_RULES = 0x10, 0x20
"""Flags of a set: its elements may expire (NFT_SET_TIMEOUT), and rules add to it (NFT_SET_EVAL)."""
ELEMENTS_TABLE, ELEMENTS_SET, ELEMENTS_LIST = 1, 2, 3
LIST_ELEMENT = 1
ELEMENT_EXPRESSION = 7
COMMENT = 0
"""NFTNL_UDATA_RULECOMMENT: what nft shows as a rule's comment (libnftnl, udata.h)."""

GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, resource."""


class Hook(NamedTuple):
    """Where the kernel calls a chain: NF_INET_… or ingress, and a priority; `device` for ingress."""

    number: int
    priority: int
    device: str = ""


def text(kind: int, value: str) -> bytes:
    """Write a string attribute."""
    return netlink.encode_text(kind, value)


def number(kind: int, value: int) -> bytes:
    """Write a 32-bit attribute in network byte order, as all of nf_tables is."""
    return netlink.encode_attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def message(kind: int, family: int, *attributes: bytes, flags: int = 0) -> Request:
    """Write a request about tables of a family."""
    return Request(kind, flags, GENERIC.pack(family, 0, 0) + b"".join(attributes))


def get_chains(family: int) -> Request:
    """Ask for the chains of all tables of a family."""
    return message(GETCHAIN, family)


def get_rules(family: int, table: str) -> Request:
    """Ask for the rules of a table."""
    return message(GETRULE, family, text(RULE_TABLE, table))


def new_table(family: int, table: str) -> Request:
    """Have a table."""
    return message(NEWTABLE, family, text(1, table), flags=netlink.NLM_F_CREATE)


def delete_table(family: int, table: str) -> Request:
    """Take a table away, with all that is in it."""
    return message(DELTABLE, family, text(1, table))


def new_chain(family: int, table: str, name: str, kind: str = "", hook: Hook | None = None) -> Request:
    """Have a chain; with a hook one that the kernel calls, of a kind such as "filter", which accepts at its end."""
    attributes = chain_attributes(table, name, kind, hook)
    return message(NEWCHAIN, family, *attributes, flags=netlink.NLM_F_CREATE)


def chain_attributes(table: str, name: str, kind: str = "", hook: Hook | None = None) -> tuple[bytes, ...]:
    """Return what a chain is made of."""
    named = (text(CHAIN_TABLE, table), text(CHAIN_NAME, name))
    if hook is None:
        return named
    place = [number(1, hook.number), number(2, hook.priority)]
    if hook.device:
        place.append(text(3, hook.device))
    return (*named, netlink.encode_nested(CHAIN_HOOK, *place), number(CHAIN_POLICY, NF_ACCEPT), text(CHAIN_TYPE, kind))


def delete_chain(family: int, table: str, name: str) -> Request:
    """Take a chain away, with its rules."""
    return message(DELCHAIN, family, text(CHAIN_TABLE, table), text(CHAIN_NAME, name))


def flush_chain(family: int, table: str, name: str) -> Request:
    """Take all rules out of a chain."""
    return message(DELRULE, family, text(RULE_TABLE, table), text(RULE_CHAIN, name))


def append_rule(family: int, table: str, chain: str, *expressions: bytes, comment: str = "") -> Request:
    """Put a rule at the end of a chain."""
    attributes = [
        text(RULE_TABLE, table),
        text(RULE_CHAIN, chain),
        netlink.encode_nested(RULE_EXPRESSIONS, *expressions),
    ]
    if comment:
        said = comment.encode() + b"\0"
        attributes.append(netlink.encode_attribute(RULE_USERDATA, bytes((COMMENT, len(said))) + said))
    return message(NEWRULE, family, *attributes, flags=netlink.NLM_F_CREATE | netlink.NLM_F_APPEND)


def new_set(
    family: int,
    table: str,
    name: str,
    length: int,
    key_type: int,
    *,
    flags: int = 0,
    counted: bool = False,
    room: int = 0,
) -> Request:
    """Have a set whose keys are of this length in bytes, for so many if `room` says so; flags are `SET_…`.

    If they are `counted`, they count what is looked up by them; kernels before 5.7 pass over that. `key_type` is only
    what nft takes to show the keys: libnftables' numbers of types, 6 bits each.
    """
    attributes = (
        text(SET_TABLE, table),
        text(SET_NAME, name),
        number(3, flags),
        number(4, key_type),
        number(5, length),
        # Unique within a batch; nothing of ours refers to a set but by name.
        number(10, sum(name.encode())),
        *((netlink.encode_nested(_SET_EXPRESSION, text(1, "counter")),) if counted else ()),
        *((netlink.encode_nested(9, number(1, room)),) if room else ()),
    )
    return message(NEWSET, family, *attributes, flags=netlink.NLM_F_CREATE)


def delete_set(family: int, table: str, name: str) -> Request:
    """Take a set away that no rule looks up."""
    return message(DELSET, family, text(SET_TABLE, table), text(SET_NAME, name))


def element_head(length: int) -> bytes:
    """Return what comes before a key of this length in a list of elements: an element with a key with a value."""
    nested = netlink.NLA_F_NESTED
    return struct.pack("=HHHHHH", length + 12, LIST_ELEMENT | nested, length + 8, 1 | nested, length + 4, 1)


def expiring_element(key: bytes, seconds: float) -> bytes:
    """Write an element that the kernel takes out of its set after a time."""
    value = netlink.encode_nested(1, netlink.encode_attribute(1, key))
    timeout = netlink.encode_attribute(4, int(seconds * 1000).to_bytes(8, "big"))
    return netlink.encode_nested(LIST_ELEMENT, value, timeout)


def flush_set(family: int, table: str, name: str) -> Request:
    """Take all elements out of a set."""
    return message(DELSETELEM, family, text(ELEMENTS_TABLE, table), text(ELEMENTS_SET, name))


def change_elements(kind: int, family: int, table: str, name: str, elements: Sequence[bytes]) -> Request:
    """Have elements, written with their heads, in a set (NEWSETELEM) or take them out (DELSETELEM); 1,000 at most."""
    attributes = (
        text(ELEMENTS_TABLE, table),
        text(ELEMENTS_SET, name),
        netlink.encode_nested(ELEMENTS_LIST, *elements),
    )
    return message(kind, family, *attributes, flags=netlink.NLM_F_CREATE if kind == NEWSETELEM else 0)


def decode_chain_name(answer: Message) -> tuple[str, str]:
    """Read a chain as its table and its name."""
    attributes = netlink.decode_attributes(answer.payload, GENERIC.size)
    return netlink.decode_text(attributes[CHAIN_TABLE]), netlink.decode_text(attributes[CHAIN_NAME])


def decode_table(answer: Message) -> tuple[int, str]:
    """Read a table as its family and name."""
    return answer.payload[0], _text_at(payload_of(answer), 1)


def payload_of(answer: Message) -> memoryview:
    """Return the attributes of an answer."""
    return answer.payload[GENERIC.size :]


def is_made_of(
    table: str, chains: Sequence[memoryview], rules: Sequence[memoryview], wanted: Sequence[Request]
) -> bool:
    """Say whether the chains and rules of this table are just those wanted, each chain's rules in this order."""
    for kind, name, have in ((NEWCHAIN, CHAIN_NAME, chains), (NEWRULE, RULE_CHAIN, rules)):
        ours = [one for one in have if _text_at(one, CHAIN_TABLE) == table]
        want = [memoryview(request.payload)[GENERIC.size :] for request in wanted if request.kind == kind]
        # Sorting is stable: what is in one chain keeps its order.
        for group in (ours, want):
            group.sort(key=lambda one, name=name: _text_at(one, name))  # type: ignore[misc]
        if len(ours) != len(want) or not all(map(_covers, ours, want)):
            return False
    return True


def _text_at(payload: memoryview, kind: int) -> str:
    value = netlink.decode_attributes(payload).get(kind)
    return "" if value is None else netlink.decode_text(value)


def _covers(have: memoryview, want: memoryview) -> bool:
    """Say whether what the kernel holds is what was wanted of it; it tells more, such as handles and counters.

    Lists are attributes of one kind: as many there as here, and each in its place.
    """
    told: dict[int, list[memoryview]] = {}
    for kind, _, value in netlink.walk_attributes(have):
        told.setdefault(kind, []).append(value)
    places: dict[int, int] = {}
    for kind, nested, value in netlink.walk_attributes(want):
        place = places.get(kind, 0)
        places[kind] = place + 1
        others = told.get(kind, [])
        if place >= len(others):
            return False
        if not (_covers(others[place], value) if nested else others[place] == value):
            return False
    return all(len(told[kind]) == count for kind, count in places.items())
