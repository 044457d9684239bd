"""Running an operator's command: no shell, a time limit, and all that it says kept short."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import string
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_OUTPUT = 1 << 16
"""Bytes of output that are read."""
_MOST_SHOWN = 300


class CommandError(OSError):
    """A command could not be run, failed, or took too long; `errno` is EIO for one that says so itself."""


class _Expansion(string.Template):
    """`$NAME` and `${NAME}`, and nothing else: two dollars are two dollars."""

    pattern = r"""
        \$(?:(?P<named>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<escaped>(?!))|(?P<invalid>(?!)))
    """  # type: ignore[assignment]


class _Values(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


def split_command(text: str, variables: Mapping[str, str]) -> list[str]:
    """Split a command at blanks, then put in the variables, so that a value stays one word; unknown ones are empty."""
    values = _Values(variables)
    return [_Expansion(word).substitute(values) for word in text.split()]


async def run_command(text: str, variables: Mapping[str, str], told: str, limit: float) -> str:
    """Run a command with these variables beside our own, and `told` on its standard input; return its output, trimmed.

    Its errors are part of the output. What it leaves running in the background is not waited for; what still runs after
    `limit` seconds is killed, with all that it started. Raises CommandError.
    """
    environment = {**os.environ, **variables}
    output, given = os.memfd_create("output"), os.memfd_create("input")
    try:
        os.write(given, f"{told}\n".encode())
        os.lseek(given, 0, os.SEEK_SET)
        words = split_command(text, environment)
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=given, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        except OSError as error:
            raise CommandError(error.errno, f"{words[0]}: {error.strerror}") from error
        await _wait(process, words[0], limit)
        said = os.pread(output, _MOST_OUTPUT, 0).decode(errors="replace").strip()
    finally:
        os.close(output)
        os.close(given)
    if process.returncode:
        shown = " | ".join(said[-_MOST_SHOWN:].splitlines())
        raise CommandError(errno.EIO, f"{words[0]}: exit status {process.returncode}: {shown}")
    return said


async def _wait(process: asyncio.subprocess.Process, name: str, limit: float) -> None:
    try:
        async with asyncio.timeout(limit):
            await process.wait()
    except TimeoutError as error:
        raise CommandError(errno.ETIMEDOUT, f"{name}: still running after {limit:g} s, killed") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
