"""The commands in the documents, and which test runs which of them."""

import contextlib
import io
import re
import shlex
from pathlib import Path

from flanneld_py.cli.flags import parse_flags
from flanneld_py.cli.flanneld_flags import FLAGS
from flanneld_py.ctl.main import make_parser
from netns_lab.cli import build_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]

GROUPS = {
    "read": (
        *("flannelctl status", "flannelctl peers", "flannelctl doctor", "flannelctl trace", "flannelctl leases"),
        *("flannelctl lease show", "flannelctl net show", "flannelctl net set SubnetLen=25 --dry-run"),
    ),
    "write": ("flannelctl lease reserve", "flannelctl lease release", "flannelctl net set", "flannelctl cleanup"),
    "probe": ("flannelctl probe",),
    "place": (
        *("flannelctl cni install", "flannelctl install systemd", "flannelctl docker-opts"),
        "flannelctl completion",
    ),
    "lab": tuple(f"netns-lab {verb}" for verb in ("up", "status", "ping", "prove", "trace", "exec", "web", "down")),
    "demo": ("netns-lab demo",),
    "kubernetes": ("netns-lab up --kubernetes", "netns-lab fakes"),
    "chaos": ("netns-lab chaos",),
    "bench": ("netns-lab bench",),
}
"""How the commands of a group begin. A command is of the group whose beginning fits it best."""


def read_commands(file):
    """The lines of blocks, and what stands between backquotes, that begin with one of our programs."""
    text = file.read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    lines += [word for line in lines for word in re.findall(r"\$\((flannelctl [^)]*)\)", line)]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(words.split()) for words in re.findall(r"`((?:flannelctl|netns-lab) [^`]*)`", prose)]
    lines = [re.sub(r"^\.venv/bin/", "", line.strip()) for line in lines]
    return [line for line in lines if re.match(r"(flannelctl|netns-lab|flanneld)( |$)", line)]


COMMANDS = sorted({(file.name, line) for file in DOCUMENTS for line in read_commands(file)})


def is_whole(line):
    """Whether a line is a command and not the name of one: no placeholder in capitals, all words that it needs."""
    return not re.search(r"[A-Z]{3,}\b(?!=)|…|\.toml|\|", line) and len(line.split()) > 1


def is_known(line):
    """Whether the program takes these words."""
    program, *words = shlex.split(line)
    if program == "flanneld":
        parse_flags(FLAGS, words, {})
        return True
    parser = make_parser() if program == "flannelctl" else build_parser()
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        parser.parse_args(words)
        return True
    return False


def find_group(line):
    """Return the name of the group that a command is of, or None."""
    fits = {start: name for name, starts in GROUPS.items() for start in starts if f"{line} ".startswith(f"{start} ")}
    return fits[max(fits, key=len)] if fits else None


def commands_of(group):
    """Return the commands of a group, each once. `net set` without a word is the name of the command."""
    lines = sorted({line for _, line in COMMANDS if is_whole(line) and is_known(line)} - {"flannelctl net set"})
    return [line for line in lines if find_group(line) == group]
