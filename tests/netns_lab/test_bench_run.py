"""Whole runs, as small as they get, on a real kernel and a real etcd. What they measure is of no matter here."""

import json
import shlex
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.etcd]

ON_DEMAND = shlex.join([sys.executable, str(Path(__file__).with_name("stand_in_on_demand.py"))])


def figures(file):
    [outcome] = json.loads(file.read_text())["outcomes"]
    return {each["figure"]: each["values"] for each in outcome["series"]}


def test_cold_programs_every_lease_and_leaves_nothing(lab, tmp_path):
    json_file, plot = tmp_path / "run.json", tmp_path / "run.svg"
    done = lab.run("bench", "cold", "--n", "50", "--rounds", "1", "--json", json_file, "--plot", plot)
    assert "| exec → all programmed | s " in done.stdout
    found = figures(json_file)
    assert len(found["exec → all programmed"]) == 1
    assert found["resident at most"][0] >= found["resident"][0] > 1
    assert plot.read_text().startswith("<svg ")
    assert lab.leftovers() == []


def test_two_daemons_play_in_turn(lab):
    daemon = Path(sys.executable).with_name("flanneld")
    done = lab.run("bench", "start", "--n", "1", "--rounds", "1", "--beside", f"{shlex.quote(str(daemon))} --v=0")
    turns = [line for line in done.stdout.splitlines() if "round 1 of 1" in line]
    assert ["(A)" in turns[0], "(B)" in turns[1]] == [True, True]
    assert "second ÷ first" in done.stdout


def test_first_packets_are_timed_with_a_daemon_that_answers_misses(lab, tmp_path):
    json_file = tmp_path / "run.json"
    lab.run("bench", "miss", "--n", "20", "--daemon", ON_DEMAND, "--json", json_file)
    found = figures(json_file)
    assert (found["peers"], found["lost"]) == ([20], [0])
    assert found["kernel entries after"][0] >= found["kernel entries before"][0] + 3 * 20


def test_a_daemon_without_the_mode_is_told(lab, tmp_path):
    daemon = tmp_path / "daemon"
    daemon.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 7 && exit\necho "unknown flag: $*"; exit 2\n')
    daemon.chmod(0o755)
    done = lab.run("bench", "miss", "--n", "1", "--daemon", daemon)
    assert "Note: daemon 7 has no on-demand mode: it ends at --on-demand with status 2" in done.stdout


def test_a_fleet_watches(lab, tmp_path):
    json_file = tmp_path / "run.json"
    lab.run("bench", "fleet", "--n", "10", "--json", json_file)
    assert figures(json_file)["watches"] == [10]
    assert figures(json_file)["events for a joining node"] == [10]


def test_backends_are_timed_beside_the_bare_underlay(lab, tmp_path):
    json_file = tmp_path / "run.json"
    lab.run("bench", "backends", "--seconds", "0.2", "--rounds", "1", "--json", json_file)
    found = figures(json_file)
    for what in ("bare veth", "vxlan", "host-gw"):
        assert found[f"{what}: one TCP stream"][0] > 0
        assert found[f"{what}: CPU of the machine a Gbit"][0] > 0
        assert found[f"{what}: datagrams of 64 bytes that arrived"][0] > 0


def test_a_backend_that_the_daemon_lacks_is_told(lab):
    done = lab.run("bench", "backends", "--seconds", "0.2", "--rounds", "1", "--daemon", "false")
    assert "does not carry packets by vxlan" in done.stdout


def test_a_daemon_that_ends_fails_the_run_and_leaves_nothing(lab):
    done = lab.run("bench", "cold", "--n", "1", "--daemon", "false", status=1)
    assert "has ended with 1" in done.stderr
    assert lab.leftovers() == []
