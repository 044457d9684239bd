"""What flannelctl tells its user in one line."""

from __future__ import annotations


class CtlError(Exception):
    """A subcommand could not do its work; the message says why, and what helps."""
