"""Where a backend's packets arrive, and where in them lies what tells who sent them."""

from __future__ import annotations

from typing import NamedTuple


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
