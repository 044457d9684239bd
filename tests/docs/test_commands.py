"""The commands in the documents: their words are known, and those about leases and nodes are run on a real node."""

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from flanneld_py.cli.flags import parse_flags
from flanneld_py.cli.flanneld_flags import FLAGS
from flanneld_py.ctl.main import make_parser
from netns_lab.cli import build_parser
from tests.ctl.test_ctl_node import pair, run
from tests.test_daemon import cluster, empty_cluster

__all__ = ["cluster", "empty_cluster", "pair"]

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
CHECKS = {
    check
    for file in (ROOT / "flanneld_py/ctl/checks").glob("*.py")
    for check in re.findall(r'Finding\(\s*"([a-z-]+)"', file.read_text())
}


def read_commands(file):
    """The lines of blocks, and what stands between backquotes, that begin with one of our programs."""
    text = file.read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(flannelctl [^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [re.sub(r"^\.venv/bin/", "", line.strip()) for line in lines]
    return [line for line in lines if re.match(r"(flannelctl|netns-lab|flanneld)( |$)", line)]


COMMANDS = sorted({(file.name, line) for file in DOCUMENTS for line in read_commands(file)})


def is_whole(line):
    """Whether a line is a command and not the name of one: no placeholder in capitals, all words that it needs."""
    return not re.search(r"[A-Z]{3,}\b(?!=)|…|\.toml|\|", line) and len(line.split()) > 1


@pytest.mark.parametrize(("file", "line"), [one for one in COMMANDS if is_whole(one[1])])
def test_the_words_of_a_command_are_known(file, line):
    program, *words = shlex.split(line)
    if program == "flanneld":
        parse_flags(FLAGS, words, {})
        return
    parser = make_parser() if program == "flannelctl" else build_parser()
    with contextlib.suppress(SystemExit):
        parser.parse_args(words)
        return
    # The name of a command that takes more words stands for it in a sentence.
    known = {" ".join(row.split()[: len(line.split())]) for row in documented()}
    assert line in known, f"{file}: {line}"


def documented():
    text = (ROOT / "docs" / "flannelctl.md").read_text()
    return re.findall(r"^\| `(flannelctl [^`]*)`", text, re.MULTILINE)


def test_there_are_commands():
    assert len(COMMANDS) > 30


def test_every_check_is_in_the_troubleshooting_and_no_other():
    named = set(re.findall(r"\[([a-z-]+)\](?!\()", (ROOT / "docs" / "troubleshooting.md").read_text()))
    assert named == CHECKS
    assert len(CHECKS) > 25


READING = ("status", "peers", "doctor", "trace", "leases", "lease show", "net show", "net set SubnetLen=25 --dry-run")


@pytest.mark.kernel
@pytest.mark.etcd
def test_commands_that_read_run_on_a_node(pair):
    one, two, key = pair
    own = one.daemons[-1].key
    etcd = f"--etcd-endpoints={one.cluster.etcd.url}"
    ran = 0
    for _, line in COMMANDS:
        _, *words = shlex.split(line)
        if not (line.startswith("flannelctl ") and is_whole(line)) or not " ".join(words).startswith(READING):
            continue
        names = {"10.5.1.7": own.replace(".0-24", ".7"), "10.5.2.9": key.replace(".0-24", ".9"), "10.5.2.0/24": key}
        words = [names.get(word, two.address if word.startswith("172.30.") else word) for word in words]
        if words in (["lease"], ["net"]) or (words[0] == "trace" and len(words) < 3) or words == ["lease", "show"]:
            continue
        takes_etcd = words[0] not in {"status", "peers"}
        status, _, errors = run(one, *words, *([etcd] if takes_etcd else []))
        # What is asked for is there; SubnetLen=25 is refused since the leases would not fit.
        assert status in ({1} if "SubnetLen=25" in words else {0, 3}), f"{line}: {errors}"
        ran += 1
    assert ran >= 8


WRITING = ("lease reserve", "net set Network=", "cleanup --dry-run", "lease release 172.")


@pytest.mark.kernel
@pytest.mark.etcd
def test_commands_that_write_run_on_a_node(pair):
    one, two, key = pair
    two.daemons[-1].kill()
    lines = {line for _, line in COMMANDS if line.startswith("flannelctl ") and is_whole(line)}
    ran = 0
    for start in WRITING:
        for line in sorted(line for line in lines if line.removeprefix("flannelctl ").startswith(start)):
            words = [{"10.5.2.0/24": key, "172.30.0.12": two.address}.get(word, word) for word in shlex.split(line)[1:]]
            if start == "cleanup --dry-run":
                one.daemons[-1].stop()  # it takes nothing from under a daemon
            etcd = [] if "cleanup" in words else [f"--etcd-endpoints={one.cluster.etcd.url}"]
            status, _, errors = run(one, *words, *etcd)
            assert status in {0, 3}, f"{line}: {errors}"
            ran += 1
    assert ran >= 6
