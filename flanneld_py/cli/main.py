"""flanneld's entry: reads flags, sets up the log, runs the daemon, and turns its errors into exit codes.

The only place that exits the process: 0 stopped or asked for help, 1 cannot go on, 2 wrong use.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import TYPE_CHECKING

from flanneld_py import __version__
from flanneld_py.cli.flags import FlagError, HelpRequestedError, describe_flags, parse_flags
from flanneld_py.cli.flanneld_flags import FLAGS, make_options
from flanneld_py.cli.log_format import set_up_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld_py.agent.options import Options

log = logging.getLogger("flanneld")

_COLLECT_AFTER = (20_000, 20, 50)
"""New objects until Python looks for cycles among them, and after how many such looks for those among older ones."""


def main() -> None:
    """Run flanneld as the command line says."""
    sys.exit(_main(sys.argv[1:]))


def _main(words: list[str]) -> int:
    try:
        values = parse_flags(FLAGS, words, os.environ)
        if values["version"]:
            print(__version__)
            return 0
        options = make_options(values, os.environ)
    except HelpRequestedError:
        print(f"flanneld {__version__}: an overlay network daemon, compatible with flannel\n\nFlags, each also as")
        print(f"FLANNELD_… variable (--etcd-prefix is FLANNELD_ETCD_PREFIX):\n{describe_flags(FLAGS)}")
        return 0
    except FlagError as error:
        print(f"flanneld: {error}", file=sys.stderr)
        return 2
    set_up_log(values["v"], values["vmodule"], values["log-format"], os.environ)
    return _run(options)


def _run(options: Options) -> int:
    # Late, so that a wrong flag is told at once and without the cost of the daemon's imports.
    gc.disable()
    import asyncio

    from flanneld_py.agent.claim import ClaimedError
    from flanneld_py.agent.daemon import run_daemon
    from flanneld_py.core.errors import ConfigError

    # What is imported stays for good, and what a lease is made of is in no cycles: to look through all of it as often
    # as Python does is a fifth of the work that a large cluster is at start.
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    gc.enable()
    failed = False
    log.info("flanneld %s starts: pid=%d", __version__, os.getpid())
    try:
        asyncio.run(run_daemon(options))
    except* (ClaimedError, ConfigError, OSError) as group:
        for error in _leaves(group):
            log.error("cannot go on: %s", _describe(error))  # noqa: TRY400 - the message is for the operator
        failed = True
    return int(failed)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and not error.filename2:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
