"""flannelctl: one subcommand a module, each with `register`, which also names the function that carries it out."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from flanneld_py import __version__
from flanneld_py.ctl import cni, status
from flanneld_py.ctl.errors import CtlError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUBCOMMANDS = (cni, status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line, that of the process by default, and return the exit status."""
    parser = argparse.ArgumentParser(prog="flannelctl", description="Looks after the flannel of this node.")
    parser.add_argument("--version", action="version", version=__version__)
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _SUBCOMMANDS:
        module.register(subcommands)
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except CtlError as error:
        print(f"flannelctl: {error}", file=sys.stderr)
        return 1
    return code
