"""What `flannelctl doctor` checks: facts that were read, judged by one pure function for each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.ctl.checks import daemon, forwarding, pods, probes, tunnel, uplink
from flanneld_py.ctl.checks.finding import ERROR

if TYPE_CHECKING:
    from flanneld_py.ctl.checks.facts import Facts
    from flanneld_py.ctl.checks.finding import Finding

_GROUPS = (daemon, uplink, tunnel, forwarding, pods)
_LOCAL = (uplink, tunnel, forwarding)
"""What is wrong here explains what probes find on all ways."""


def judge_all(facts: Facts) -> list[Finding]:
    """Return what all checks find, errors first."""
    by_group = {group: list(group.judge(facts)) for group in _GROUPS}
    found = [finding for findings in by_group.values() for finding in findings]
    if not any(finding.severity == ERROR for group in _LOCAL for finding in by_group[group]):
        found += probes.judge(facts)
    return sorted(found, key=lambda finding: finding.severity != ERROR)
