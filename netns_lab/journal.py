"""What happens to the devices and routes of a namespace, as the kernel tells it (rtnetlink(7)): put into words. Pure.

Messages come by the hundred; what came of one kind at about the same time becomes one line.
"""

import struct
from collections import Counter
from collections.abc import Iterable

from netns_lab.routes import RT_TABLE_MAIN, RTMSG, decode_attributes

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
AF_BRIDGE = 7
IFLA_IFNAME = 3
IFF_LOWER_UP = 0x10000
RTN_UNICAST = 1
NUD_PERMANENT = 0x80
GROUPS = 0x1 | 0x4 | 0x40 | 0x400  # links, neighbours, IPv4 routes, IPv6 routes (linux/rtnetlink.h, RTMGRP_*)

PLURALS = {"route": "routes", "neighbour": "neighbours", "FDB entry": "FDB entries"}

IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

Message = tuple[int, bytes]
"""A netlink message's type and payload."""


class Journal:
    """Knows the devices of one namespace, so that it tells only what is new about them."""

    def __init__(self) -> None:
        self._carriers: dict[str, bool] = {}

    def describe(self, messages: Iterable[Message]) -> list[str]:
        """Return what these messages say, devices first, then how many routes and neighbours came and went."""
        lines: list[str] = []
        counts: Counter[tuple[str, bool]] = Counter()
        for kind, payload in messages:
            if kind in {RTM_NEWLINK, RTM_DELLINK}:
                lines += self._describe_link(kind, payload)
            elif kind in {RTM_NEWROUTE, RTM_DELROUTE} and _is_plain_route(payload):
                counts["route", kind == RTM_NEWROUTE] += 1
            elif kind in {RTM_NEWNEIGH, RTM_DELNEIGH} and _is_permanent(payload):
                counts["FDB entry" if payload[0] == AF_BRIDGE else "neighbour", kind == RTM_NEWNEIGH] += 1
        return lines + [
            f"{count} {what if count == 1 else PLURALS[what]} {'made' if made else 'deleted'}"
            for (what, made), count in counts.items()
        ]

    def _describe_link(self, kind: int, payload: bytes) -> list[str]:
        family, _, _, flags, _ = IFINFOMSG.unpack_from(payload)
        if family == AF_BRIDGE:  # the same device's life as a port of its bridge
            return []
        name = decode_attributes(payload[IFINFOMSG.size :]).get(IFLA_IFNAME, b"?").rstrip(b"\0").decode()
        if kind == RTM_DELLINK:
            return [f"{name} deleted"] if self._carriers.pop(name, None) is not None else []
        carrier = bool(flags & IFF_LOWER_UP)
        before = self._carriers.get(name)
        self._carriers[name] = carrier
        if before is None:
            return [f"{name} made"]
        return [] if before == carrier else [f"{name} {'up' if carrier else 'down'}"]


def _is_plain_route(payload: bytes) -> bool:
    _, _, _, _, table, _, _, kind, _ = RTMSG.unpack_from(payload)
    return (table, kind) == (RT_TABLE_MAIN, RTN_UNICAST)


def _is_permanent(payload: bytes) -> bool:
    """Tell whether it is a neighbour or forwarding entry that a program made; the kernel's own come and go."""
    _, _, state, _, _ = NDMSG.unpack_from(payload)
    return bool(state & NUD_PERMANENT)
