"""What the kernel's refusals mean, by errno number: the one place that decides it."""

from __future__ import annotations

import errno

from flanneld_py.core.named_tuple import TYPE_CHECKING

if TYPE_CHECKING:
    from flanneld_py.core.errors import KernelError

ABSENT = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO})
"""Deleting what is not there: the wish is fulfilled."""

PRESENT = frozenset({errno.EEXIST})
"""Creating what is there already."""

UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})
"""This kernel does not have the thing at all."""

BUSY = frozenset({errno.EBUSY})
"""Renaming a device that is up, before Linux 6.2 (net/core/dev.c, dev_change_name)."""

TAKEN = frozenset({errno.EADDRINUSE})
"""A port that somebody else has."""

LOST = frozenset({errno.ENOBUFS})
"""Notifications that a socket had no room for."""

UNKNOWN_OPTION = frozenset({errno.ENOPROTOOPT})
"""A socket option that an older kernel does not know."""


def is_absent(error: KernelError) -> bool:
    """Say whether a delete failed because there was nothing to delete."""
    return error.errno in ABSENT


def is_busy(error: KernelError) -> bool:
    """Say whether a device must be down for what was asked for."""
    return error.errno in BUSY


def is_present(error: KernelError) -> bool:
    """Say whether a create failed because the thing is there."""
    return error.errno in PRESENT


def is_taken(error: KernelError) -> bool:
    """Say whether somebody else has the port that was asked for."""
    return error.errno in TAKEN


def is_unsupported(error: KernelError) -> bool:
    """Say whether the kernel lacks what was asked for."""
    return error.errno in UNSUPPORTED
