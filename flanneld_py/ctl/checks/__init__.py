"""What `flannelctl doctor` checks: facts that were read, judged by one pure function for each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flanneld_py.ctl.checks import daemon, forwarding, pods, tunnel, uplink
from flanneld_py.ctl.checks.finding import ERROR

if TYPE_CHECKING:
    from flanneld_py.ctl.checks.facts import Facts
    from flanneld_py.ctl.checks.finding import Finding

_GROUPS = (daemon, uplink, tunnel, forwarding, pods)


def judge_all(facts: Facts) -> list[Finding]:
    """Return what all checks find, errors first."""
    found = [finding for group in _GROUPS for finding in group.judge(facts)]
    return sorted(found, key=lambda finding: finding.severity != ERROR)
