"""The kernel's requests for the way to an address, and what becomes of them: looked up once, answered or refused.

Owns which subnets are being looked up and for which addresses, and which were found to be nobody's and until when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix

MOST_WAITING = 32
"""Addresses that wait at once. Each is an unresolved neighbour, and the machine has room for few of those."""
MOST_ASKED = 48
"""Addresses that the kernel asks for at once: those that wait here, and those that are answered and still counted."""
_FEW_WAITING = MOST_WAITING // 2
"""Addresses that wait once there is room again for a while."""
REFUSED_FOR = 10.0
"""Seconds for which a subnet that nobody leases is unreachable without asking again."""


class Miss(NamedTuple):
    """An address that the kernel wants to send to and does not know how (RTM_GETNEIGH)."""

    family: int
    address: int

    def is_in(self, subnet: Prefix) -> bool:
        """Say whether the address lies inside a prefix of whichever family."""
        return self.family == subnet.family and subnet.holds(self.address)


class MissTable:
    """Lookups under way by subnet, and the subnets that are nobody's by when that is to be forgotten."""

    def __init__(self, refused_for: float = REFUSED_FOR) -> None:
        """Begin empty; what nobody leases is refused without asking for `refused_for` seconds."""
        self._refused_for = refused_for
        self._pending: dict[Prefix, list[Miss]] = {}
        self._waiting = 0
        self._is_full = False
        self._nobodys: dict[Prefix, float] = {}

    @property
    def pending(self) -> int:
        """How many subnets are being looked up."""
        return len(self._pending)

    @property
    def is_full(self) -> bool:
        """Whether as many addresses wait as may, or did and have not become few since."""
        return self._is_full

    @property
    def nobodys(self) -> list[Prefix]:
        """The subnets that are known to be nobody's."""
        return list(self._nobodys)

    def take(self, miss: Miss, subnet: Prefix) -> bool | None:
        """Take note of a miss in a subnet: True to look the subnet up, False to wait for a lookup under way.

        None if too many wait: the address is to be refused at once.
        """
        waiting = self._pending.get(subnet)
        if waiting is not None and miss in waiting:
            return False
        if self._waiting >= MOST_WAITING:
            return None
        self._waiting += 1
        self._is_full |= self._waiting == MOST_WAITING
        if waiting is not None:
            waiting.append(miss)
            return False
        self._pending[subnet] = [miss]
        return True

    def settle(self, subnet: Prefix) -> list[Miss]:
        """End the lookup of a subnet; return the misses that waited for it."""
        settled = self._pending.pop(subnet, [])
        self._waiting -= len(settled)
        self._is_full &= self._waiting > _FEW_WAITING
        return settled

    def note_nobodys(self, subnet: Prefix, now: float) -> bool:
        """Take note that nobody leases a subnet; return whether that is news."""
        is_news = subnet not in self._nobodys
        self._nobodys[subnet] = now + self._refused_for
        return is_news

    def note_leased(self, subnet: Prefix) -> list[Prefix]:
        """Take note that somebody leases a subnet; return those that were nobody's and share an address with it."""
        over = [nobodys for nobodys in self._nobodys if nobodys.overlaps(subnet)]
        for nobodys in over:
            del self._nobodys[nobodys]
        return over

    def expire(self, now: float) -> list[Prefix]:
        """Forget the subnets whose time is over, and return them."""
        over = [subnet for subnet, due in self._nobodys.items() if due <= now]
        for subnet in over:
            del self._nobodys[subnet]
        return over

    def next_expiry(self) -> float | None:
        """Return when the next subnet's time is over; None if there is none."""
        return min(self._nobodys.values(), default=None)
