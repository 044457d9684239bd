"""How much went between this node and a peer, as whoever carries or admits the packets has counted it."""

from __future__ import annotations

from typing import NamedTuple


class PeerTraffic(NamedTuple):
    """Bytes and packets since the counting began; None where nobody counts them."""

    received_bytes: int | None = None
    received_packets: int | None = None
    sent_bytes: int | None = None
    sent_packets: int | None = None
