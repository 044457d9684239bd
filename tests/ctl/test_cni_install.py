import json
import os
import stat
import subprocess
import sys
from functools import partial

import pytest

from flanneld_py.ctl import cni
from flanneld_py.ctl.cni_files import encode_conflist, encode_executable, encode_ringing_executable
from flanneld_py.ctl.main import main


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "bin", tmp_path / "net.d"


def install(folders):
    return main(["cni", "install", "--bin-dir", str(folders[0]), "--conf-dir", str(folders[1])])


def ask_version(executable):
    done = subprocess.run([executable], env={"CNI_COMMAND": "VERSION"}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_says_what_it_wrote_and_the_executable_runs(folders, capsys):
    assert install(folders) == 0
    executable, conflist = folders[0] / "flannel", folders[1] / "10-flannel.conflist"
    out = capsys.readouterr().out
    assert f"{executable}: written\n" in out
    assert f"{conflist}: written, for flannel; portmap is not installed" in out
    assert stat.S_IMODE(executable.stat().st_mode) == 0o755
    assert ask_version(executable)["supportedVersions"][-1] == "1.1.0"
    assert [file.name for folder in folders for file in folder.iterdir()] == ["flannel", "10-flannel.conflist"]


def test_the_executable_names_an_interpreter_that_no_environment_changes(folders):
    install(folders)
    lines = (folders[0] / "flannel").read_text().splitlines()
    assert lines[0] == "#!/bin/bash -p"
    interpreter, flags = next(line for line in lines if line.startswith("exec ")).split()[1:3]
    assert os.path.realpath(interpreter) == interpreter
    assert flags == "-IS"
    assert "shims" not in interpreter


def test_without_a_shell_that_knows_time_limits_the_interpreter_is_run_at_once(folders, monkeypatch):
    monkeypatch.setattr(cni, "SHELL", "/absent/bash")
    install(folders)
    assert (folders[0] / "flannel").read_text().splitlines()[0].endswith(" -IS")
    assert ask_version(folders[0] / "flannel")["supportedVersions"][-1] == "1.1.0"


def test_the_conflist_is_kube_flannels_with_pods_kept_from_spoofing(folders):
    install(folders)
    content = json.loads((folders[1] / "10-flannel.conflist").read_text())
    assert content["name"] == "cbr0"
    assert content["cniVersion"] == "1.0.0"
    delegate = {"hairpinMode": True, "isDefaultGateway": True, "antiSpoof": True}
    assert content["plugins"] == [{"type": "flannel", "delegate": delegate}]


def test_portmap_follows_where_it_is_installed(folders, capsys):
    install(folders)
    (folders[0] / "portmap").touch(mode=0o755)
    install(folders)
    assert "written, for flannel and portmap" in capsys.readouterr().out
    plugins = json.loads((folders[1] / "10-flannel.conflist").read_text())["plugins"]
    assert plugins[1] == {"type": "portmap", "capabilities": {"portMappings": True}}


def test_a_second_time_changes_nothing(folders, capsys):
    install(folders)
    capsys.readouterr()
    install(folders)
    assert capsys.readouterr().out.count("up to date") == 2


def test_a_conflist_that_was_changed_is_left_alone_and_that_is_said(folders, capsys):
    folders[1].mkdir()
    conflist = folders[1] / "10-flannel.conflist"
    conflist.write_text("{}")
    assert install(folders) == 0
    assert conflist.read_text() == "{}"
    assert "left alone, since it was changed" in capsys.readouterr().out


def test_a_conflist_of_an_earlier_version_is_replaced(folders, capsys):
    folders[1].mkdir()
    conflist = folders[1] / "10-flannel.conflist"
    conflist.write_bytes(encode_conflist(has_portmap=False, anti_spoof=False))
    assert install(folders) == 0
    assert "antiSpoof" in conflist.read_text()


def test_another_plugin_of_this_name_is_replaced_and_that_is_said(folders, capsys):
    folders[0].mkdir()
    (folders[0] / "flannel").write_text("other")
    install(folders)
    assert "written in place of another one" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert install((tmp_path / "file", tmp_path / "net.d")) == 1
    assert f"flannelctl: {tmp_path / 'file'}" in capsys.readouterr().err


def test_a_missing_package_is_named(folders, monkeypatch, capsys):
    monkeypatch.setattr(cni.importlib.util, "find_spec", lambda _: None)
    assert install(folders) == 1
    assert "cni_plugin" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["cni"], ["cni", "instal"], ["cni", "install", "--unknown"]])
def test_a_wrong_command_line_exits_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "name", ["plain", "with space", "qu'ote", 'dou"ble', "back\\slash", "dollar$HOME", "ü", "long" * 60, "new\nline"]
)
def test_interpreters_and_packages_in_folders_of_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    interpreter = folder / "python"
    interpreter.symlink_to(sys.executable)
    packages = folder / "packages"
    (packages / "cni_plugin").mkdir(parents=True)
    (packages / "cni_plugin" / "main.py").write_text("def main():\n    print('reached', flush=True)\n    return 7\n")
    executable = tmp_path / "flannel"
    for encode in (encode_executable, partial(encode_ringing_executable, door=str(folder / "door"))):
        executable.write_bytes(encode(str(interpreter), str(packages)))
        executable.chmod(0o755)
        done = subprocess.run([executable], capture_output=True, text=True, check=False, env={})
        assert (done.returncode, done.stdout, done.stderr) == (7, "reached\n", "")


def test_a_plain_path_needs_no_shell():
    assert encode_executable("/usr/bin/python3.11", "/x").startswith(b"#!/usr/bin/python3.11 -IS\nimport ")
    assert encode_executable("/usr/my bin/python3.11", "/x").startswith(b"#!/bin/sh\n")


def test_the_conflist_golden():
    assert encode_conflist(has_portmap=True).decode() == (
        """\
{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "cniVersions": [
    "1.0.0",
    "1.1.0"
  ],
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true,
        "antiSpoof": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"""
    )
