"""docs/metrics.md and the alert rules name what the daemon tells, and nothing else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flanneld_py.agent import metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "flanneld.rules.yml"
FAMILIES = [family for group in metrics.FAMILIES.values() for family in group]


def test_every_family_has_its_row():
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\w, ]*?) ?\| (.+) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    told = [(one.name, one.kind, ", ".join(one.labels), one.help.rstrip(".")) for one in FAMILIES]
    assert rows == told


def test_names_have_units_and_counters_end_in_total():
    for family in FAMILIES:
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert family.kind != "histogram" or family.name.endswith("_seconds"), family.name


def test_alerts_ask_for_metrics_that_there_are():
    asked = set(
        re.findall(r"\b(flanneld_\w+)", re.sub(r"^\s*(summary|action):.*", "", RULES.read_text(), flags=re.MULTILINE))
    )
    asked = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert asked
    assert asked <= {family.name for family in FAMILIES}


def test_promtool_accepts_the_alerts():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: apt-get install prometheus")
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True, capture_output=True)
