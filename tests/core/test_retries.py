import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.entries import FdbEntry, Kind, Neighbour
from flanneld_py.core.plan import Operation
from flanneld_py.core.retries import RetryQueue

EINVAL = 22


def write(mac=b"a", remote=1):
    return Operation(Kind.FDB, False, FdbEntry(7, mac, 4, remote))


def delete(mac=b"a", remote=1):
    return Operation(Kind.FDB, True, FdbEntry(7, mac, 4, remote))


@pytest.fixture
def queue():
    return RetryQueue()


def fail(queue, operation, now=0.0):
    return queue.record(operation, EINVAL, "no", now, 0.0)


def test_nothing_to_try_at_first(queue):
    assert (len(queue), queue.due(1e9), queue.next_due()) == (0, [], None)


def test_each_waits_for_its_own_try(queue):
    fail(queue, write(b"a"), 0.0)
    fail(queue, write(b"b"), 0.05)
    assert queue.due(0.09) == []
    assert queue.due(0.1) == [write(b"a")]
    assert queue.due(0.16) == [write(b"a"), write(b"b")]
    assert queue.next_due() == pytest.approx(0.1)


def test_pauses_grow_with_each_failure(queue):
    pauses = [fail(queue, write(), 100.0).due - 100.0 for _ in range(4)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
    [failure] = queue
    assert (failure.attempts, failure.errno, failure.reason) == (4, EINVAL, "no")


@pytest.mark.parametrize("newer", [write(remote=2), delete()])
def test_a_newer_operation_on_the_object_takes_the_place_of_the_old(queue, newer):
    fail(queue, write())
    fail(queue, write())
    assert fail(queue, newer).attempts == 1
    assert queue.due(1e9) == [newer]


def test_success_settles_whatever_failed_on_the_object(queue):
    fail(queue, write(remote=2))
    fail(queue, write(b"b"))
    queue.settle([delete()])
    assert queue.due(1e9) == [write(b"b")]


def test_a_table_read_anew_forgets_its_failures(queue):
    neighbour = Operation(Kind.NEIGHBOUR, False, Neighbour(7, 4, 1, b"a"))
    fail(queue, write())
    fail(queue, neighbour)
    queue.forget([Kind.FDB])
    assert [failure.operation for failure in queue] == [neighbour]


@given(st.lists(st.tuples(st.sampled_from([write(b"a"), delete(b"a"), write(b"b")]), st.booleans())))
def test_what_is_due_is_the_last_on_each_object_that_failed(attempts):
    queue, last = RetryQueue(), {}
    for operation, failed in attempts:
        last.pop(operation.entry.mac, None)
        if failed:
            last[operation.entry.mac] = operation
            fail(queue, operation)
        else:
            queue.settle([operation])
    assert set(queue.due(1e9)) == set(last.values())
    assert len(queue) == len(last)
