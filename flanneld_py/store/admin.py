"""What an operator reads of a store, whichever it is: the configuration and the leases, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from flanneld_py.core.lease import encode_key, parse_key

if TYPE_CHECKING:
    from flanneld_py.core.lease import Lease
    from flanneld_py.core.lease_event import LeaseRejected


class StoredConfig(NamedTuple):
    """The configuration's text, None where there is none, and the revision that it was written at, 0 for none."""

    text: str | None
    revision: int


class StoredLease(NamedTuple):
    """One key: as a lease, or why it cannot be read; seconds left, None if it does not expire."""

    name: str
    lease: Lease | LeaseRejected
    value: str
    seconds_left: int | None
    revision: int


class StoreReader(Protocol):
    """Single reads; each raises StoreError where the store does not answer."""

    assigns_subnets: bool
    """Whether nodes get their subnets from the store itself, as from Kubernetes."""

    async def close(self) -> None:
        """Close the connection."""
        ...

    async def read_config(self) -> StoredConfig:
        """Return the cluster's configuration."""
        ...

    async def list_leases(self) -> tuple[dict[str, Lease], dict[str, str]]:
        """Return all leases by key, and why other keys cannot be read."""
        ...

    async def read_lease(self, name: str) -> StoredLease | None:
        """Return one key with the time that it has left, None where there is none."""
        ...


def normal_name(text: str) -> str:
    """Return a lease's key for `10.5.2.0/24` or `10.5.2.0-24`; raise ValueError if it is neither."""
    name = text.replace("/", "-")
    return encode_key(*parse_key(name))
