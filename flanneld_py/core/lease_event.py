"""What a store tells about the leases of the cluster, as a union of frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flanneld_py.core.lease import Lease


@dataclass(frozen=True, slots=True)
class LeaseSnapshot:
    """All leases that the store holds now, or a part of them: whatever no part from first to last names is gone.

    `rejected` maps the keys whose key or value could not be read to the reason.
    """

    leases: dict[str, Lease]
    rejected: dict[str, str]
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True)
class LeasePut:
    """A lease was written; `revision` is the store's count of writes as of then, 0 where it tells none."""

    key: str
    lease: Lease
    revision: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class LeaseRejected:
    """Something was written that cannot be read as a lease."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseRemoved:
    """A key was deleted or expired."""

    key: str


LeaseChange = LeasePut | LeaseRejected | LeaseRemoved
"""What happened to a single key."""
LeaseEvent = LeaseSnapshot | LeaseChange
