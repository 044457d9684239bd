"""The type of what subcommands register themselves with."""

from __future__ import annotations

import argparse

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it
