"""The errors of this project, told apart by who is wrong."""

from __future__ import annotations


class ConfigError(Exception):
    """The operator's configuration or flags are wrong; the message names the key and what is expected."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class StoreError(Exception):
    """The store (etcd or the Kubernetes API) does not answer as it should; trying again later may help."""


class LeaseLostError(Exception):
    """Our own lease is gone from the store, or another node owns its subnet."""


class LeaseTakenError(LeaseLostError):
    """Another node owns our subnet, or a part of it; `owner` is its public address, as far as it can be read."""

    def __init__(self, key: str, owner: str) -> None:
        super().__init__(f"lease {key} is held by {owner}")
        self.key = key
        self.owner = owner


class KernelError(OSError):
    """The kernel refused an operation: `errno` says why, `strerror` also which operation it was."""

    def __init__(self, errno: int, operation: str, reason: str) -> None:
        super().__init__(errno, f"{operation}: {reason}")
        self.operation = operation
