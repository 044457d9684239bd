import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flanneld_py.core.own_lease import (
    LONGEST_DELAY,
    RECHECK,
    Asked,
    Doubted,
    Granted,
    Lost,
    Phase,
    Step,
    Taken,
    Unanswered,
    grant,
)

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
TTL, MARGIN = DAY, HOUR


def test_renewed_a_margin_before_the_end():
    lease = grant(24 * HOUR, HOUR, 1000.0)
    assert lease.due == 1000.0 + 23 * HOUR
    assert lease.ends_at == 1000.0 + 24 * HOUR
    assert lease.step is Step.RENEW
    assert not lease.is_due(1000.0 + 23 * HOUR - 1)
    assert lease.is_due(1000.0 + 23 * HOUR)


@pytest.mark.parametrize("margin", [24 * HOUR, 25 * HOUR])
def test_a_margin_that_leaves_nothing_becomes_half(margin):
    assert grant(24 * HOUR, margin, 0.0).due == 12 * HOUR


def test_a_reservation_is_never_renewed():
    lease = grant(None, HOUR, 0.0)
    assert lease.due is None
    assert not lease.is_due(100 * 365 * DAY)


@pytest.mark.parametrize("ttl", [0.0, -5.0, 0.5, 1.0])
def test_a_lease_about_to_end_is_not_renewed_in_a_busy_loop(ttl):
    assert grant(ttl, HOUR, 50.0).due == 51.0


@given(st.floats(2, 1e7), st.floats(0, 1e7), st.floats(0, 1e9))
def test_always_renewed_between_the_grant_and_the_end(ttl, margin, granted_at):
    lease = grant(ttl, margin, granted_at)
    assert granted_at < lease.due <= lease.ends_at


def test_a_clock_that_went_back_is_a_reason_to_look():
    assert grant(TTL, MARGIN, 1000.0).is_due(999.0)


def test_what_is_told_while_a_step_is_under_way_is_looked_at_after_it():
    lease = grant(TTL, MARGIN, 0.0).after(Asked(), 10.0)
    assert not lease.is_due(20 * DAY)
    assert lease.after(Granted(TTL), 11.0).due == 10.0 + TTL - MARGIN
    assert lease.after(Doubted(), 10.5).after(Granted(TTL), 11.0).is_due(11.0)


def test_doubts_do_not_hurry_a_store_that_is_away():
    lease = grant(TTL, MARGIN, 0.0).after(Asked(), 1.0).after(Unanswered(0.0), 2.0)
    assert lease.after(Doubted(), 2.0).due == lease.due > 2.0


