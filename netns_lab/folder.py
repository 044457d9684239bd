"""The folder of a lab: where it lies, who may own it, and the paths in it.

Outside it is one folder per lab, which `down` removes. Inside, the same folder is always at INSIDE.
"""

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netns_lab.errors import LabError, NoLabError

INSIDE = Path("/run/netns-lab")


def labs_folder(environment: Mapping[str, str], uid: int) -> Path:
    """Where this user's labs lie."""
    if chosen := environment.get("NETNS_LAB_DIR"):
        return Path(chosen).absolute()
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "netns-lab")
    return Path(f"/tmp/netns-lab-{uid}")  # noqa: S108  # checked by create_private below


def create_private(folder: Path) -> None:
    """Make `folder` ours alone. Raises LabError if it is there and somebody else could write to it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise LabError(
            f"{folder} must be a folder of yours that nobody else can write to: remove it, or set NETNS_LAB_DIR"
        )


@dataclass(frozen=True, slots=True)
class LabFolder:
    """The paths of one lab, as the present mount namespace sees them."""

    root: Path

    @property
    def topology(self) -> Path:
        """The values of the topology file that the lab was made from."""
        return self.root / "topology.json"

    @property
    def holder(self) -> Path:
        """Who holds the lab."""
        return self.root / "holder.json"

    @property
    def pods(self) -> Path:
        """One JSON file for each pod that there is."""
        return self.root / "pods"

    def etcd(self, member: str) -> Path:
        """Return the folder of data, log and pid of one etcd member."""
        return self.root / "etcd" / member

    def node(self, name: str) -> Path:
        """Log and pid of a node's daemon, and `run`, which is the node's /run."""
        return self.root / "nodes" / name

    def create(self) -> None:
        """Make the empty folder. Raises LabError if it is there."""
        create_private(self.root.parent)
        try:
            self.root.mkdir(mode=0o700)
        except FileExistsError:
            raise LabError(f"{self.root} is there already") from None

    def require(self) -> None:
        """Raise NoLabError if there is no such lab."""
        if not self.holder.exists():
            raise NoLabError(f"there is no lab at {self.root}: netns-lab up makes one")

    def remove(self) -> None:
        """Remove the folder, and the one of all labs if this was the last."""
        shutil.rmtree(self.root, ignore_errors=False)
        if not any(self.root.parent.iterdir()):
            self.root.parent.rmdir()
