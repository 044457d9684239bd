from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from netns_lab.chaos.plan import MARGIN, Excuse, find_unexcused, make_steps

TARGETS = {"store: away": ["etcd"], "kernel: device": ["node1", "node2"], "daemon: killed": ["node1", "node2"]}
NODES = {"pod-a": "node1", "pod-b": "node2", "pod-c": "node3"}


@given(st.integers())
def test_the_same_seed_gives_the_same_faults(seed):
    first, second = (
        list(islice(make_steps(seed, targets), 20)) for targets in (TARGETS, dict(reversed(TARGETS.items())))
    )
    assert first == second
    for steps in first:
        assert len({step.fault for step in steps}) == len(steps) in {1, 2}
        assert all(step.target in TARGETS[step.fault] and 0 < step.hold < 10 for step in steps)


def test_a_single_fault_is_never_made_twice_at_once():
    assert all(len(steps) == 1 for steps in islice(make_steps(0, {"store: away": ["etcd"]}), 50))


def test_a_loss_is_excused_by_a_fault_at_one_of_its_ends_alone():
    excuse = Excuse(frozenset({"node1"}), 100.0, 110.0)
    losses = {
        ("pod-a", "pod-b"): [100.0 - MARGIN - 0.1, 100.0 - MARGIN, 105.0, 110.0 + MARGIN, 110.0 + MARGIN + 0.1],
        ("pod-b", "pod-a"): [105.0],
        ("pod-b", "pod-c"): [105.0],
        ("pod-c", "pod-b"): [],
    }
    assert find_unexcused(losses, NODES, [excuse]) == {
        ("pod-a", "pod-b"): [98.9, 111.1],
        ("pod-b", "pod-c"): [105.0],
    }
