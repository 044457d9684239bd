import importlib
from pathlib import Path

import pytest

from netns_lab.bench.cases import CASES, find_case
from netns_lab.bench.command import find_subjects, plan_plays
from netns_lab.bench.subject import Subject, parse_version
from netns_lab.cli import build_parser
from netns_lab.errors import UsageError

ONE = (Subject("flanneld", "1", ("/bin/flanneld",)),)


def parse(*words):
    return build_parser().parse_args(["bench", *words])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "CASE"),
        (("nonsense",), "invalid choice"),
        (("cold", "--n", "ten"), "not a number from 0 up"),
        (("cold", "--n", "10,"), "not a number from 0 up"),
        (("cold", "--rounds", "0"), "not a number from 1 up"),
        (("idle", "--seconds", "-1"), "not a number of seconds"),
        (("idle", "--seconds", "inf"), "not a number of seconds"),
        (("cold", "--plot", "x.bmp"), "drawn as .svg"),
    ],
)
def test_wrong_usage_ends_with_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_every_case_has_its_file_and_its_own_name():
    for name in CASES:
        assert find_case(name).name == name
    folder = Path(importlib.import_module("netns_lab.bench.cases").__file__).parent
    files = {path.stem.replace("_", "-") for path in folder.glob("*.py") if "\nCASE = " in path.read_text()}
    assert files == set(CASES)


def test_help_lists_every_case(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in (*CASES, "all"))


def test_sizes_and_rounds_that_are_given_win():
    plays = plan_plays(parse("cold", "--n", "5,70", "--rounds", "2"), ONE)
    assert [(play.case.name, play.n, play.rounds, play.subjects) for play in plays] == [
        ("cold", 5, 2, ONE),
        ("cold", 70, 2, ONE),
    ]


def test_quick_is_no_larger_and_all_plays_everything():
    for name in CASES:
        case = find_case(name)
        assert max(case.quick.ns) <= max(case.default.ns)
        assert case.quick.rounds <= case.default.rounds
    assert {play.case.name for play in plan_plays(parse("all", "--quick"), ONE)} == set(CASES)


def test_what_does_not_fit_into_the_network_is_refused():
    with pytest.raises(UsageError, match="room"):
        plan_plays(parse("cold", "--n", "2000000"), ONE)


def test_a_turn_names_the_other_subject():
    both = (*ONE, Subject("flannel", "2", ("/bin/flannel",)))
    [play] = plan_plays(parse("restart-loss"), both)
    assert play.turn(both[0]).other == both[1]
    assert play.turn(both[1]).other == both[0]
    [alone] = plan_plays(parse("restart-loss"), ONE)
    assert alone.turn(ONE[0]).other is None


@pytest.fixture
def program(tmp_path):
    def make(name, output, record=None):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{output}\n")
        file.chmod(0o755)
        if record:
            file.with_name(f"{name}.version").write_text(f"{record}\n")
        return file

    return make


def test_the_version_is_asked_for_and_else_read_from_the_record(program):
    new = program("new", "echo v3")
    dev = program("dev", "echo dev >&2", record="v0.26.7")
    first, second = find_subjects(f"{new} --flag", f"{dev} --other")
    assert (first.label, first.command) == ("new v3", (str(new), "--flag"))
    assert (second.label, second.command) == ("dev v0.26.7", (str(dev), "--other"))


def test_two_of_the_same_are_told_apart(program):
    same = program("same", "echo 1")
    assert [subject.label for subject in find_subjects(str(same), f"{same} -v=4")] == ["same 1 (A)", "same 1 (B)"]


def test_a_missing_daemon_is_named():
    with pytest.raises(UsageError, match="no-such-daemon"):
        find_subjects("no-such-daemon --flag", None)


def test_versions():
    assert parse_version("0.1.0\n") == "0.1.0"
    assert parse_version("etcd Version: 3.5.1\nGit SHA: e8732fb5f\n") == "3.5.1"
    assert parse_version("\n") == ""
