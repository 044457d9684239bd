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


# A zsh at a terminal of its own: what is typed there is completed by Tab, and carried out by a stand-in.
TYPE_IN_ZSH = r"""
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "PS1= ; autoload -U compinit; compinit -D -u; source $1"
zpty -w terminal 'flannelctl() { print -r -- "<$*>" }; print rea""dy'
zpty -r -m terminal line '*ready*'
zpty -w terminal "$2"$'\t'
zpty -r -m terminal line '*<*>*'
print -r -- "$line"
zpty -d terminal
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh: apt-get install zsh")
@pytest.mark.parametrize(
    ("typed", "done"),
    [
        ("flannelctl sta", "status"),
        ("flannelctl docker", "docker-opts"),
        ("flannelctl net set --dry", "net set --dry-run"),
        ("flannelctl lease show --etcd-pre", "lease show --etcd-prefix"),
        ("flannelctl completion z", "completion zsh"),
    ],
)
def test_zsh_completes_what_the_parser_takes(words, typed, done, tmp_path):
    script = tmp_path / "flannelctl.zsh"
    script.write_text(encode_completion("zsh", words))
    command = ["zsh", "-f", "-c", TYPE_IN_ZSH, "zsh", str(script), typed]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert f"<{done}" in told


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish: apt-get install fish")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("flannelctl sta", ["status"]),
        ("flannelctl lease re", ["release", "reserve"]),
        ("flannelctl net set --dry", ["--dry-run"]),
        ("flannelctl completion z", ["zsh"]),
    ],
)
def test_fish_offers_what_the_parser_takes(words, typed, offered, tmp_path):
    script = tmp_path / "flannelctl.fish"
    script.write_text(encode_completion("fish", words))
    command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{typed}'"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={"HOME": str(tmp_path)}).stdout
    assert sorted(line.split("\t")[0] for line in told.splitlines()) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_every_subcommand(shell, words, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in words[""] if not name.startswith("-"))
