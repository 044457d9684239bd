"""The commands in the documents: their words are known, and there is a test that runs them."""

import re

import pytest

from tests.docs.commands import COMMANDS, GROUPS, ROOT, find_group, is_known, is_whole

CHECKS = {
    check
    for file in (ROOT / "flanneld_py/ctl/checks").glob("*.py")
    for check in re.findall(r'Finding\(\s*"([a-z-]+)"', file.read_text())
}


@pytest.mark.parametrize(("file", "line"), [one for one in COMMANDS if is_whole(one[1])])
def test_a_command_is_known_and_run(file, line):
    if is_known(line):
        assert find_group(line), f"{file}: no test runs {line}"
        return
    # The name of a command that takes more words stands for it in a sentence.
    known = {" ".join(row.split()[: len(line.split())]) for row in documented()}
    verbs = {start for starts in GROUPS.values() for start in starts}
    assert line in known | verbs, f"{file}: {line}"


def documented():
    text = (ROOT / "docs" / "flannelctl.md").read_text()
    return re.findall(r"^\| `(flannelctl [^`]*)`", text, re.MULTILINE)


def test_there_are_commands():
    assert len(COMMANDS) > 60


def test_every_check_is_in_the_troubleshooting_and_no_other():
    named = set(re.findall(r"\[([a-z-]+)\](?!\()", (ROOT / "docs" / "troubleshooting.md").read_text()))
    assert named == CHECKS
    assert len(CHECKS) > 25
