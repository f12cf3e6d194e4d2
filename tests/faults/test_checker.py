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
    Level,
    Lost,
    Message,
    Odd,
    Over,
    Read,
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
        self._faults = 0
        self.epoch = "e1"
        self.kept: list[Message] = []

    @property
    def now(self) -> float:
        return next(self._clock) / 10

    def greet(self, reader: str, recovered: bool | None = None) -> None:
        last_id = self.kept[-1].id if self.kept else 0
        self.events.append(
            Session(
                at=self.now,
                reader=reader,
                epoch=self.epoch,
                last_id=last_id,
                recovered=recovered,
                instance="one",
            )
        )

    def publish(self, nonce: str, readers: tuple[str, ...] = READERS) -> None:
        id_ = self.kept[-1].id + 1 if self.kept else 1
        self.kept.append(Message(id_, nonce, 0))
        self.events.append(Sent(at=self.now, publisher="p", nonce=nonce))
        for reader in readers:
            self.receive(reader, id_, nonce)
        self.events.append(Answered(at=self.now, publisher="p", nonce=nonce, id=id_))

    def receive(self, reader: str, id_: int, nonce: str) -> None:
        self.events.append(Received(at=self.now, reader=reader, id=id_, nonce=nonce))

    def lose(self, how: str, *, certain: bool = True) -> None:
        at = self.now
        self.events.append(Lost(at=at, how=how, since=at, certain=certain))

    def break_(self, kind: str = "x", *, away: tuple[str, ...] = (), halted: tuple[str, ...] = ()) -> int:
        self._faults += 1
        fault = Fault(at=self.now, number=self._faults, kind=kind, away=list(away), halted=list(halted))
        self.events.append(fault)
        return self._faults

    def mend(self, number: int) -> None:
        self.events.append(Over(at=self.now, number=number))

    def wait(self, seconds: float) -> None:
        for _ in range(round(10 * seconds)):
            next(self._clock)

    def end(self) -> None:
        for instance in ("one", "two"):
            history = History(at=self.now, instance=instance, epoch=self.epoch, messages=self.kept[::-1])
            self.events.append(history)


