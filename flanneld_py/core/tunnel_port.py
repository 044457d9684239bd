"""Where a backend's packets arrive, where in them lies what tells who sent them, and who is admitted there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.entries import DrivenEntry

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix

GUARD = "guard"
"""The table of those who are admitted, as `DrivenEntry.table`; keys are (family, outer source, inner prefix)."""


class TunnelPort(NamedTuple):
    """A UDP port that packets of the network arrive on; offsets in bytes from the beginning of the UDP header.

    `mark_offset` and `mark` are bytes that tell the network's packets from others on the port (the VNI); an empty mark
    means that all are. `ethertype_offset` is 0 where no Ethernet header lies before the inner IP header.
    """

    port: int
    ip_offset: int
    ethertype_offset: int = 0
    mark_offset: int = 0
    mark: bytes = b""


def admission(family: int, outer: int, inner: Prefix) -> DrivenEntry:
    """Return the entry that admits packets of an outer source whose inner source lies in a prefix."""
    return DrivenEntry(GUARD, (family, outer, inner))
