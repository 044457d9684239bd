"""How entries are written for people: as `ip` and `bridge` write them."""

import pytest

from flanneld_py.core.entries import UNREACHABLE, DrivenEntry, FdbEntry, Neighbour, Nexthop, Route, describe_entry
from flanneld_py.core.prefix import IPV4, IPV6, parse_prefix

MAC = bytes.fromhex("020000000102")
GATEWAY = 10 << 24 | 5 << 16 | 2 << 8
SUBNET = parse_prefix("10.5.2.0/24")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (FdbEntry(7, MAC, IPV6, 0xFD30 << 112 | 2), "fdb 02:00:00:00:01:02 dst fd30::2 dev 7"),
        (Neighbour(7, IPV4, GATEWAY, MAC), "neigh 10.5.2.0 lladdr 02:00:00:00:01:02 dev 7"),
        (Nexthop(12, IPV4, GATEWAY, 7, onlink=True), "nexthop id 12 via 10.5.2.0 dev 7"),
        (Route(SUBNET, 0, 12, 0, 0, onlink=False), "route 10.5.2.0/24 nhid 12"),
        (Route(SUBNET, 0, 0, GATEWAY, 7, onlink=True), "route 10.5.2.0/24 via 10.5.2.0 dev 7"),
        (Route(SUBNET, 0, 0, 0, 7, onlink=False), "route 10.5.2.0/24 dev 7"),
        (Route(SUBNET, 0, 0, 0, 0, onlink=False, type=UNREACHABLE), "route unreachable 10.5.2.0/24"),
        (DrivenEntry("guard", (SUBNET,), "secret"), "guard 10.5.2.0/24"),
    ],
)
def test_entries_as_people_read_them(entry, text):
    assert describe_entry(entry) == text
