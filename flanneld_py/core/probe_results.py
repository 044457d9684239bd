"""What probes tell: loss, round-trip time and the largest packet of each way to a peer, and what is made of them.

A peer that never answers is no alarm: Go flannel's daemons do not, nor do ours without `--probe-interval`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flanneld_py.core.prefix import IPV4, IPV6, Prefix

UNDERLAY, OVERLAY = "underlay", "overlay"
WAYS = (UNDERLAY, OVERLAY)

OK, LOSSY, NARROW = "ok", "lossy", "narrow"
NO_OVERLAY, NO_UNDERLAY, NO_ANSWER, WAITING = "no overlay", "no underlay", "no answer", "waiting"
STATES = (OK, LOSSY, NARROW, NO_OVERLAY, NO_UNDERLAY, NO_ANSWER, WAITING)
"""How a peer is: both ways work; some probes are lost; large packets are; the underlay answers and the tunnel does
not; the other way round; nothing answers; too little is known yet."""

SILENT_AFTER = 3
"""Probes in a row without an answer after which a way counts as silent: an outage, or nobody who answers."""
_WINDOW = 32
_MOST_SILENT = 255
_MANY_LOST = 0.1
_TRIES = 3
_SHARE = 8
"""The newest time's share in the smoothed one is an eighth (RFC 6298, section 2)."""
_FLOORS = {IPV4: 576, IPV6: 1280}
"""Bytes of a packet that every path has to carry (RFC 791, RFC 8200); below, no search is worth while."""


class WayResult(NamedTuple):
    """One way to a peer: probes `sent` and `lost` of the last 32, and how many the last ones in a row (`silent`).

    `round_trip` is smoothed, in microseconds, 0 before the first answer. `mtu` is the largest packet in bytes that
    gets there whole, 0 where that is not known, `wanted` what the network needs.
    """

    sent: int
    lost: int
    silent: int
    round_trip: int
    mtu: int
    wanted: int

    @property
    def answers(self) -> bool:
        """Whether the other end has answered lately."""
        return self.lost < self.sent and self.silent < SILENT_AFTER

    @property
    def is_silent(self) -> bool:
        """Whether it has not for a while."""
        return self.silent >= SILENT_AFTER

    @property
    def is_narrow(self) -> bool:
        """Whether packets that the network sends are too large."""
        return 0 < self.mtu < self.wanted


UNTRIED = WayResult(0, 0, 0, 0, 0, 0)


class PeerResult(NamedTuple):
    """Both ways to a peer in one address family."""

    subnet: Prefix
    underlay: WayResult
    overlay: WayResult

    @property
    def state(self) -> str:
        """One of STATES."""
        tried = [way for way in self[1:] if way.sent]
        if not tried:
            return WAITING
        if all(way.is_silent for way in tried):
            return NO_ANSWER
        if all(way.answers for way in tried):
            if any(way.lost > way.sent * _MANY_LOST for way in tried):
                return LOSSY
            return NARROW if any(way.is_narrow for way in tried) else OK
        if self.underlay.answers and self.overlay.is_silent:
            return NO_OVERLAY
        if self.overlay.answers and self.underlay.is_silent:
            return NO_UNDERLAY
        return WAITING

    def describe(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        ways = {name: way._asdict() for name, way in zip(WAYS, self[1:], strict=True)}
        return {"subnet": str(self.subnet), "state": self.state} | ways


class WayRecord:
    """What is remembered of one way to a peer."""

    __slots__ = ("_lost", "_mtu", "_round_trip", "_sent", "_silent")

    def __init__(self) -> None:
        self._lost = 0
        """The last probes as bits, the newest the lowest, 1 for one that was lost."""
        self._sent = self._silent = self._round_trip = self._mtu = 0

    @property
    def has_answered(self) -> bool:
        """Whether there ever was an answer."""
        return self._round_trip > 0

    @property
    def is_silent(self) -> bool:
        """Whether there has been none for a while."""
        return self._silent >= SILENT_AFTER

    def note_answer(self, seconds: float) -> None:
        """Take note of an answer after so many seconds; what was lost before the first, or in an outage, is no loss."""
        if self.is_silent or not self.has_answered:
            self._lost >>= self._silent
            self._sent = max(0, self._sent - self._silent)
        self._push(lost=False)
        self._silent = 0
        now = max(1, round(seconds * 1e6))
        self._round_trip += (now - self._round_trip) // _SHARE if self._round_trip else now

    def note_loss(self) -> None:
        """Take note of a probe without an answer."""
        self._push(lost=True)
        self._silent = min(_MOST_SILENT, self._silent + 1)

    def note_mtu(self, mtu: int) -> None:
        """Take note of the largest packet that got there."""
        self._mtu = mtu

    def result(self, wanted: int) -> WayResult:
        """Return it all; `wanted` is what the network needs, in bytes."""
        return WayResult(self._sent, self._lost.bit_count(), self._silent, self._round_trip, self._mtu, wanted)

    def _push(self, *, lost: bool) -> None:
        self._lost = (self._lost << 1 | lost) & ((1 << _WINDOW) - 1)
        self._sent = min(_WINDOW, self._sent + 1)


class MtuSearch:
    """Looks for the largest packet that gets to the other end whole, beginning with the one that is wanted.

    `size` is the one to try next, in bytes, 0 when there is nothing left to try; `found` is the answer, 0 where not
    even the smallest one got there.
    """

    __slots__ = ("_arrived", "_refused", "_tries", "found", "size")

    def __init__(self, family: int, wanted: int) -> None:
        self._arrived = min(wanted, _FLOORS[family]) - 1
        """All up to here are taken to get there; the first one below which nothing is tried."""
        self._refused = wanted + 1
        self._tries = 0
        self.size = wanted
        self.found = 0

    def note(self, *, arrived: bool) -> None:
        """Go on after the packet was answered or not; a few times with the same size, for any packet may be lost."""
        self._tries += 1
        if arrived:
            self._arrived = self.found = self.size
        elif self._tries < _TRIES:
            return
        else:
            self._refused = self.size
        self._tries = 0
        left = self._refused - self._arrived
        self.size = self._arrived + left // 2 if left > 1 else 0
