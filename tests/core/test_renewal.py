import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.core.renewal import next_renewal

HOUR = 3600.0


def test_a_margin_before_the_end():
    assert next_renewal(24 * HOUR, HOUR, 1000.0) == 1000.0 + 23 * HOUR


@pytest.mark.parametrize("margin", [24 * HOUR, 25 * HOUR])
def test_a_margin_that_leaves_nothing_becomes_half(margin):
    assert next_renewal(24 * HOUR, margin, 0.0) == 12 * HOUR


def test_a_reservation_is_never_renewed():
    assert next_renewal(None, HOUR, 0.0) is None


@pytest.mark.parametrize("ttl", [0.0, -5.0, 0.5, 1.0])
def test_a_lease_about_to_end_is_not_renewed_in_a_busy_loop(ttl):
    assert next_renewal(ttl, HOUR, 50.0) == 51.0


@given(st.floats(2, 1e7), st.floats(0, 1e7), st.floats(0, 1e9))
def test_always_between_the_grant_and_the_end(ttl, margin, granted_at):
    due = next_renewal(ttl, margin, granted_at)
    assert granted_at < due <= granted_at + ttl
