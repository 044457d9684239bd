"""What a start does not import: each module costs every node time and memory before pods have a network."""

import subprocess
import sys

WANTED_BY_NO_START = {"bz2", "email", "http", "lzma", "shutil", "tempfile", "uuid", "zoneinfo"}
WANTED_BY_OPTIONS = {
    "flanneld_py.agent.health",
    "flanneld_py.agent.on_demand",
    "flanneld_py.agent.pod_service",
    "flanneld_py.agent.prober",
    "flanneld_py.store.etcd_lease_finder",
    "flanneld_py.store.kube_client",
    "flanneld_py.store.watched_lease_finder",
}


PATH = f"import sys; sys.path[:] = {sys.path!r}; "
"""Without `site`: what is installed beside us for tests is imported by its hooks."""


def imported_by(*modules):
    script = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", PATH + script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_flags_are_read_without_an_event_loop():
    assert "asyncio" not in imported_by("flanneld_py.cli.main")


def test_a_start_with_etcd_and_vxlan_imports_nothing_for_other_options():
    imported = imported_by(
        "flanneld_py.cli.main",
        "flanneld_py.agent.daemon",
        "flanneld_py.store.etcd_subnet_manager",
        "flanneld_py.backends.vxlan",
        "flanneld_py.kernel.iptables",
        "flanneld_py.kernel.nft_rules",
    )
    assert imported & (WANTED_BY_NO_START | WANTED_BY_OPTIONS) == set()
