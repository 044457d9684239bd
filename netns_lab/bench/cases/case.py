"""What a case is: a name, its sizes, and a function that plays one round for one subject on a stage."""

from collections.abc import Callable
from dataclasses import dataclass

from netns_lab.bench.figures import Reading
from netns_lab.bench.leases import make_leases, subnet_length
from netns_lab.bench.stage import Stage
from netns_lab.bench.subject import Subject
from netns_lab.errors import LabError


class LacksModeError(LabError):
    """The subject cannot do what the case is about; the message says what."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of one subject: how large (leases or peers, the case says which), and seconds to look for."""

    subject: Subject
    other: Subject | None
    n: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a case goes unless told otherwise: its sizes, one after the other, and rounds at each."""

    ns: tuple[int, ...]
    seconds: float = 0
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Case:
    """A named measurement. `prepare` runs once before all rounds; the stage is reset after each `play`.

    `spare` is how many leases `play` needs beyond those that `n` says. A case about etcd has no daemon as its subject.
    """

    name: str
    play: Callable[[Stage, Turn], list[Reading]]
    prepare: Callable[[Stage, int], None]
    default: Extent
    quick: Extent
    nodes: int = 1
    spare: int = 0
    about_etcd: bool = False

    def subnet_length(self, n: int) -> int:
        """Return the length of subnets with which there is room for all leases. Raises ValueError."""
        return subnet_length(n + self.spare)


def load_leases(stage: Stage, n: int) -> None:
    """Have `n` leases in etcd before anything starts."""
    stage.etcd.load(make_leases(n, stage.length), stage.say)
    stage.say(f"{n:,} leases are in etcd")


def begin_empty(_stage: Stage, _n: int) -> None:
    """Begin without any lease."""
