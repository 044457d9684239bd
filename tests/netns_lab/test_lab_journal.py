import struct

from netns_lab.journal import (
    IFF_LOWER_UP,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    Journal,
)

MAIN, LOCAL = 254, 255
UNICAST = 1
PERMANENT, REACHABLE = 0x80, 0x02
INET, BRIDGE = 2, 7


def link(name, flags=IFF_LOWER_UP, family=0):
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 3) + text
    return struct.pack("=BxHiII", family, 1, 7, flags, 0) + attribute


def route(table=MAIN, kind=UNICAST):
    return struct.pack("=BBBBBBBBI", INET, 24, 0, 0, table, 3, 0, kind, 0)


def neighbour(family=INET, state=PERMANENT):
    return struct.pack("=BxxxiHBB", family, 7, state, 0, 1)


def test_a_device_that_goes_and_comes_back():
    journal = Journal()
    assert journal.describe([(RTM_NEWLINK, link("flannel.1"))]) == ["flannel.1 made"]
    assert journal.describe([(RTM_NEWLINK, link("flannel.1", flags=0))]) == ["flannel.1 down"]
    assert journal.describe([(RTM_DELLINK, link("flannel.1"))]) == ["flannel.1 deleted"]
    again = [(RTM_NEWLINK, link("flannel.1", flags=0)), (RTM_NEWLINK, link("flannel.1"))]
    assert journal.describe(again) == ["flannel.1 made", "flannel.1 up"]


def test_what_is_not_new_is_not_told():
    journal = Journal()
    journal.describe([(RTM_NEWLINK, link("eth0"))])
    assert journal.describe([(RTM_NEWLINK, link("eth0"))]) == []
    assert journal.describe([(RTM_NEWLINK, link("eth0", flags=0, family=BRIDGE))]) == []
    assert journal.describe([(RTM_DELLINK, link("veth9", family=BRIDGE)), (RTM_DELLINK, link("veth9"))]) == []


def test_entries_are_counted():
    told = Journal().describe(
        [
            (RTM_DELROUTE, route()),
            (RTM_NEWROUTE, route()),
            (RTM_NEWROUTE, route()),
            (RTM_NEWNEIGH, neighbour()),
            (RTM_DELNEIGH, neighbour(family=BRIDGE)),
            (RTM_DELNEIGH, neighbour(family=BRIDGE)),
        ]
    )
    assert told == ["1 route deleted", "2 routes made", "1 neighbour made", "2 FDB entries deleted"]


def test_the_kernels_own_routes_and_neighbours_are_left_out():
    messages = [
        (RTM_NEWROUTE, route(table=LOCAL)),
        (RTM_NEWROUTE, route(kind=2)),
        (RTM_NEWNEIGH, neighbour(state=REACHABLE)),
    ]
    assert Journal().describe(messages) == []
