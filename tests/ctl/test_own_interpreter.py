"""The plugin with an interpreter of its own, on a host where no other can be found."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from flanneld_py.ctl.main import main
from flanneld_py.ctl.own_interpreter import FOLDER

ROOT = Path(__file__).parents[2]


def install(folder):
    words = ["--bin-dir", str(folder / "bin"), "--conf-dir", str(folder / "net.d"), "--with-interpreter"]
    assert main(["cni", "install", *words]) == 0
    return folder / "bin" / "flannel"


@pytest.fixture(scope="module")
def executable(tmp_path_factory):
    return install(tmp_path_factory.mktemp("host"))


def ask_version(executable):
    done = subprocess.run([executable], env={"CNI_COMMAND": "VERSION"}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["supportedVersions"]


def run_python(executable, code):
    """Run code by the interpreter that the script names."""
    words = executable.read_text().split(" -IS ")[0].removeprefix("#!/bin/sh\nexec ").split()
    done = subprocess.run([*words, "-IS", "-c", code], capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plugin_runs_by_what_lies_beside_it_alone(executable):
    assert "1.0.0" in ask_version(executable)
    told = "import sys, json; json.dump([sys.path, open('/proc/self/maps').read().split()], sys.stdout)"
    path, mapped = json.loads(run_python(executable, told))
    tree = str(executable.parent / FOLDER)
    used = [*path[1:], *(word for word in mapped if "/" in word and ".so" in word)]
    assert used
    assert [file for file in used if not file.startswith(tree)] == []


def test_debians_interpreter_needs_nothing_of_its_host_either(tmp_path):
    debians = Path("/usr/bin/python3")
    if not debians.exists():
        pytest.skip(f"no {debians}: apt-get install python3")
    # Its libz.so.1 is a link to what the process maps.
    code = "import sys; sys.path.append(sys.argv.pop(1)); from flanneld_py.ctl.main import main; sys.exit(main())"
    words = ["cni", "install", f"--bin-dir={tmp_path}", f"--conf-dir={tmp_path}", "--with-interpreter"]
    done = subprocess.run([debians, "-c", code, ROOT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    executable = tmp_path / "flannel"
    mapped = run_python(executable, "print(open('/proc/self/maps').read())").split()
    used = [word for word in mapped if "/" in word and ".so" in word]
    assert used
    assert [file for file in used if not file.startswith(str(tmp_path))] == []


def test_all_that_the_plugin_may_import_is_there(executable):
    tree = next((executable.parent / FOLDER).iterdir())
    code = f"""
import sys, pkgutil, importlib
sys.path.append({str(tree / "packages")!r})
import flanneld_py, cni_plugin
for package in (flanneld_py, cni_plugin):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
import hashlib, subprocess, socket, ipaddress
print(hashlib.sha512(b"").hexdigest()[:4])
"""
    assert run_python(executable, code) == "cf83\n"


def test_an_error_is_told_as_the_specification_says(executable):
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "x",
        "CNI_NETNS": "/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/",
    }
    done = subprocess.run([executable], env=environ, input="{", capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 8)


def test_installing_again_changes_nothing_and_leaves_nothing(tmp_path, capsys):
    executable = install(tmp_path)
    before = executable.read_bytes()
    trees = list((executable.parent / FOLDER).iterdir())
    assert len(trees) == 1
    stale = executable.parent / FOLDER / "stale"
    stale.mkdir()
    capsys.readouterr()
    install(tmp_path)
    assert f"{trees[0]}: up to date" in capsys.readouterr().out
    assert executable.read_bytes() == before
    assert list((executable.parent / FOLDER).iterdir()) == trees
    assert os.access(executable, os.X_OK)
