"""The checker finds what is planted in a record, and nothing in a good one."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checker import Violation, check
from tests.faults.record import (
    Answered,
    Ended,
    Event,
    Fault,
    History,
    Left,
    Lost,
    Received,
    Reset,
    Sent,
    Session,
    read,
    write,
)

READERS = ("a", "b", "c")


class Story:
    """A record in the making; each event is a tenth of a second after the one before."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._clock = itertools.count(1)
        self.epoch = "e1"
        self.kept: list[tuple[int, str]] = []

    @property
    def now(self) -> float:
        return next(self._clock) / 10

    def greet(self, reader: str, recovered: bool | None = None) -> None:
        last_id = self.kept[-1][0] if self.kept else 0
        self.events.append(
            Session(at=self.now, reader=reader, epoch=self.epoch, last_id=last_id, recovered=recovered)
        )

    def publish(self, nonce: str, readers: tuple[str, ...] = READERS) -> None:
        id_ = self.kept[-1][0] + 1 if self.kept else 1
        self.kept.append((id_, nonce))
        self.events.append(Sent(at=self.now, publisher="p", nonce=nonce))
        for reader in readers:
            self.receive(reader, id_, nonce)
        self.events.append(Answered(at=self.now, publisher="p", nonce=nonce, id=id_))

    def receive(self, reader: str, id_: int, nonce: str) -> None:
        self.events.append(Received(at=self.now, reader=reader, id=id_, nonce=nonce))

    def end(self) -> None:
        for instance in ("one", "two"):
            self.events.append(History(at=self.now, instance=instance, messages=self.kept[::-1]))


def good() -> Story:
    """Five messages; c misses two of them while it is away and is sent them when it is back."""
    story = Story()
    for reader in READERS:
        story.greet(reader)
    story.publish("m1")
    story.events.append(Fault(at=story.now, kind="kill"))
    story.publish("m2")
    story.events.append(Left(at=story.now, reader="c"))
    story.publish("m3", ("a", "b"))
    story.publish("m4", ("a", "b"))
    story.greet("c", recovered=True)
    story.receive("c", 3, "m3")
    story.receive("c", 4, "m4")
    story.publish("m5")
    return story


def found(story: Story, **limits: float) -> list[Violation]:
    story.end()
    options = {"history_limit": 1000, "answer_seconds": 2.5} | limits
    return check(
        story.events, history_limit=int(options["history_limit"]), answer_seconds=options["answer_seconds"]
    )


def planted(plant: Callable[[Story], None]) -> list[tuple[str, str]]:
    story = good()
    plant(story)
    return [(one.promise, one.who) for one in found(story)]


def test_a_good_record_has_no_violation(tmp_path: Path) -> None:
    story = good()
    assert found(story) == []
    write(tmp_path / "record.jsonl", story.events)
    assert read(tmp_path / "record.jsonl") == story.events


def test_a_loss_is_found() -> None:
    def lose(story: Story) -> None:
        story.publish("m6", ("a", "c"))
        story.publish("m7")

    assert planted(lose) == [("G2", "b")]


def test_a_loss_at_the_end_is_found() -> None:
    assert planted(lambda story: story.publish("m6", ("a", "b"))) == [("G2", "c")]


def test_a_loss_in_a_replay_is_found() -> None:
    def lose(story: Story) -> None:
        story.events.append(Left(at=story.now, reader="c"))
        story.publish("m6", ("a", "b"))
        story.publish("m7", ("a", "b"))
        story.greet("c", recovered=True)
        story.receive("c", 7, "m7")

    assert planted(lose) == [("G2", "c")]


def test_a_duplicate_is_found() -> None:
    assert planted(lambda story: story.receive("a", 5, "m5")) == [("G1", "a")]


def test_a_reordering_is_found() -> None:
    def reorder(story: Story) -> None:
        story.publish("m6", ("a", "b"))
        story.publish("m7", ("a", "b"))
        story.receive("c", 7, "m7")
        story.receive("c", 6, "m6")

    assert planted(reorder) == [("G2", "c"), ("G1", "c")]


def test_another_order_at_one_reader_is_found() -> None:
    def swap(story: Story) -> None:
        story.publish("m6", ("a",))
        story.receive("b", 6, "m7")
        story.publish("m7", ("a",))
        story.receive("b", 7, "m6")
        for id_, nonce in ((6, "m6"), (7, "m7")):
            story.receive("c", id_, nonce)

    assert ("G1", "b") in planted(swap)


