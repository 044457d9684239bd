from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.rivalry import Rivalry


def test_a_few_changes_are_answered_at_once():
    rivalry = Rivalry()
    for now in range(19):
        rivalry.answer(now / 10)
    assert rivalry.pause(1.9) == 0.0
    assert not rivalry.is_on(1.9)


def test_who_goes_on_is_answered_once_a_second_until_it_stops():
    rivalry = Rivalry()
    for now in range(20):
        rivalry.answer(now / 10)
    assert rivalry.is_on(1.9)
    assert rivalry.pause(1.9) == 1.0
    assert rivalry.pause(3.0) == 0.0
    assert not rivalry.is_on(20.0)


@given(st.lists(st.floats(0, 0.4), min_size=50, max_size=200))
def test_never_more_than_a_burst_in_ten_seconds(gaps):
    rivalry, now, answers = Rivalry(), 0.0, []
    for gap in gaps:
        now += gap
        now += rivalry.pause(now)
        rivalry.answer(now)
        answers.append(now)
    for start in answers:
        assert sum(start <= at < start + 10.0 for at in answers) <= 20 + 10
