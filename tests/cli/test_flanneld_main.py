"""flanneld's exit codes and what it prints, by the real executable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flanneld_py import __version__

FLANNELD = Path(sys.executable).with_name("flanneld")
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("FLANNELD_")}


def run(*words, **environ):
    return subprocess.run(
        [FLANNELD, *words], check=False, capture_output=True, text=True, env=ENVIRONMENT | environ, timeout=30
    )


def test_version():
    for words in (("--version",), ("-version",), ("--version=true", "--etcd-prefix=/x")):
        done = run(*words)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_lists_the_flags(word):
    done = run(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--etcd-endpoints\n" in done.stdout
    assert "--subnet-lease-renew-margin\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--nonsense",), "flanneld: unknown flag --nonsense; --help lists those there are\n"),
        (("--healthz-port=x",), "flanneld: --healthz-port: 'x' is no integer; expected 0 to 65535\n"),
        (("--etcd-endpoints=x",), None),
    ],
)
def test_wrong_use_exits_2_with_one_line(words, told):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert told is None or done.stderr == told


def test_wrong_variable_exits_2():
    done = run(FLANNELD_HEALTHZ_PORT="x")
    assert done.returncode == 2
    assert "FLANNELD_HEALTHZ_PORT: 'x' is no integer" in done.stderr


def test_what_cannot_go_on_exits_1_with_one_line_of_error(tmp_path):
    # The control socket cannot be made where a file is in the place of its folder.
    (tmp_path / "file").write_text("")
    done = run(f"--subnet-file={tmp_path / 'file' / 'subnet.env'}", "--etcd-endpoints=http://127.0.0.1:9")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = [line.partition(" ERROR ")[2] for line in done.stderr.splitlines() if "ERROR" in line]
    assert told == [f"cannot go on: {tmp_path / 'file'}: File exists"]
