"""The command `netns-lab chaos`: a lab of its own from start to end, and the report."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from netns_lab.boundary import run_inside
from netns_lab.chaos.run import report, run_chaos
from netns_lab.errors import EXIT_FAILED, EXIT_OK
from netns_lab.folder import INSIDE, LabFolder
from netns_lab.topology import load_topology, parse_topology
from netns_lab.up import bring_up, take_down

if TYPE_CHECKING:
    from netns_lab.up import Say


def chaos(folder: LabFolder, *, minutes: float, seed: int, only: str, say: Say) -> int:
    """Make the lab, make faults in it, and remove it all, whatever happens; return the exit status."""
    values = load_topology(resources.files("netns_lab.chaos").joinpath("lab.toml").read_text())
    topology = parse_topology(values)
    leash = bring_up(folder, values, say)

    def work() -> int:
        verdict = run_chaos(LabFolder(INSIDE), topology, minutes=minutes, seed=seed, only=only, say=say)
        print("\n".join(["", *report(verdict)]))
        return EXIT_OK if verdict.good else EXIT_FAILED

    try:
        return run_inside(leash.holder, work)
    finally:
        take_down(folder)