def good() -> Story:
    """Five messages; c misses two of them while it is away and is sent them when it is back."""
    story = Story()
    for reader in READERS:
        story.greet(reader)
    story.publish("m1")
    story.events.append(Fault(at=story.now, number=1, kind="kill"))
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
    options = {"history_limit": 1000, "answer_seconds": 2.5, "live_seconds": 2.5} | limits
    return check(
        story.events,
        history_limit=int(options["history_limit"]),
        answer_seconds=options["answer_seconds"],
        live_seconds=options["live_seconds"],
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
        story.kept.append(Message(6, "m5", 0))
        for reader in READERS:
            story.receive(reader, 6, "m5")

    assert ("G5", "m5") in planted(again)


def test_a_missing_reset_is_found() -> None:
    def lose_everything(story: Story) -> None:
        story.lose("FLUSHALL")
        story.epoch, story.kept = "e2", []
        for reader in ("a", "b"):
            story.events.append(Reset(at=story.now, reader=reader, epoch="e2", last_id=0))
        story.publish("n1")

    assert ("G1", "c") in planted(lose_everything)


def test_a_reset_after_a_loss_is_right() -> None:
    def lose_everything(story: Story) -> None:
        story.lose("FLUSHALL")
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

    assert ("G3", "a") in planted(recover)


def send(story: Story, nonce: str, *, publisher: str = "q", instance: str = "one") -> None:
    story.events.append(Sent(at=story.now, publisher=publisher, nonce=nonce, instance=instance))


def answer(story: Story, nonce: str, code: str, *, publisher: str = "q") -> None:
    story.events.append(Answered(at=story.now, publisher=publisher, nonce=nonce, code=code))


def test_a_publish_without_an_answer_is_found() -> None:
    assert planted(lambda story: send(story, "never")) == [("G6", "q")]


@pytest.mark.parametrize(
    ("seconds", "code", "found"),
    [(2, "timeout", []), (3, "timeout", [("G6", "q")]), (3, "invalid", [("G6", "q")]), (3, "dropped", [])],
)
def test_a_late_answer_is_found(seconds: float, code: str, found: list[tuple[str, str]]) -> None:
    def hang(story: Story) -> None:
        send(story, "late")
        story.wait(seconds)
        answer(story, "late", code)

    assert planted(hang) == found


@pytest.mark.parametrize(("instance", "found"), [("one", []), ("two", [("G6", "q")])])
def test_only_an_instance_that_stands_still_may_answer_late(
    instance: str, found: list[tuple[str, str]]
) -> None:
    def hang(story: Story) -> None:
        fault = story.break_(halted=("one",))
        send(story, "late", instance=instance)
        story.wait(10)
        story.mend(fault)
        story.wait(2)
        answer(story, "late", "timeout")

    assert planted(hang) == found


@pytest.mark.parametrize(
    ("away", "after", "found"), [("one", 1, []), ("one", 3, [("G6", "q")]), ("two", 1, [("G6", "q")])]
)
def test_only_an_instance_that_has_no_redis_may_refuse(
    away: str, after: float, found: list[tuple[str, str]]
) -> None:
    def refuse(story: Story) -> None:
        story.mend(story.break_(away=(away,)))
        story.wait(after)
        send(story, "refused")
        answer(story, "refused", "unavailable")

    assert planted(refuse) == found


def late(story: Story, seconds: float) -> None:
    story.publish("m6", ("a", "b"))
    story.wait(seconds)
    story.receive("c", 6, "m6")


@pytest.mark.parametrize(("seconds", "found"), [(2, []), (3, [("G2", "c")])])
def test_a_late_delivery_is_found(seconds: float, found: list[tuple[str, str]]) -> None:
    assert planted(lambda story: late(story, seconds)) == found


def test_a_delivery_that_is_late_for_all_is_found() -> None:
    def lag(story: Story) -> None:
        send(story, "m6", publisher="p")
        story.events.append(Answered(at=story.now, publisher="p", nonce="m6", id=6))
        story.kept.append(Message(6, "m6", 0))
        story.wait(3)
        for reader in READERS:
            story.receive(reader, 6, "m6")

    assert planted(lag) == [("G2", reader) for reader in READERS]


def test_a_delivery_may_be_late_while_its_instance_has_no_redis() -> None:
    def lag(story: Story) -> None:
        story.publish("m6", ("a", "b"))
        fault = story.break_(away=("one",))
        story.wait(20)
        story.mend(fault)
        story.wait(2)
        story.receive("c", 6, "m6")

    assert planted(lag) == []


def test_a_reader_that_hears_nothing_until_it_leaves_is_found() -> None:
    def leave(story: Story) -> None:
        story.publish("m6", ("a", "b"))
        story.wait(3)
        story.events.append(Left(at=story.now, reader="c"))
        story.greet("c", recovered=True)
        story.receive("c", 6, "m6")

    assert planted(leave) == [("G2", "c")]


def test_who_is_new_again_though_it_said_where_it_stands_is_found() -> None:
    def forget(story: Story) -> None:
        story.events.append(Left(at=story.now, reader="c"))
        story.greet("c", recovered=None)

    assert planted(forget) == [("G3", "c")]


# ---- what is lost


def start_over(story: Story, epoch: str, kept: int, readers: tuple[str, ...] = READERS) -> None:
    story.epoch, story.kept = epoch, story.kept[:kept]
    for reader in readers:
        story.events.append(Reset(at=story.now, reader=reader, epoch=epoch, last_id=kept))


def test_a_failover_may_lose_what_was_acknowledged_just_before() -> None:
    def fail_over(story: Story) -> None:
        send(story, "m6", publisher="p")
        story.events.append(Answered(at=story.now, publisher="p", nonce="m6", id=6))
        story.lose("failover", certain=False)
        start_over(story, "e2", 4)
        story.publish("m7")

    assert planted(fail_over) == []


def test_an_acknowledgement_long_before_a_loss_is_no_excuse() -> None:
    def fail_over(story: Story) -> None:
        send(story, "m6", publisher="p")
        story.events.append(Answered(at=story.now, publisher="p", nonce="m6", id=6))
        story.wait(10)
        story.lose("failover", certain=False)
        start_over(story, "e2", 4)
        story.publish("m7")

    assert planted(fail_over) == [("G4", "m6")]


def test_an_epoch_after_a_failover_that_lost_nothing_is_found() -> None:
    def fail_over(story: Story) -> None:
        story.lose("failover", certain=False)
        start_over(story, "e2", 5)
        story.publish("m6")

    assert planted(fail_over) == [("G3", "failover")]


@pytest.mark.parametrize(("seconds", "found"), [(2, []), (9, [("G3", "c")])])
def test_an_instance_that_stood_still_may_know_of_a_loss_later(
    seconds: float, found: list[tuple[str, str]]
) -> None:
    def stop(story: Story) -> None:
        stopped = story.break_(halted=("one",))
        story.lose("FLUSHALL")
        old = story.kept
        start_over(story, "e2", 0, ("a", "b"))
        story.wait(20)
        story.mend(stopped)
        story.wait(seconds)
        story.events.append(Left(at=story.now, reader="c"))
        story.epoch, story.kept = "e1", old  # what the instance still serves
        story.greet("c", recovered=False)
        start_over(story, "e2", 0, ("c",))

    assert planted(stop) == found


def test_a_second_epoch_after_one_loss_is_found() -> None:
    def lose(story: Story) -> None:
        story.lose("FLUSHALL")
        start_over(story, "e2", 0)
        start_over(story, "e3", 0)

    assert ("G3", "a") in planted(lose)


def test_an_epoch_for_nothing_is_found() -> None:
    def reset(story: Story) -> None:
        story.lose("FLUSHALL")
        start_over(story, "e2", 0)
        story.wait(20)
        start_over(story, "e3", 0)

    assert ("G3", "a") in planted(reset)


def test_a_message_that_is_stored_twice_when_nothing_was_lost_for_long_is_found() -> None:
    def again(story: Story) -> None:
        story.lose("FLUSHALL")
        start_over(story, "e2", 0)
        story.wait(20)
        story.publish("n1")
        story.publish("n1")

    assert ("G5", "n1") in planted(again)


# ---- what is read, logged and kept


@pytest.mark.parametrize(("at_least", "found"), [(5, []), (6, [("G1", "somebody")])])
def test_a_history_that_does_not_reach_far_enough_is_found(
    at_least: int, found: list[tuple[str, str]]
) -> None:
    def look(story: Story) -> None:
        read = Read(
            at=story.now,
            reader="somebody",
            instance="one",
            epoch="e1",
            at_least=at_least,
            messages=story.kept[:2:-1],
        )
        story.events.append(read)

    assert planted(look) == found


def test_a_history_with_a_gap_is_found() -> None:
    def look(story: Story) -> None:
        messages = [story.kept[4], story.kept[2]]
        read = Read(
            at=story.now, reader="somebody", instance="one", epoch="e1", at_least=5, messages=messages
        )
        story.events.append(read)

    assert planted(look) == [("G1", "one")]


def test_what_must_never_be_seen_is_found() -> None:
    def log(story: Story) -> None:
        story.events.append(Odd(at=story.now, who="one", what="logged an error"))

    assert planted(log) == [("G9", "one")]


@pytest.mark.parametrize(
    ("what", "kept", "found"),
    [("files", 100, 1), ("tasks", 100, 1), ("memory", 2**30, 1), ("files", 12, 0), ("memory", 2**21, 0)],
)
def test_what_is_left_behind_is_found(what: str, kept: int, found: int) -> None:
    def measure(story: Story) -> None:
        level = {"files": 10, "tasks": 10, "memory": 2**20}
        story.events.append(Level(at=story.now, instance="one", fresh=True, **level))
        story.events.append(Level(at=story.now, instance="one", fresh=False, **level | {what: kept}))

    assert planted(measure) == [("runs", "one")] * found


def test_instances_that_differ_at_the_end_are_found() -> None:
    story = good()
    story.end()
    story.events.append(History(at=story.now, instance="three", epoch="e1", messages=story.kept[:0:-1]))
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
