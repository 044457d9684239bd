import shutil
import subprocess

import pytest

from flanneld_py.ctl.completion import encode_completion, list_words
from flanneld_py.ctl.main import main, make_parser


@pytest.fixture(scope="module")
def words():
    return list_words(make_parser())


def complete(script, *typed):
    """What bash offers for the last of the words that are typed."""
    line = " ".join(f"'{word}'" for word in typed)
    code = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(typed) - 1}; _flannelctl; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["flannelctl", "sta"], ["status"]),
        (["flannelctl", "lease", "re"], ["reserve", "release"]),
        (["flannelctl", "lease", "show", "--etcd-pre"], ["--etcd-prefix"]),
        (["flannelctl", "net", "set", "--dry"], ["--dry-run"]),
        (["flannelctl", "completion", "z"], ["zsh"]),
        (["flannelctl", "status", "--j"], ["--json"]),
    ],
)
def test_bash_offers_what_the_parser_takes(words, typed, offered):
    if shutil.which("bash") is None:
        pytest.skip("no bash: apt-get install bash")
    assert complete(encode_completion("bash", words), *typed) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_every_subcommand(shell, words, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in words[""] if not name.startswith("-"))
