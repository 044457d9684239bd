"""A run of `netns-lab bench`: from its arguments to tables, JSON and a plot."""

import argparse
import json
import shlex
import time

from netns_lab.bench.arguments import ALL
from netns_lab.bench.cases import CASES, find_case
from netns_lab.bench.cases.case import Case
from netns_lab.bench.plot import draw_run
from netns_lab.bench.results import Outcome, Run, describe_machine, encode_run
from netns_lab.bench.runner import Play, run_case
from netns_lab.bench.subject import Subject, find_subject
from netns_lab.bench.summary import summary_text
from netns_lab.bench.table import outcome_text
from netns_lab.errors import EXIT_OK, UsageError
from netns_lab.programs import find_etcd
from netns_lab.progress import Progress


def bench(arguments: argparse.Namespace) -> int:
    """Play what the arguments say and show the outcome. Raises LabError."""
    say = Progress()
    subjects = find_subjects(arguments.daemon, arguments.beside)
    plays = plan_plays(arguments, subjects)
    machine = describe_machine()
    outcomes: list[Outcome] = []
    for play in plays:
        say(f"{play.case.name}, N = {play.n:,}: {' beside '.join(subject.label for subject in play.subjects)}")
        outcomes.append(run_case(play, say))
        print(f"\n{outcome_text(outcomes[-1])}\n", flush=True)
    run = Run(
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        machine,
        tuple(subject.label for subject in subjects),
        tuple(outcomes),
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(encode_run(run), indent=1) + "\n")
    if arguments.plot:
        arguments.plot.write_text(draw_run(run))
    print(summary_text(run))
    return EXIT_OK


def plan_plays(arguments: argparse.Namespace, subjects: tuple[Subject, ...]) -> list[Play]:
    """Return what is to be played, in order. Raises UsageError."""
    names = list(CASES) if arguments.case == ALL else [arguments.case]
    return [play for name in names for play in plan_case(find_case(name), arguments, subjects)]


def plan_case(case: Case, arguments: argparse.Namespace, subjects: tuple[Subject, ...]) -> list[Play]:
    """Return a case at each of its sizes. Raises UsageError."""
    extent = case.quick if arguments.quick else case.default
    seconds = extent.seconds if arguments.seconds is None else arguments.seconds
    whom = (find_subject(shlex.quote(str(find_etcd()))),) if case.about_etcd else subjects
    plays = []
    for n in arguments.n or extent.ns:
        try:
            case.subnet_length(n)
        except ValueError as error:
            raise UsageError(f"--n {n}: {error}") from error
        plays.append(Play(case, n, seconds, arguments.rounds or extent.rounds, whom))
    return plays


def find_subjects(daemon: str | None, beside: str | None) -> tuple[Subject, ...]:
    """Return the daemons of a run, one or two that can be told apart. Raises UsageError."""
    first = find_subject(daemon)
    if beside is None:
        return (first,)
    second = find_subject(beside)
    if second.label == first.label:
        first = Subject(first.name, f"{first.version} (A)", first.command)
        second = Subject(second.name, f"{second.version} (B)", second.command)
    return (first, second)
