"""Which fault comes when, and what loss it excuses. Pure: the same seed gives the same faults in the same order."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MARGIN = 1.0
"""Seconds around a fault in which a packet may be lost that was sent before it, or is still on its way."""
HOLD = (0.5, 4.0)
"""Seconds that a fault lasts before it is undone."""
TWO_AT_ONCE = 0.3


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: its name, the node or member that it hits, how long it stays."""

    fault: str
    target: str
    hold: float


@dataclass(frozen=True, slots=True)
class Excuse:
    """Pairs with a pod on one of these nodes may lose packets from `start` to `end`, on the monotonic clock."""

    nodes: frozenset[str]
    start: float
    end: float


def make_steps(seed: int, targets: Mapping[str, Sequence[str]]) -> Iterator[tuple[Step, ...]]:
    """Yield the faults without end, one or two at a time; `targets` says by its name what each fault can hit."""
    rng = random.Random(seed)  # noqa: S311  # repeatable
    while True:
        names = [rng.choice(sorted(targets))]
        others = sorted(name for name in targets if is_on_node(name) != is_on_node(names[0]))
        # What happens to the store and its keys comes one at a time: a store that is away takes no writes.
        if others and rng.random() < TWO_AT_ONCE:
            names.append(rng.choice(others))
        yield tuple(Step(name, rng.choice(list(targets[name])), round(rng.uniform(*HOLD), 2)) for name in names)


def is_on_node(name: str) -> bool:
    """Tell whether a fault happens on a node, not in the store."""
    return name.partition(":")[0] in {"daemon", "kernel"}


def find_unexcused(
    losses: Mapping[tuple[str, str], Sequence[float]], nodes: Mapping[str, str], excuses: Sequence[Excuse]
) -> dict[tuple[str, str], list[float]]:
    """Return the losses, by pair of pods, that no fault at either end excuses; `nodes` says where each pod is."""
    found: dict[tuple[str, str], list[float]] = {}
    for pair, times in losses.items():
        ends = {nodes[pod] for pod in pair}
        left = [
            at
            for at in times
            if not any(ends & excuse.nodes and excuse.start - MARGIN <= at <= excuse.end + MARGIN for excuse in excuses)
        ]
        if left:
            found[pair] = left
    return found
