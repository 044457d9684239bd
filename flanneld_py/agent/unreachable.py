"""Peers to which there is no way from this node, each with the reason: told once in the log, and in the status."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flanneld_py.core.prefix import format_address

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable

    from flanneld_py.core.peer import Peer

log = logging.getLogger(__name__)


class UnreachablePeers:
    """The peers that cannot be reached at the moment."""

    def __init__(self) -> None:
        self._reasons: dict[Peer, str] = {}

    def items(self) -> ItemsView[Peer, str]:
        """Return the peers with the reasons."""
        return self._reasons.items()

    def note(self, peer: Peer, reason: str) -> None:
        """Take note that there is no way to a peer."""
        if self._reasons.get(peer) != reason:
            self._reasons[peer] = reason
            address = format_address(peer.subnet.family, peer.public_ip)
            log.warning("peer unreachable: subnet=%s public_ip=%s reason=%s", peer.subnet, address, reason)

    def forget(self, peers: Iterable[Peer]) -> None:
        """Take note that there is a way to these peers, or that they are gone."""
        if self._reasons:
            for peer in peers:
                self._reasons.pop(peer, None)
