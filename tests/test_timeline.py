"""The timeline against a model that keeps everything in a plain list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ditochat.message import StoredMessage
from ditochat.timeline import Placement, Timeline

EPOCH = "e1"


def message(message_id: int, text: str = "a") -> StoredMessage:
    return StoredMessage(message_id, 0, f'{{"id":{message_id},"ts":0,"text":"{text}"}}'.encode())


def timeline(first: int, last: int, capacity: int = 10) -> Timeline:
    made = Timeline(capacity)
    made.replace(EPOCH, last, [message(message_id) for message_id in range(first, last + 1)])
    return made


def ids(messages: object) -> list[int]:
    return [one.id for one in messages]  # type: ignore[attr-defined]  # a sequence of messages


class AgainstModel(RuleBasedStateMachine):
    """Any order of operations: the timeline holds the newest of what the model has seen."""

    @initialize(capacity=st.integers(1, 5))
    def begin(self, capacity: int) -> None:
        self.timeline = Timeline(capacity)
        self.timeline.replace(EPOCH, 0, [])
        self.capacity = capacity
        self.model: list[int] = []
        self.last_id = 0

    @rule()
    def append_next(self) -> None:
        self.last_id += 1
        assert self.timeline.append(message(self.last_id)) is Placement.APPENDED
        self.model = [*self.model, self.last_id][-self.capacity :]

    @rule(ahead=st.integers(2, 9))
    def offer_one_too_far(self, ahead: int) -> None:
        assert self.timeline.append(message(self.last_id + ahead)) is Placement.GAP

    @rule(back=st.integers(0, 9))
    def offer_a_known_one(self, back: int) -> None:
        if self.last_id - back >= 1:
            assert self.timeline.append(message(self.last_id - back)) is Placement.KNOWN

    @precondition(lambda self: bool(self.model))
    @rule(data=st.data())
    def offer_another_message_of_a_kept_id(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.model))
        assert self.timeline.append(message(chosen, "another")) is Placement.CONFLICT

    @rule(last_id=st.integers(0, 20), count=st.integers(0, 8))
    def start_anew(self, last_id: int, count: int) -> None:
        kept = list(range(max(1, last_id + 1 - count), last_id + 1))
        self.timeline.replace(EPOCH, last_id, [message(one) for one in kept])
        self.last_id = last_id
        self.model = kept[-self.capacity :]

    @rule(after=st.integers(0, 25))
    def replay(self, after: int) -> None:
        oldest = self.model[0] if self.model else self.last_id + 1
        replay = self.timeline.replay(after, EPOCH)
        assert replay.recovered is (oldest - 1 <= after <= self.last_id)
        expected = [one for one in self.model if one > after] if replay.recovered else []
        assert ids(replay.messages) == expected

    @rule(
        limit=st.integers(1, 9),
        before=st.none() | st.integers(0, 25),
        after=st.none() | st.integers(0, 25),
    )
    def read_newest_first(self, limit: int, before: int | None, after: int | None) -> None:
        expected = [
            one
            for one in reversed(self.model)
            if (before is None or one < before) and (after is None or one > after)
        ][:limit]
        assert ids(self.timeline.newest_first(limit, before=before, after=after)) == expected

    @invariant()
    def holds_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        assert len(self.timeline) == len(self.model)
        assert self.timeline.last_id == self.last_id
        assert self.timeline.first_id == (self.model[0] if self.model else self.last_id + 1)
        for one in self.model:
            assert self.timeline.get(one) == message(one)


TestAgainstModel = AgainstModel.TestCase


def test_a_client_that_asks_for_nothing_gets_nothing() -> None:
    replay = timeline(1, 5).replay(None, None)
    assert (replay.recovered, list(replay.messages)) == (None, [])


@pytest.mark.parametrize(
    ("after", "epoch", "recovered"),
    [
        (5, EPOCH, True),
        (3, EPOCH, True),
        (2, EPOCH, True),
        (1, EPOCH, False),  # 2 is gone
        (6, EPOCH, False),  # from the future
        (3, "another", False),
        (3, None, True),  # who names no epoch means this one
    ],
)
def test_recovered_tells_whether_every_later_message_is_known(
    after: int, epoch: str | None, recovered: bool
) -> None:
    assert timeline(3, 5).replay(after, epoch).recovered is recovered


def test_ids_that_are_not_contiguous_are_refused() -> None:
    with pytest.raises(ValueError, match="in order"):
        Timeline(5).replace(EPOCH, 3, [message(1), message(3)])


@given(st.integers(max_value=0))
def test_a_timeline_without_room_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        Timeline(capacity)
