"""Plays one case at one size: its stage is built, all rounds are played, nothing of it is left.

`run_case` stays outside and needs no privilege; `perform` runs inside the lab's namespaces and hands the outcome back
in a file of the lab's folder.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from netns_lab.bench.cases import CASES
from netns_lab.bench.cases.case import Case, LacksModeError, Turn
from netns_lab.bench.figures import Reading, format_value, gather
from netns_lab.bench.open_files import allow_files
from netns_lab.bench.results import Outcome, decode_outcome, encode_outcome
from netns_lab.bench.stage import Say, Stage
from netns_lab.bench.subject import Subject
from netns_lab.boundary import run_inside, start_holder
from netns_lab.errors import EXIT_OK, LabError
from netns_lab.folder import INSIDE, LabFolder, labs_folder
from netns_lab.up import take_down

OUTCOME = "outcome.json"
SPARE_FILES = 200


class PlayError(LabError):
    """A case could not be played to its end; what went wrong is said already."""


@dataclass(frozen=True, slots=True)
class Play:
    """A case, how large, how often, and for whom."""

    case: Case
    n: int
    seconds: float
    rounds: int
    subjects: tuple[Subject, ...]

    def turn(self, subject: Subject) -> Turn:
        """Return the terms of a round of that subject."""
        other = next((each for each in self.subjects if each != subject), None)
        return Turn(subject, other, self.n, self.seconds)


def run_case(play: Play, say: Say) -> Outcome:
    """Play a case in a lab of its own. Raises LabError."""
    folder = LabFolder(labs_folder(os.environ, os.geteuid()) / f"bench-{os.getpid()}")
    folder.create()
    try:
        leash = start_holder(folder)
        if run_inside(leash.holder, lambda: perform(play, say)) != EXIT_OK:
            raise PlayError(f"{play.case.name}: it was not played to its end; nothing of it is left")
        return decode_outcome(json.loads((folder.root / OUTCOME).read_text()))
    finally:
        take_down(folder)


def perform(play: Play, say: Say) -> int:
    """Inside the lab: build the stage, play all rounds in turn, hand the outcome back. Raises LabError."""
    case, n = play.case, play.n
    if case.about_etcd:
        allow_files(n + SPARE_FILES)
    stage = Stage(case.nodes, case.subnet_length(n), say)
    case.prepare(stage, n)
    rounds: dict[Subject, list[list[Reading]]] = {subject: [] for subject in play.subjects}
    notes: dict[Subject, str] = {}
    for number in range(1, play.rounds + 1):
        for subject in play.subjects:
            if subject in notes:
                continue
            try:
                readings = case.play(stage, play.turn(subject))
            except LacksModeError as lack:
                notes[subject] = f"{subject.label} {lack}"
                say(notes[subject])
            else:
                rounds[subject].append(readings)
                say(f"round {number} of {play.rounds}, {subject.label}: {in_short(readings)}")
            stage.reset()
    series = [each for subject, played in rounds.items() for each in gather(case.name, n, subject.label, played)]
    labels = tuple(subject.label for subject in play.subjects)
    outcome = Outcome(case.name, n, CASES[case.name], labels, tuple(series), tuple(notes.values()))
    (INSIDE / OUTCOME).write_text(json.dumps(encode_outcome(outcome)))
    return EXIT_OK


def in_short(readings: Sequence[Reading]) -> str:
    """Write a round's figures on one line."""
    return ", ".join(f"{each.figure} {format_value(each.value)} {each.unit}".strip() for each in readings)
