import logging
import time
from types import SimpleNamespace

import pytest

from flanneld_py.agent.status import NodeStatus


class Parts:
    """As much of a running daemon as its health is told by; all is well at first."""

    def __init__(self):
        self.reconciler = SimpleNamespace(
            busy_since=None,
            broken_off="",
            leases=SimpleNamespace(complete=True),
            synced=SimpleNamespace(is_set=lambda: self.is_synced),
        )
        self.keeper = SimpleNamespace(problem=None)
        self.is_synced = True


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def status(parts):
    status = NodeStatus()
    status.begin(SimpleNamespace(), parts.reconciler, parts.keeper, **dict.fromkeys(("rules", "guard", "follower")))
    return status


def test_at_the_start_it_lives_but_is_not_ready():
    status = NodeStatus()
    assert status.health() == ("flanneld is running", [])
    assert status.readiness()[1] == ["starting: waits for the store"]
    status.wait_for("an uplink")
    log = logging.getLogger("here")
    log.addHandler(status.recent)
    log.warning("waiting: for=%s reason=%s", "uplink", "there is none")
    log.removeHandler(status.recent)
    assert status.readiness()[1] == ["starting: waits for an uplink", "waiting: for=uplink reason=there is none"]
    assert status.describe()["ready"] is False


def test_all_is_well(status):
    assert status.health() == ("flanneld is running", [])
    assert status.readiness() == ("flanneld is ready", [])


def test_work_that_never_ends_is_no_health(status, parts):
    parts.reconciler.busy_since = time.monotonic() - 1.0
    assert status.health()[1] == []
    parts.reconciler.busy_since = time.monotonic() - 1000.0
    [wrong] = status.health()[1]
    assert wrong.startswith("the reconciler is stuck since 10")


def test_what_is_missing_is_told(status, parts):
    parts.keeper.problem = "10.5.1.0-24 is lost"
    parts.is_synced = False
    assert status.readiness()[1] == [
        "lease: 10.5.1.0-24 is lost",
        "kernel: the first reconcile is not complete yet",
    ]
    parts.reconciler.leases.complete = False
    assert status.readiness()[1] == ["lease: 10.5.1.0-24 is lost", "leases: the store has not told all of them yet"]


def test_outages_are_what_cuts_a_running_node_off(status, parts):
    assert NodeStatus().outages() == []
    assert status.outages() == []
    parts.is_synced = False
    assert status.outages() == []
    parts.keeper.problem = "10.5.1.0-24 is lost"
    parts.reconciler.broken_off = "flannel.1 cannot be made"
    assert status.outages() == ["lease: 10.5.1.0-24 is lost", "kernel: flannel.1 cannot be made"]
    assert set(status.outages()) < set(status.readiness()[1])
