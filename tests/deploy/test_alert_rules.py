"""Each alert fires on the figures that it is for, says where, and keeps silent on those of a node that is well."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "flanneld.rules.yml"
INSTANCE = 'instance="node1:8081"'
BUCKETS = "flanneld_store_call_duration_seconds_bucket"

WELL = {
    f"flanneld_ready{{{INSTANCE}}}": "1x60",
    f"flanneld_healthy{{{INSTANCE}}}": "1x60",
    f"flanneld_lease_lost{{{INSTANCE}}}": "0x60",
    f"flanneld_lease_remaining_seconds{{{INSTANCE}}}": "80000-60x60",
    f"flanneld_store_up{{{INSTANCE}}}": "1x60",
    f'{BUCKETS}{{{INSTANCE},call="Range",le="0.005"}}': "0+10x60",
    f'{BUCKETS}{{{INSTANCE},call="Range",le="+Inf"}}': "0+10x60",
    f"flanneld_failing_entries{{{INSTANCE}}}": "0x60",
    f'flanneld_drift_total{{{INSTANCE},kind="route"}}': "3x60",
    f'flanneld_tunnel_errors_total{{{INSTANCE},device="flannel.1",direction="transmit"}}': "7x60",
    f'flanneld_cni_duration_seconds_count{{{INSTANCE},verb="ADD",outcome="error"}}': "1x60",
    f'flanneld_probe_peers{{{INSTANCE},state="ok"}}': "9x60",
    f'flanneld_probe_peers{{{INSTANCE},state="no answer"}}': "3x60",
    f'flanneld_probe_peers{{{INSTANCE},state="no overlay"}}': "0x60",
    f'flanneld_probe_peers{{{INSTANCE},state="narrow"}}': "0x60",
    f'flanneld_probe_peers{{{INSTANCE},state="lossy"}}': "0x60",
}
"""Samples a minute, by series, in promtool's notation: first+step x times."""

BROKEN = {
    "FlanneldNotReady": {f"flanneld_ready{{{INSTANCE}}}": "0x60"},
    "FlanneldStuck": {f"flanneld_healthy{{{INSTANCE}}}": "0x60"},
    "FlanneldLeaseLost": {f"flanneld_lease_lost{{{INSTANCE}}}": "1x60"},
    "FlanneldLeaseEnds": {f"flanneld_lease_remaining_seconds{{{INSTANCE}}}": "1700x60"},
    "FlanneldStoreDown": {f"flanneld_store_up{{{INSTANCE}}}": "0x60"},
    "FlanneldStoreSlow": {
        f'{BUCKETS}{{{INSTANCE},call="Range",le="0.005"}}': "0x60",
        f'{BUCKETS}{{{INSTANCE},call="Range",le="5.0"}}': "0+10x60",
        f'{BUCKETS}{{{INSTANCE},call="Range",le="+Inf"}}': "0+10x60",
    },
    "FlanneldKernelRefuses": {f"flanneld_failing_entries{{{INSTANCE}}}": "2x60"},
    "FlanneldLeasesSkipped": {f'flanneld_skipped_leases{{{INSTANCE},reason="other VNI"}}': "1x60"},
    "FlanneldDrift": {f'flanneld_drift_total{{{INSTANCE},kind="route"}}': "0+2x60"},
    "FlanneldTunnelErrors": {
        f'flanneld_tunnel_errors_total{{{INSTANCE},device="flannel.1",direction="transmit"}}': "0+120x60"
    },
    "FlanneldCniFails": {
        f'flanneld_cni_duration_seconds_count{{{INSTANCE},verb="ADD",outcome="error"}}': "0+1x60",
    },
    "FlanneldTunnelCut": {f'flanneld_probe_peers{{{INSTANCE},state="no overlay"}}': "2x60"},
    "FlanneldPathNarrow": {f'flanneld_probe_peers{{{INSTANCE},state="narrow"}}': "1x60"},
    "FlanneldPathLossy": {f'flanneld_probe_peers{{{INSTANCE},state="lossy"}}': "1x60"},
}
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}


def test_every_alert_is_tried():
    assert BROKEN.keys() == ALERTS.keys()


@pytest.fixture
def fires(tmp_path):
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")

    def fires(series):
        """Return the alerts that fire after 50 minutes of these samples, each with its summary."""
        tests = [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": "50m", "alertname": name, "exp_alerts": [{"exp_labels": {"never": "there"}}]}
                    for name in ALERTS
                ],
            }
        ]
        file = tmp_path / "test.yml"
        file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
        # It fails for each alert, since none has such a label, and so tells what there is.
        done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
        told = done.stdout + done.stderr
        found = {}
        for name, got in re.findall(r"alertname: (\w+).*?got:(.*?)(?=alertname:|\Z)", told, re.DOTALL):
            found[name] = [" ".join(one.split()) for one in re.findall(r"Labels:\{(.*?)Annotations", got, re.DOTALL)]
            found[name + " summary"] = re.findall(r'summary="(.*?)"', got, re.DOTALL)
        assert {name for name in found if " " not in name} == ALERTS.keys(), told
        return {name: (found[name], found[f"{name} summary"]) for name in ALERTS if found[name]}

    return fires


def test_a_node_that_is_well_rings_nobody(fires):
    assert fires(WELL) == {}


@pytest.mark.parametrize("alert", BROKEN)
def test_an_alert_fires_and_says_where(fires, alert):
    fired = fires(WELL | BROKEN[alert])
    assert fired.keys() == {alert}
    [labels], [summary] = fired[alert]
    assert 'instance="node1:8081"' in labels
    assert "node1:8081" in summary
    assert "<no value>" not in summary