class Cluster(RuleBasedStateMachine):
    """Years of one node's lease: a store with its own clock, other nodes and an operator, and a node that sleeps.

    The store is the model: who holds the subnet, until when. It is asked only what the machine says, when it says.
    """

    def __init__(self):
        super().__init__()
        self.store_now = 0.0
        self.ahead = 0.0  # of the node's clock before the store's
        self.owner = "us"
        self.expires = TTL
        self.is_up = True
        self.up_since = 0.0
        self.is_awake = True
        self.asked = 0
        self.writes_while_taken = 0
        self.lease = grant(TTL, MARGIN, 0.0)

    @property
    def now(self):
        return self.store_now + self.ahead

    def expire(self):
        if self.owner == "us" and self.expires is not None and self.store_now >= self.expires:
            self.owner = None

    def answer(self, step):
        """What the store does and says; compare-and-set, so it never gives away what another node has."""
        self.expire()
        self.asked += 1
        if not self.is_up:
            return Unanswered(0.5)
        if self.owner not in {None, "us"}:
            return Taken(self.owner)
        if self.owner is None and step is Step.RENEW:
            return Lost()
        if self.owner is None or self.expires is not None:
            self.owner, self.expires = "us", self.store_now + TTL
        return Granted(None if self.expires is None else TTL)

    def work(self):
        """Let the node do what is due now."""
        for _ in range(4):
            if not self.lease.is_due(self.now):
                return
            self.lease = self.lease.after(Asked(), self.now)
            self.lease = self.lease.after(self.answer(self.lease.step), self.now)
        assert not self.is_up or not self.lease.is_due(self.now), "it never comes to rest"

    def pass_time(self, seconds):
        """Let time pass, the node working whenever something is due."""
        end = self.store_now + seconds
        while self.is_awake and self.lease.due is not None and self.lease.due - self.ahead <= end:
            # A little more, for the sum of the two is not exact.
            self.store_now = max(self.store_now, self.lease.due - self.ahead) + 0.01
            self.expire()
            self.work()
        self.store_now = max(end, self.store_now)
        self.expire()

    def tell(self):
        """The store tells of the key, if it can, and the node hears it."""
        if self.is_up and self.is_awake:
            self.lease = self.lease.after(Doubted(), self.now)
            self.work()

    @initialize(reserved=st.booleans())
    def begin(self, reserved):
        if reserved:
            self.expires = None
            self.lease = grant(None, MARGIN, 0.0)

    @rule(days=st.floats(0.001, 60))
    def quiet_days(self, days):
        asked, was_up = self.asked, self.is_up
        seconds = min(days, 0.05) * DAY if not was_up else days * DAY
        self.pass_time(seconds)
        if not self.is_awake:
            assert self.asked == asked
            return
        # Nearly idle: once a day where all is well, each few seconds where the store is away.
        pause = LONGEST_DELAY / 2 if not was_up else RECHECK if self.lease.phase is Phase.TAKEN else DAY - HOUR
        assert self.asked - asked <= seconds / pause + 20

    @rule()
    def store_goes(self):
        self.is_up = False

    @precondition(lambda self: not self.is_up)
    @rule()
    def store_comes_back(self):
        self.is_up = True
        self.tell()

    @precondition(lambda self: not self.is_up)
    @rule()
    def store_comes_back_empty(self):
        self.is_up, self.owner = True, None
        self.tell()

    @rule()
    def key_is_deleted(self):
        self.owner = None
        self.tell()

    @rule(owner=st.sampled_from(["172.30.0.12", "172.30.0.13"]))
    def another_takes_it(self, owner):
        self.expire()
        self.owner = owner
        self.tell()

    @rule()
    def operator_reserves_it_for_us(self):
        self.owner, self.expires = "us", None
        self.tell()

    @rule()
    def operator_makes_a_lease_of_it(self):
        if self.owner == "us":
            self.expires = self.store_now + TTL
            self.tell()

    @precondition(lambda self: self.is_awake)
    @rule()
    def laptop_is_shut(self):
        self.is_awake = False

    @precondition(lambda self: not self.is_awake)
    @rule()
    def laptop_is_opened(self):
        self.is_awake = True
        self.work()

    @rule(seconds=st.floats(-40 * DAY, 40 * DAY))
    def clock_jumps(self, seconds):
        self.ahead += seconds
        if self.is_awake:
            self.work()

    @invariant()
    def whoever_has_it_keeps_it(self):
        # `answer` writes nothing where another node has it; the machine must not believe otherwise for long.
        if self.is_awake and self.is_up and self.lease.phase is Phase.TAKEN:
            assert self.lease.owner
            assert self.lease.due is not None

    @invariant()
    def comes_to_the_truth(self):
        """Awake, with a store that answers, the node soon knows whose the subnet is, and has it if it is free."""
        if not self.is_awake or not self.is_up:
            return
        before = (self.store_now, self.ahead, self.owner, self.expires, self.lease, self.asked)
        self.pass_time(RECHECK + LONGEST_DELAY)
        self.tell()
        if self.owner == "us":
            assert self.lease.phase is Phase.HELD
            assert self.expires is None or self.expires > self.store_now
        else:
            assert self.lease.phase is Phase.TAKEN
            assert self.lease.owner == self.owner
        self.store_now, self.ahead, self.owner, self.expires, self.lease, self.asked = before

    @invariant()
    def never_expires_while_the_node_can_renew_it(self):
        if self.lease.phase is Phase.HELD and self.lease.ends_at is not None and not self.lease.failures:
            assert self.lease.due <= self.lease.ends_at


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
