"""The wheel and the source distribution, installed by the real pipx and uv into folders of their own.

There is no network: what they need besides is in dist/wheels, where make test-full gathers it beforehand.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from flanneld_py import __version__
from tests.deploy.test_wheel import ROOT, run

WHEELS = ROOT / "dist" / "wheels"
UV = str(Path(sys.executable).with_name("uv"))

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def artifact(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    run(sys.executable, "-m", "hatchling", "build", "-t", request.param, "-d", folder, cwd=ROOT)
    (found,) = folder.iterdir()
    return found


def install_by_pipx(artifact, folder):
    places = {"PIPX_HOME": folder / "home", "PIPX_BIN_DIR": folder / "bin"}
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
    call(places | settings, "pipx", "install", f"{artifact}[ctl]")


def install_by_uv(artifact, folder):
    places = {"UV_TOOL_DIR": folder / "tools", "UV_TOOL_BIN_DIR": folder / "bin", "UV_CACHE_DIR": folder / "cache"}
    settings = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": WHEELS}
    what = f"flanneld-py[ctl] @ {artifact.as_uri()}"
    call(places | settings, UV, "tool", "install", "--python", "/usr/bin/python3", what)


def call(settings, *command):
    run(*command, env=os.environ | {name: str(value) for name, value in settings.items()})


@pytest.mark.parametrize(
    ("installer", "install", "package"),
    [("pipx", install_by_pipx, "apt-get install pipx"), (UV, install_by_uv, "make venv")],
    ids=["pipx", "uv"],
)
def test_the_programs_run_from_where_it_puts_them(artifact, installer, install, package, tmp_path):
    if shutil.which(installer) is None:
        pytest.skip(f"no {installer}: {package}")
    if not WHEELS.exists():
        pytest.skip(f"no {WHEELS}: make wheels gathers what it installs")
    install(artifact, tmp_path)
    programs = tmp_path / "bin"
    for name in ("flanneld", "flannelctl"):
        assert run(programs / name, "--version", cwd="/") == f"{__version__}\n"
    assert "usage: netns-lab" in run(programs / "netns-lab", "--help", cwd="/")
    run(programs / "flannelctl", "install", "systemd", "--root", tmp_path / "root", cwd="/")
    assert (tmp_path / "root/etc/NetworkManager/conf.d/90-flannel.conf").exists()
    run(programs / "flannelctl", "cni", "install", f"--bin-dir={tmp_path}", f"--conf-dir={tmp_path}", cwd="/")
    told = run(tmp_path / "flannel", env={"CNI_COMMAND": "VERSION"}, input='{"cniVersion": "1.0.0"}')
    assert "1.0.0" in json.loads(told)["supportedVersions"]
