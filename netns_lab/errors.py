"""The failures of the lab, each one clear message and an exit status.

Only the command line turns them into output and a status; everything else raises them.
"""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_LAB = 3


class LabError(Exception):
    """Something did not work; the message says what and, where known, which command mends it."""

    exit_status = EXIT_FAILED


class TopologyError(LabError):
    """The topology file is wrong; the message begins with the key."""

    exit_status = EXIT_USAGE


class UsageError(LabError):
    """The operator asked for something that cannot be: an unknown name, a missing file or word."""

    exit_status = EXIT_USAGE


class NoLabError(LabError):
    """There is no lab of that name, or its holder is gone."""

    exit_status = EXIT_NO_LAB


class WaitedInVainError(LabError):
    """A condition did not come true in time; the message says which."""