def test_an_acknowledgement_of_what_is_not_stored_is_found() -> None:
    def acknowledge(story: Story) -> None:
        story.events.append(Sent(at=story.now, publisher="p", nonce="never"))
        story.events.append(Answered(at=story.now, publisher="p", nonce="never", id=6))

    assert planted(acknowledge) == [("G4", "never")]


def test_an_acknowledgement_with_the_id_of_another_is_found() -> None:
    def acknowledge(story: Story) -> None:
        story.events.append(Sent(at=story.now, publisher="p", nonce="m5"))
        story.events.append(Answered(at=story.now, publisher="p", nonce="m5", id=4, duplicate=True))

    assert sorted(planted(acknowledge)) == [("G4", "m5"), ("G5", "p")]


def test_a_message_that_is_stored_twice_is_found() -> None:
    def again(story: Story) -> None:
        story.kept.append((6, "m5"))
        for reader in READERS:
            story.receive(reader, 6, "m5")

    assert ("G5", "m5") in planted(again)


def test_a_missing_reset_is_found() -> None:
    def lose_everything(story: Story) -> None:
        story.events.append(Lost(at=story.now, how="FLUSHALL"))
        story.epoch, story.kept = "e2", []
        for reader in ("a", "b"):
            story.events.append(Reset(at=story.now, reader=reader, epoch="e2", last_id=0))
        story.publish("n1")

    assert ("G1", "c") in planted(lose_everything)


def test_a_reset_after_a_loss_is_right() -> None:
    def lose_everything(story: Story) -> None:
        story.events.append(Lost(at=story.now, how="FLUSHALL"))
        story.epoch, story.kept = "e2", []
        for reader in READERS:
            story.events.append(Reset(at=story.now, reader=reader, epoch="e2", last_id=0))
        story.publish("m5")  # sent again: it was lost with its epoch

    assert planted(lose_everything) == []


def test_a_reset_for_nothing_is_found() -> None:
    def reset(story: Story) -> None:
        story.events.append(Reset(at=story.now, reader="a", epoch="e1", last_id=5))

    assert planted(reset) == [("G3", "a")]


@pytest.mark.parametrize(("limit", "promises"), [(2, ["G3"]), (1, [])])
def test_who_is_not_recovered_missed_more_than_the_history_holds(limit: int, promises: list[str]) -> None:
    story = good()
    story.events.append(Left(at=story.now, reader="a"))
    story.publish("m6", ("b", "c"))
    story.publish("m7", ("b", "c"))
    story.greet("a", recovered=False)
    assert [one.promise for one in found(story, history_limit=limit)] == promises


def test_a_recovery_into_another_epoch_is_found() -> None:
    def recover(story: Story) -> None:
        story.events.append(Left(at=story.now, reader="a"))
        story.epoch = "e2"
        story.greet("a", recovered=True)

    assert planted(recover) == [("G3", "a")]


def test_a_publish_without_an_answer_and_a_late_one_are_found() -> None:
    def hang(story: Story) -> None:
        story.events.append(Sent(at=story.now, publisher="q", nonce="late"))
        story.events.append(Sent(at=story.now, publisher="r", nonce="never"))
        for number in range(6, 16):
            story.publish(f"m{number}")
        story.events.append(Answered(at=story.now, publisher="q", nonce="late", code="unavailable"))

    assert sorted(planted(hang)) == [("G6", "q"), ("G6", "r")]


def test_instances_that_differ_at_the_end_are_found() -> None:
    story = good()
    story.end()
    story.events.append(History(at=story.now, instance="three", messages=story.kept[:0:-1]))
    violations = check(story.events, history_limit=1000, answer_seconds=2.5)
    assert [(one.promise, one.who) for one in violations] == [("G1", "three")]


def test_a_record_without_a_history_is_no_good_record() -> None:
    violations = check(good().events, history_limit=1000, answer_seconds=2.5)
    assert [one.what for one in violations] == ["has no history to compare"]


def test_an_instance_that_ends_and_a_reader_that_stays_away_are_found() -> None:
    def end(story: Story) -> None:
        story.events.append(Ended(at=story.now, instance="one", status=1))
        story.events.append(Left(at=story.now, reader="b"))

    assert sorted(planted(end)) == [("G6", "b"), ("runs", "one")]


def test_a_record_that_goes_back_in_time_is_refused() -> None:
    story = good()
    with pytest.raises(ValueError, match="back in time"):
        check(story.events[::-1], history_limit=1000, answer_seconds=2.5)
