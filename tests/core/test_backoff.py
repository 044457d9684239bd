import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.backoff import backoff_delay


def test_doubles_up_to_the_longest():
    assert [backoff_delay(attempts, 0.0, first=0.1, longest=1.0) for attempts in range(1, 7)] == pytest.approx(
        [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    )


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_jitter_takes_away_up_to_half(attempts, jitter):
    full = backoff_delay(attempts, 0.0)
    assert full / 2 <= backoff_delay(attempts, jitter) <= full <= 30.0
