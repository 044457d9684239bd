"""The subnet file on disk: read at start, written when the node is ready for pods, always whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld_py.core.subnet_env import SubnetEnv, encode_subnet_env, parse_subnet_env

if TYPE_CHECKING:
    from flanneld_py.core.prefix import Prefix

log = logging.getLogger(__name__)


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
