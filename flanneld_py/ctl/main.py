"""flannelctl: one subcommand a module, each with `register`, which also names the function that carries it out."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from flanneld_py import __version__
from flanneld_py.core.errors import KernelError
from flanneld_py.ctl import (
    cleanup,
    cni,
    completion,
    docker_opts,
    doctor,
    install,
    leases,
    net,
    peers,
    probe,
    status,
    trace,
)
from flanneld_py.ctl.errors import CtlError
from flanneld_py.ctl.output import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUBCOMMANDS = (status, peers, doctor, trace, probe, leases, net, cni, docker_opts, install, cleanup, completion)

_EXIT_STATUSES = (
    "Exit status: 0 done and all is well; 1 it could not be done; 2 wrong use; 3 it is not as it should be."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line, that of the process by default, and return the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (CtlError, KernelError) as error:
        print(f"flannelctl: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever read it has seen enough, as with `flannelctl leases | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="flannelctl", description="Looks after the flannel of this node.", epilog=_EXIT_STATUSES
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(whole=parser)  # for `completion`, which tells of all of it
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _SUBCOMMANDS:
        module.register(subcommands)
    return parser
