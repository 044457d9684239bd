"""The files of deploy/systemd, as `flannelctl install systemd` puts them in place, judged by systemd's own tools."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flanneld_py.cli.flags import parse_flags
from flanneld_py.cli.flanneld_flags import FLAGS
from flanneld_py.ctl.main import main

SOURCE = Path(__file__).parent.parent.parent / "deploy" / "systemd"
MOST_EXPOSED = 4.0
UNIT = "etc/systemd/system/flanneld.service"
ENVIRONMENT = "etc/flanneld-py/flanneld.env"


@pytest.fixture
def analyze():
    """A function that runs systemd-analyze and returns the whole of it."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")

    def run(*words):
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with everything installed, beside the executables of a package."""
    for name in ("flanneld", "flannelctl"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "flannelctl")])
    assert main(["install", "systemd", "--root", str(tmp_path)]) == 0
    return tmp_path


def test_everything_is_put_in_place(root, capsys):
    placed = {path.read_bytes() for path in (root / "etc").rglob("*") if path.is_file()}
    files = {*SOURCE.iterdir(), *SOURCE.with_name("NetworkManager").iterdir()} - {SOURCE / "docker-flannel.conf"}
    unchanged = {path.read_bytes() for path in files}
    assert len(unchanged - placed) == 1  # the unit, which names our executable
    assert f"ExecStart={root / 'flanneld'} $FLANNELD_OPTIONS\n" in (root / UNIT).read_text()
    assert (root / ENVIRONMENT).stat().st_mode & 0o777 == 0o600
    (root / ENVIRONMENT).write_text("FLANNELD_ETCD_PASSWORD=x\n")
    assert main(["install", "systemd", "--root", str(root)]) == 0
    assert f"{root / ENVIRONMENT}: left alone" in capsys.readouterr().out
    assert (root / ENVIRONMENT).read_text() == "FLANNELD_ETCD_PASSWORD=x\n"


def test_systemd_finds_nothing_wrong_with_the_unit(root, analyze):
    done = analyze("verify", "--man=no", root / UNIT)
    ours = [line for line in done.stderr.splitlines() if "flanneld" in line]
    assert (done.returncode, ours) == (0, [])


def test_dockers_own_unit_takes_our_addition(root, analyze):
    unit = Path("/lib/systemd/system/docker.service")
    if not unit.exists():
        pytest.skip(f"no {unit}: apt-get install docker.io")
    folder = root / "etc/systemd/system"
    (folder / "docker.service.d").mkdir()
    text = (SOURCE / "docker-flannel.conf").read_text()
    # systemd looks in its own folders alone for what is named without one, and we have nothing in these.
    addition = text.replace("=flannelctl", f"={root / 'flannelctl'}")
    (folder / "docker.service.d/flannel.conf").write_text(addition)
    shutil.copy(unit, folder)
    shutil.copy(unit.with_name("docker.socket"), folder)
    done = analyze("verify", "--man=no", folder / "docker.service")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_unit_would_be_found(root, analyze):
    unit = root / UNIT
    unit.write_text(unit.read_text().replace("WatchdogSec", "WatchdogSeconds"))
    assert "WatchdogSeconds" in analyze("verify", "--man=no", unit).stderr


def test_the_unit_is_little_exposed(root, analyze):
    done = analyze("security", "--offline=yes", "--no-pager", root / UNIT)
    told = re.search(r"Overall exposure level for flanneld.service: ([0-9.]+)", done.stdout)
    assert told, done.stdout + done.stderr
    assert float(told[1]) < MOST_EXPOSED


def test_tmpfiles_are_made(root):
    program = shutil.which("systemd-tmpfiles")
    if program is None:
        pytest.skip("no systemd-tmpfiles: apt-get install systemd")
    text = (root / "etc/tmpfiles.d/flanneld.conf").read_text()
    config = root / "mine.conf"  # owned by us, whoever we are
    config.write_text(text.replace("root root", "- -"))
    done = subprocess.run(
        [program, "--create", f"--root={root}", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (root / "run/flannel").stat().st_mode & 0o777 == 0o755
    assert (root / "var/lib/cni/flannel").stat().st_mode & 0o777 == 0o700


def test_every_variable_of_the_environment_file_is_one():
    text = (SOURCE / "flanneld.env").read_text()
    named = dict(re.findall(r"^#?(FLANNELD_\w+)=(.*)$", text, re.MULTILINE))
    words = named.pop("FLANNELD_OPTIONS").split()
    known = {flag.variable for flag in FLAGS}
    assert named
    assert named.keys() <= known
    assert parse_flags(FLAGS, words, named)["on-demand"]
