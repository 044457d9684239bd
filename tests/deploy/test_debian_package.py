"""The Debian package, unpacked: what is in it runs, from where it lies. make test-full builds it beforehand."""

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from flanneld_py import __version__
from flanneld_py.cli.flanneld_flags import FLAGS

DIST = Path(__file__).parents[2] / "dist"

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package():
    found = sorted(DIST.glob(f"flanneld-py_{__version__}_*.deb"))
    if not found:
        pytest.skip(f"no package in {DIST}: make deb builds it")
    return found[0]


@pytest.fixture(scope="module")
def tree(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    run("dpkg-deb", "--extract", package, folder)
    return folder


def test_the_control_file(package):
    told = run("dpkg-deb", "--field", package)
    assert f"Version: {__version__}\n" in told
    assert " python3 (>= 3." in told


def test_the_programs_run_with_their_own_libraries(tree):
    for name in ("flanneld", "flannelctl"):
        assert run(tree / "usr/bin" / name, "--version") == f"{__version__}\n"
    code = "import sys; sys.path.insert(0, sys.argv[1]); import flanneld_py.agent.daemon, h11, yaml, google.protobuf"
    run("/usr/bin/python3", "-I", "-c", code, tree / "usr/lib/flanneld-py")
    assert not (tree / "usr/lib/flanneld-py/netns_lab").exists()


def test_all_of_ours_is_compiled(tree):
    sources = list((tree / "usr/lib/flanneld-py/flanneld_py").rglob("*.py"))
    assert len(sources) > 100
    assert not [one for one in sources if not list((one.parent / "__pycache__").glob(f"{one.stem}.cpython-*.pyc"))]


def test_the_unit_finds_the_program_and_everything_is_in_its_place(tree):
    assert "ExecStart=/usr/bin/flanneld " in (tree / "usr/lib/systemd/system/flanneld.service").read_text()
    for place in ("usr/lib/tmpfiles.d/flanneld.conf", "usr/lib/systemd/network/10-flannel.link"):
        assert (tree / place).is_file()
    assert "complete" in (tree / "usr/share/bash-completion/completions/flannelctl").read_text()


def test_lintian_finds_no_error(package):
    if shutil.which("lintian") is None:
        pytest.skip("no lintian: apt-get install lintian")
    run("lintian", "--allow-root", "--fail-on", "error", package)


@pytest.mark.parametrize("place", ["man8/flanneld.8.gz", "man1/flannelctl.1.gz"])
def test_the_manual_pages_are_well_formed(tree, place):
    text = gzip.decompress((tree / "usr/share/man" / place).read_bytes())
    if "flanneld.8" in place:
        assert all(flag.name.replace("-", "\\-").encode() in text for flag in FLAGS)
    if shutil.which("groff") is None:
        pytest.skip("no groff: apt-get install groff")
    done = subprocess.run(["groff", "-man", "-ww", "-z"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
