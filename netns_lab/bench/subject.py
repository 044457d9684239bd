"""What a run is about: daemons given as commands, and which version each is. Every table names it."""

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from netns_lab.errors import UsageError
from netns_lab.programs import SEARCH_PATH, environment, find_program

VERSION_SECONDS = 10.0
UNKNOWN = frozenset({"", "dev"})


@dataclass(frozen=True, slots=True)
class Subject:
    """A daemon: the name and version in tables, and the words of its command, the first an absolute path."""

    name: str
    version: str
    command: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


def find_subject(text: str | None) -> Subject:
    """Return the daemon that a command stands for; None is our flanneld. Raises UsageError."""
    try:
        words = shlex.split(text) if text is not None else [str(find_program("flanneld"))]
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from error
    found = shutil.which(words[0], path=SEARCH_PATH) if words else None
    if found is None:
        raise UsageError(f"{text!r}: there is no such command")
    program = Path(found).absolute()
    return Subject(program.name, read_version(program), (str(program), *words[1:]))


def read_version(program: Path) -> str:
    """Return what the program says of itself; where it does not know, what `make peers` wrote down beside it."""
    try:
        done = subprocess.run(
            [program, "--version"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{program} --version: {error}") from error
    said = parse_version(done.stdout + done.stderr)
    record = program.with_name(f"{program.name}.version")
    if said in UNKNOWN and record.exists():
        return record.read_text().strip()
    return said or "of unknown version"


def parse_version(text: str) -> str:
    """Return the last word of the first line: daemons print their version alone, or after their name."""
    lines = text.strip().splitlines()
    return lines[0].split()[-1] if lines and lines[0].split() else ""
