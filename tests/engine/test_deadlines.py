"""The wheel against a plain dictionary of deadlines."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ditochat.engine.deadlines import DeadlineWheel

# What adding and dividing seconds costs in a float.
ROUNDING = 1e-6

items = st.integers(0, 8)
seconds = st.floats(0, 90)
granules = st.floats(0.001, 2)


class AgainstModel(RuleBasedStateMachine):
    """Any order of operations: nothing is early, nothing is later than a granule, nothing is forgotten."""

    @initialize(granule=granules, start=st.floats(0, 1e6))
    def begin(self, granule: float, start: float) -> None:
        self.wheel: DeadlineWheel[int] = DeadlineWheel(granule)
        self.now = start
        self.model: dict[int, float] = {}

    @rule(item=items, ahead=seconds)
    def give_or_move(self, item: int, ahead: float) -> None:
        self.wheel.set(item, self.now + ahead)
        self.model[item] = self.now + ahead

    @rule(item=items)
    def drop(self, item: int) -> None:
        self.wheel.drop(item)
        self.model.pop(item, None)

    @rule(step=seconds)
    def let_time_pass(self, step: float) -> None:
        self.now += step
        self.look()

    @rule()
    def wait_for_the_next(self) -> None:
        due = self.wheel.next_due()
        assert (due is None) is (not self.model)
        if due is not None:
            self.now = max(self.now, due)
            assert self.look(), "a timer for next_due() is never in vain"

    def look(self) -> list[int]:
        expired = self.wheel.expire(self.now)
        assert len(set(expired)) == len(expired)
        for item in expired:
            assert self.model.pop(item) <= self.now + ROUNDING, "early"
        for item, due in self.model.items():
            assert self.now < due + self.wheel.granule + ROUNDING, f"{item} is late"
        return expired

    @invariant()
    def keeps_as_many(self) -> None:
        if hasattr(self, "model"):
            assert len(self.wheel) == len(self.model)
            assert (self.wheel.next_due() is None) is (not self.model)


TestAgainstModel = AgainstModel.TestCase


@given(granules, st.lists(st.tuples(items, seconds), min_size=1))
def test_earlier_deadlines_are_met_first(granule: float, given_: list[tuple[int, float]]) -> None:
    wheel: DeadlineWheel[int] = DeadlineWheel(granule)
    for item, due in given_:
        wheel.set(item, due)
    last = dict(given_)
    expired = wheel.expire(1000)
    assert sorted(expired) == sorted(last)
    for earlier, later in pairwise(expired):
        assert last[earlier] < last[later] + granule + ROUNDING


def test_the_next_deadline_is_met_when_it_is_said_to_be_however_floats_round() -> None:
    for number in range(2000):
        wheel: DeadlineWheel[str] = DeadlineWheel(0.0015)
        wheel.set("a", number * 0.0015)
        due = wheel.next_due()
        assert due is not None
        assert wheel.expire(due) == ["a"]


def test_a_deadline_is_met_once() -> None:
    wheel: DeadlineWheel[str] = DeadlineWheel(0.5)
    wheel.set("a", 1.0)
    assert (wheel.expire(0.99), wheel.expire(1.0), wheel.expire(1.0)) == ([], ["a"], [])


def test_a_deadline_that_has_passed_already_is_met_at_once() -> None:
    wheel: DeadlineWheel[str] = DeadlineWheel(0.5)
    wheel.set("a", -7.0)
    assert wheel.expire(0.0) == ["a"]


def test_dropping_what_has_no_deadline_is_nothing() -> None:
    wheel: DeadlineWheel[str] = DeadlineWheel(0.5)
    wheel.drop("a")
    assert (len(wheel), wheel.next_due()) == (0, None)


@pytest.mark.parametrize("granule", [0, -1])
def test_a_granule_has_a_length(granule: float) -> None:
    with pytest.raises(ValueError, match="granule above 0"):
        DeadlineWheel(granule)
