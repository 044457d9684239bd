"""How most cases open: a daemon is started beside N leases, and has programmed them all."""

from netns_lab.bench.daemon import Daemon
from netns_lab.bench.entries import KernelEntries
from netns_lab.bench.leases import make_leases
from netns_lab.bench.programmed import make_goal, wait_for_goal
from netns_lab.bench.stage import Stage
from netns_lab.bench.subject import Subject
from netns_lab.places import node_place


def start_programmed(stage: Stage, subject: Subject, n: int) -> tuple[Daemon, float]:
    """Start the first node's daemon; return it and the moment at which all was programmed. Raises LabError."""
    with KernelEntries(node_place(stage.node.name).network) as kernel:
        goal = make_goal(make_leases(n, stage.length), stage.length, kernel)
        daemon = stage.start(stage.node, subject)
        return daemon, wait_for_goal(goal, kernel, daemon)
