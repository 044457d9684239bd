"""Operations that failed, each waiting for its own next try, so that none holds up another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flanneld_py.core.backoff import backoff_delay
from flanneld_py.core.entries import entry_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flanneld_py.core.entries import Key, Kind
    from flanneld_py.core.plan import Operation


class Failure(NamedTuple):
    """An operation that the kernel refused; `due` is when to try again, on the caller's clock in seconds."""

    operation: Operation
    attempts: int
    due: float
    errno: int
    reason: str


class RetryQueue:
    """Failed operations by the key of their object: a newer operation on the same object takes their place."""

    def __init__(self) -> None:
        self._failures: dict[tuple[Kind, Key], Failure] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def __iter__(self) -> Iterator[Failure]:
        return iter(self._failures.values())

    def record(self, operation: Operation, errno: int, reason: str, now: float, jitter: float) -> Failure:
        """Note a failed attempt; return it with the time of the next."""
        key = (operation.kind, entry_key(operation.entry))
        before = self._failures.get(key)
        attempts = before.attempts + 1 if before is not None and before.operation == operation else 1
        failure = Failure(operation, attempts, now + backoff_delay(attempts, jitter), errno, reason)
        self._failures[key] = failure
        return failure

    def settle(self, operations: Iterable[Operation]) -> set[Kind]:
        """Forget former failures on the objects of operations that have succeeded.

        Returns the tables where something was deleted at last: others may have changed meanwhile what it was, and a
        delete does not find what has another protocol.
        """
        doubtful: set[Kind] = set()
        if self._failures:
            for operation in operations:
                failure = self._failures.pop((operation.kind, entry_key(operation.entry)), None)
                if failure is not None and operation.delete:
                    doubtful.add(operation.kind)
        return doubtful

    def forget(self, kinds: Iterable[Kind]) -> None:
        """Forget the failures in tables that are about to be read anew: what is still wrong is planned anew."""
        chosen = set(kinds)
        self._failures = {key: failure for key, failure in self._failures.items() if key[0] not in chosen}

    def due(self, now: float) -> list[Operation]:
        """Return the operations whose next try has come."""
        return [failure.operation for failure in self._failures.values() if failure.due <= now]

    def next_due(self) -> float | None:
        """Return when the next try comes, None if there is nothing to try."""
        return min((failure.due for failure in self._failures.values()), default=None)
