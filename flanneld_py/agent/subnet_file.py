"""The subnet file on disk: read at start, written when the node is ready for pods, and kept so; always whole."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.core.subnet_env import SubnetEnv, encode_subnet_env, parse_subnet_env

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix

log = logging.getLogger(__name__)

_CHECK_SECONDS = 5.0
"""Between two looks at the file: pods that start meanwhile without it are tried again by whoever starts them."""


def read_former_subnets(path: Path) -> tuple[Prefix, ...]:
    """Return the subnets that a former daemon wrote, none if there are none to be read."""
    try:
        return parse_subnet_env(path.read_text(errors="replace")).subnets
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        log.warning("former subnet file ignored: path=%s reason=%s", path, error)
        return ()


def write_subnet_file(path: Path, env: SubnetEnv) -> None:
    """Put the file in its place at once and whole: 0644, its folder 0755. Raises OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A fixed name beside it: what a killed daemon left there is overwritten, never gathered.
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o644)
        file.write(encode_subnet_env(env))
        file.flush()
        os.fsync(descriptor)
    Path(fresh).replace(path)


class SubnetFile:
    """The file as it should be: written when that is told, and again where somebody removed or changed it."""

    def __init__(self, path: Path, *, check_seconds: float = _CHECK_SECONDS) -> None:
        """Begin with nothing to write."""
        self.path = path
        self._check_seconds = check_seconds
        self._env: SubnetEnv | None = None
        self._trouble = ""

    @property
    def is_told(self) -> bool:
        """Whether there is something to write."""
        return self._env is not None

    def tell(self, env: SubnetEnv) -> None:
        """Have the file say this from now on; what keeps it from that is in the log."""
        self._env = env
        if not self._stands():
            self._write()

    async def wait(self) -> None:
        """Return once the file is as it was told."""
        while not self._stands():
            await self._look()

    async def keep(self) -> None:
        """Look after the file until cancelled."""
        while True:
            await self._look()

    async def _look(self) -> None:
        await asyncio.sleep(self._check_seconds)
        if not self._stands() and self._write():
            log.warning("subnet file written again, it was not there as it should be: path=%s", self.path)

    def _stands(self) -> bool:
        if self._env is None:
            return True
        try:
            return self.path.read_text(encoding="utf-8", errors="replace") == encode_subnet_env(self._env)
        except OSError:
            return False

    def _write(self) -> bool:
        if self._env is None:
            return False
        try:
            write_subnet_file(self.path, self._env)
        except OSError as error:
            if str(error) != self._trouble:
                log.error("subnet file cannot be written, tried again: path=%s reason=%s", self.path, error)  # noqa: TRY400
            self._trouble = str(error)
            return False
        self._trouble = ""
        return True
