"""Misses: looked up once each, bounded, and refused for a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.misses import MOST_WAITING, REFUSED_FOR, Miss, MissTable
from flanneld_py.core.prefix import IPV4, prefix_around


def miss(last, third=2):
    return Miss(IPV4, 0x0A050000 + (third << 8) + last)


def subnet(third, length=24):
    return prefix_around(IPV4, 0x0A050000 + (third << 8), length)


def test_misses_of_one_subnet_are_looked_up_once():
    table = MissTable()
    assert table.take(miss(7), subnet(2)) is True
    assert table.take(miss(8), subnet(2)) is False
    assert table.take(miss(7), subnet(2)) is False
    assert table.take(miss(7, 3), subnet(3)) is True
    assert table.pending == 2
    assert table.settle(subnet(2)) == [miss(7), miss(8)]
    assert table.pending == 1
    assert table.take(miss(7), subnet(2)) is True


def test_settling_what_is_not_looked_up_is_nothing():
    assert MissTable().settle(subnet(2)) == []


def test_what_cannot_wait_any_more_is_refused():
    table = MissTable()
    assert [table.take(miss(7, third), subnet(third)) for third in range(MOST_WAITING)] == [True] * MOST_WAITING
    assert table.take(miss(7, 200), subnet(200)) is None
    assert table.take(miss(8, 0), subnet(0)) is None
    assert table.take(miss(7, 0), subnet(0)) is False
    table.settle(subnet(0))
    assert table.take(miss(7, 200), subnet(200)) is True
    assert table.take(miss(7, 201), subnet(201)) is None


def test_addresses_of_one_subnet_count_each():
    table = MissTable()
    assert table.take(miss(0), subnet(2)) is True
    assert [table.take(miss(last), subnet(2)) for last in range(1, MOST_WAITING)] == [False] * (MOST_WAITING - 1)
    assert table.take(miss(200), subnet(2)) is None
    assert len(table.settle(subnet(2))) == MOST_WAITING
    assert table.take(miss(200), subnet(2)) is True


def test_what_was_full_is_so_until_few_wait():
    table = MissTable()
    for third in range(MOST_WAITING):
        assert not table.is_full
        table.take(miss(7, third), subnet(third))
    for third in range(MOST_WAITING // 2):
        assert table.is_full
        table.settle(subnet(third))
    assert not table.is_full
    assert table.take(miss(7, 200), subnet(200)) is True
    assert not table.is_full


def test_nobodys_subnets_are_forgotten_in_time():
    table = MissTable()
    assert table.next_expiry() is None
    assert table.note_nobodys(subnet(2), 100.0)
    assert table.note_nobodys(subnet(3), 104.0)
    assert table.next_expiry() == 100.0 + REFUSED_FOR
    assert table.expire(99.0 + REFUSED_FOR) == []
    assert table.expire(100.0 + REFUSED_FOR) == [subnet(2)]
    assert table.nobodys == [subnet(3)]
    assert table.expire(1000.0) == [subnet(3)]
    assert table.next_expiry() is None


def test_what_is_nobodys_again_is_no_news_and_lasts_longer():
    table = MissTable(refused_for=5.0)
    assert table.note_nobodys(subnet(2), 100.0)
    assert not table.note_nobodys(subnet(2), 103.0)
    assert table.expire(106.0) == []
    assert table.expire(108.0) == [subnet(2)]
    assert table.note_nobodys(subnet(2), 109.0)


@pytest.mark.parametrize("length", [22, 24, 25])
def test_what_is_leased_is_nobodys_no_longer(length):
    table = MissTable()
    for third in (3, 4, 5, 8):
        table.note_nobodys(subnet(third), 100.0)
    over = [subnet(third) for third in ((4, 5) if length == 22 else (4,))]
    assert table.note_leased(subnet(4, length)) == over
    assert set(table.nobodys) == {subnet(third) for third in (3, 4, 5, 8)} - set(over)
    assert table.note_leased(subnet(4, length)) == []


thirds = st.integers(0, 60)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), thirds, st.integers(0, 3)),
            st.tuples(st.just("settle"), thirds, st.just(0)),
        ),
        max_size=200,
    )
)
def test_every_miss_is_answered_once_or_refused_at_once(steps):
    table = MissTable()
    waiting = {}
    for step, third, last in steps:
        if step == "settle":
            settled = table.settle(subnet(third))
            assert len(settled) == len(set(settled))
            assert set(settled) == waiting.pop(third, set())
            continue
        taken = table.take(miss(last, third), subnet(third))
        known = waiting.get(third, set())
        has_room = sum(map(len, waiting.values())) < MOST_WAITING
        assert taken is (False if miss(last, third) in known else None if not has_room else third not in waiting)
        if taken is not None:
            waiting.setdefault(third, set()).add(miss(last, third))
        assert table.pending == len(waiting)
        assert sum(map(len, waiting.values())) <= MOST_WAITING


@given(st.lists(st.tuples(thirds, st.floats(0, 20)), max_size=50), st.floats(0.1, 30))
def test_each_nobodys_subnet_is_forgotten_once_and_not_early(steps, refused_for):
    table = MissTable(refused_for)
    now, due = 0.0, {}
    for third, passed in steps:
        now += passed
        over = table.expire(now)
        assert set(over) == {one for one, when in due.items() if when <= now}
        for one in over:
            del due[one]
        assert table.note_nobodys(subnet(third), now) == (subnet(third) not in due)
        due[subnet(third)] = now + refused_for
        assert table.next_expiry() == min(due.values())
    assert set(table.nobodys) == due.keys()
