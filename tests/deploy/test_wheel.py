"""The wheel, built of the source distribution outside the checkout: it runs, and its pages can be read."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from flanneld_py import __version__
from flanneld_py.cli.flanneld_flags import FLAGS

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("source")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    with tarfile.open(folder / f"flanneld_py-{__version__}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / f"flanneld_py-{__version__}"


@pytest.fixture(scope="module")
def environment(source, tmp_path_factory):
    """A virtual environment with the wheel; libraries are those of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    python = folder / "env/bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = (folder / "env/lib").glob("*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env"


def test_what_make_needs_is_in_the_source_distribution(source):
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no checkout")
    left_out = {name for name in done.stdout.splitlines() if not (source / name).exists()}
    assert left_out <= {".gitignore"}


@pytest.mark.parametrize("program", ["flanneld", "flannelctl"])
def test_the_version_comes_from_one_place(environment, program):
    assert run(environment / "bin" / program, "--version", cwd="/") == f"{__version__}\n"
    assert __version__ not in (ROOT / "pyproject.toml").read_text()


def test_the_programs_run_outside_the_checkout(environment, tmp_path):
    assert "usage: netns-lab" in run(environment / "bin/netns-lab", "--help", cwd="/")
    run(environment / "bin/flannelctl", "install", "systemd", "--root", tmp_path, cwd="/")
    unit = (tmp_path / "etc/systemd/system/flanneld.service").read_text()
    assert f"ExecStart={environment}/bin/flanneld " in unit
    told = run(environment / "bin/flannelctl", "cni", "install", f"--bin-dir={tmp_path}", f"--conf-dir={tmp_path}")
    assert "flannel: written" in told


@pytest.mark.parametrize("page", ["man8/flanneld.8", "man1/flannelctl.1", "man1/netns-lab.1"])
def test_the_manual_pages_are_installed_and_well_formed(environment, page):
    file = environment / "share/man" / page
    if shutil.which("mandoc") is None:
        pytest.skip("no mandoc: apt-get install mandoc")
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", file], capture_output=True, text=True, check=False)
    # They have no date, so that they are the same whenever they are built.
    assert [line for line in lint.stdout.splitlines() if "missing date" not in line] == []
    shown = re.sub(".\b", "", run("mandoc", "-T", "ascii", file))  # bold is a letter over itself
    assert "\nNAME\n" in shown
    if page == "man8/flanneld.8":
        assert [flag.name for flag in FLAGS if f"--{flag.name}" not in file.read_text().replace("\\-", "-")] == []
