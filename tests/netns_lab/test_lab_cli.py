import argparse
import subprocess
import sys

import pytest

from netns_lab.cli import build_parser, lab_name, pod_name, positive


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "COMMAND"),
        (["nonsense"], "invalid choice"),
        (["--lab", "../x", "up"], "a lab's name is made of"),
        (["ping", "--count", "0"], "not a number from 1 up"),
        (["pod", "add", "Pod_A", "node1"], "a name is 1 to 15"),
        (["pod"], "add|del"),
    ],
)
def test_wrong_usage_ends_with_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_command_keeps_its_own_options():
    parsed = build_parser().parse_args(["--lab", "x", "exec", "pod-a", "--", "ls", "--lab", "-l"])
    assert (parsed.lab, parsed.place, parsed.command[-3:]) == ("x", "pod-a", ["ls", "--lab", "-l"])


@pytest.mark.parametrize("text", ["", ".x", "a/b", "x" * 65])
def test_names_of_labs_cannot_leave_their_folder(text):
    with pytest.raises(argparse.ArgumentTypeError):
        lab_name(text)


def test_good_names_and_numbers_pass():
    assert (lab_name("my.lab-1"), pod_name("web-1"), positive("12")) == ("my.lab-1", "web-1", 12)


@pytest.mark.slow
def test_it_starts_without_the_modules_that_only_build_labs():
    code = "import sys, netns_lab.cli; print(*{'pyroute2', 'rich', 'scapy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_no_lab_is_3(lab):
    for words in (["down"], ["ping"], ["status"], ["exec", "node1", "--", "true"], ["pod", "del", "pod-a"]):
        assert "there is no lab at" in lab.run(*words, status=3).stderr


@pytest.mark.slow
def test_a_topology_that_is_missing_or_wrong_is_2(lab, tmp_path):
    assert "No such file" in lab.run("up", tmp_path / "none.toml", status=2).stderr
    assert lab.up("nonsense = 1", status=2).stderr.startswith("netns-lab: ")
