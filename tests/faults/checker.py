"""Decide from a record alone whether the promises held. Pure: it knows neither server nor Redis."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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
)

__all__ = ["Violation", "check"]

# What Redis took so long before a fault, or so long after it, a failover may have lost: replication takes its
# time, and so does it until everybody has left the old master.
BEFORE_LOSS_SECONDS = 3.0
AFTER_LOSS_SECONDS = 5.0
# Above what an instance took up when nobody had connected yet: the pools of redis-py keep connections, the
# allocator keeps memory.
MORE_FILES = 6
MORE_TASKS = 4
MORE_MEMORY = 64 * 2**20


@dataclass(frozen=True)
class Violation:
    """A promise that was broken: which one, when, for whom, and how."""

    promise: str
    at: float
    who: str
    what: str


@dataclass
class _Reader:
    """Where a reader stands."""

    epoch: str = ""
    newest: int = 0
    connected: bool = False
    instance: str = ""
    since: float = 0.0
    slow: bool = False


@dataclass(frozen=True)
class _Sighting:
    """Who a message is, and when it was first seen at its place."""

    nonce: str
    ts: int
    at: float


class _Faults:
    """When which instance had an excuse."""

    def __init__(self, of_interest: Iterable[tuple[int, Iterable[str]]], ends: dict[int, float]) -> None:
        self._spans: dict[str, list[tuple[float, float]]] = {}
        self._begins: dict[int, float] = {}
        self._ends = ends
        self._of_interest = {number: tuple(names) for number, names in of_interest}

    def begin(self, number: int, at: float) -> None:
        for name in self._of_interest.get(number, ()):
            self._spans.setdefault(name, []).append((at, self._ends.get(number, math.inf)))

    def excuse(self, instance: str, due: float, patience: float) -> float:
        """Put off what is due for as long as faults forbid it that begin before `patience` has run out."""
        for begin, end in self._spans.get(instance, ()):
            if begin <= due + patience and end > due:
                due = end
        return due

    def touch(self, instance: str, since: float, until: float) -> bool:
        return any(begin <= until and end >= since for begin, end in self._spans.get(instance, ()))


@dataclass
class _Checker:
    history_limit: int
    answer_seconds: float
    live_seconds: float
    losses: Sequence[Lost]
    halted: _Faults
    away: _Faults
    found: list[Violation] = field(default_factory=list)
    readers: dict[str, _Reader] = field(default_factory=dict)
    stored: dict[tuple[str, int], _Sighting] = field(default_factory=dict)  # by epoch and id
    places: dict[str, dict[tuple[str, int], float]] = field(default_factory=dict)  # the other way around
    acknowledged: dict[str, tuple[int, float]] = field(default_factory=dict)  # nonce to id, and when
    unanswered: dict[str, Sent] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)  # in the order in which they were first seen
    fresh: dict[str, Level] = field(default_factory=dict)
    end: float = 0.0

    def __post_init__(self) -> None:
        self._takers: dict[type[Event], Callable[[Any], None]] = {
            Received: self._received,
            Sent: self._sent,
            Answered: self._answered,
            Session: self._greeted,
            Reset: self._was_reset,
            Left: self._left,
            Read: self._read,
            Fault: self._broken,
            Ended: self._ended,
            Odd: self._odd,
            Level: self._measured,
            History: self._kept,
        }

    def take(self, event: Event) -> None:
        self.end = event.at
        taker = self._takers.get(type(event))
        if taker is not None:  # the others were looked at before
            taker(event)

    def finish(self) -> list[Violation]:
        for nonce, sent in self.unanswered.items():
            if sent.acknowledged:
                self._violated("G6", sent.at, sent.publisher, f"{nonce} was never answered")
        self._compare_histories()
        self._look_for_acknowledged()
        self._look_for_those_behind()
        return self.so_far()

    def so_far(self) -> list[Violation]:
        self._look_for_doubled()
        self._look_for_needless_epochs()
        return sorted(self.found, key=lambda one: one.at)

    def _violated(self, promise: str, at: float, who: str, what: str) -> None:
        self.found.append(Violation(promise, at, who, what))

    def _reader(self, name: str) -> _Reader:
        return self.readers.setdefault(name, _Reader())

    # ---- what was lost

    def _near_loss(self, *times: float) -> bool:
        """Tell whether Redis may have lost, or given to others twice, what it took at one of these times."""
        return any(
            loss.since - BEFORE_LOSS_SECONDS <= at <= loss.at + AFTER_LOSS_SECONDS
            for at in times
            for loss in self.losses
        )

    def _near_loss_for(self, instance: str, at: float) -> bool:
        """Do the same for what an instance says: while it could not hear of a loss, it does not know of it."""
        return self._near_loss(at) or any(
            loss.since <= at <= self._excused(instance, loss.at) + AFTER_LOSS_SECONDS for loss in self.losses
        )

    def _excused(self, instance: str, due: float) -> float:
        """Put off what an instance is to do by the troubles that it has, one after the other."""
        before = -math.inf
        while due != before:
            before = due
            due = self.halted.excuse(instance, due, self.live_seconds)
            due = self.away.excuse(instance, due, self.live_seconds)
        return due

    def _enter(self, at: float, who: str, epoch: str) -> None:
        """An epoch is seen, perhaps for the first time: then something must have been lost."""
        if epoch in self.epochs:
            return
        if self.epochs:
            loss = self._loss_before(at)
            if loss is None or at > loss.at + AFTER_LOSS_SECONDS:
                self._violated("G3", at, who, f"is in a new epoch, {epoch}, and nothing had been lost")
            elif any(self._loss_before(other) is loss for other in [*self.epochs.values()][1:]):
                self._violated("G3", at, who, f"is in {epoch}, the second new epoch after one {loss.how}")
        self.epochs[epoch] = at

    def _loss_before(self, at: float) -> Lost | None:
        before = [loss for loss in self.losses if loss.since <= at]
        return before[-1] if before else None

    def _look_for_needless_epochs(self) -> None:
        """After a fault that may have lost something and has not, there is no reason for a new epoch."""
        for old, new in itertools.pairwise(self.epochs):
            loss = self._loss_before(self.epochs[new])
            if loss is not None and not loss.certain and not self._differ(old, new):
                what = f"{new} began, and everything of {old} is in it"
                self._violated("G3", self.epochs[new], loss.how, what)

    def _differ(self, old: str, new: str) -> bool:
        last = max((id_ for epoch, id_ in self.stored if epoch == new), default=0)
        for (epoch, id_), sighting in self.stored.items():
            if epoch == old:
                other = self.stored.get((new, id_))
                if id_ > last or (other and (other.nonce, other.ts) != (sighting.nonce, sighting.ts)):
                    return True
        return False

    # ---- the instances

    def _broken(self, event: Fault) -> None:
        self.halted.begin(event.number, event.at)
        self.away.begin(event.number, event.at)

    def _ended(self, event: Ended) -> None:
        ended = f"ended by itself, or not as asked, with status {event.status}"
        self._violated("runs", event.at, event.instance, ended)

    def _odd(self, event: Odd) -> None:
        self._violated("G9", event.at, event.who, event.what)

    # ---- publishers

    def _sent(self, event: Sent) -> None:
        self.unanswered[event.nonce] = event

    def _answered(self, event: Answered) -> None:
        sent = self.unanswered.pop(event.nonce, None)
        if sent is None:
            self._violated("G4", event.at, event.publisher, f"{event.nonce} was answered without being asked")
            return
        if sent.acknowledged and event.code != "dropped":
            due = self.halted.excuse(sent.instance, sent.at, self.answer_seconds)
            if event.at - due > self.answer_seconds:
                how = "answered" if event.code != "timeout" else "given up, unanswered,"
                took = f"{event.nonce} was {how} by {sent.instance} after {event.at - sent.at:.1f} s"
                self._violated("G6", event.at, event.publisher, took)
        if event.code == "unavailable" and not self._had_trouble(sent.instance, sent.at, event.at):
            needless = f"{event.nonce} was refused by {sent.instance}, which had Redis"
            self._violated("G6", event.at, event.publisher, needless)
        if event.id is None:
            return
        before = self.acknowledged.get(event.nonce)
        if before is not None and before[0] != event.id and not self._near_loss(before[1], event.at):
            twice = f"{event.nonce} was acknowledged as {before[0]} and as {event.id}"
            self._violated("G5", event.at, event.publisher, twice)
        self.acknowledged[event.nonce] = (event.id, event.at)

    def _had_trouble(self, instance: str, since: float, until: float) -> bool:
        since -= self.live_seconds
        return self.away.touch(instance, since, until) or self.halted.touch(instance, since, until)

    # ---- readers

    def _greeted(self, event: Session) -> None:
        reader = self._reader(event.reader)
        known = reader.epoch != ""
        reader.connected, reader.since = True, event.at
        reader.instance, reader.slow = event.instance, event.slow
        self._enter(event.at, event.reader, event.epoch)
        if event.recovered:
            if event.epoch != reader.epoch:
                other = f"was recovered into another epoch, {event.epoch}, from {reader.epoch}"
                self._violated("G3", event.at, event.reader, other)
                reader.epoch = event.epoch
            return
        if event.recovered is None and known:
            self._violated("G3", event.at, event.reader, "was greeted as new, though it said where it stands")
        if event.recovered is False:
            self._may_start_over(event.at, event.reader, event.instance, event.epoch, event.last_id)
        reader.epoch, reader.newest = event.epoch, event.last_id

    def _was_reset(self, event: Reset) -> None:
        self._enter(event.at, event.reader, event.epoch)
        reader = self._reader(event.reader)
        self._may_start_over(event.at, event.reader, reader.instance, event.epoch, event.last_id)
        reader.epoch, reader.newest, reader.since = event.epoch, event.last_id, event.at

    def _may_start_over(self, at: float, name: str, instance: str, epoch: str, last_id: int) -> None:
        """Continuity is given up only where it was lost, and once for each loss."""
        reader = self._reader(name)
        names = list(self.epochs)
        onward = reader.epoch in names and names.index(epoch) > names.index(reader.epoch)
        too_old = epoch == reader.epoch and last_id - reader.newest > self.history_limit
        if not onward and not too_old and not self._near_loss_for(instance, at):
            lost = f"at {reader.newest} of {reader.epoch} was to start over at {last_id} of {epoch}"
            self._violated("G3", at, name, lost)

    def _left(self, event: Left) -> None:
        reader = self._reader(event.reader)
        self._is_up_to_date(event.at, event.reader, reader)
        reader.connected = False

    def _received(self, event: Received) -> None:
        reader = self._reader(event.reader)
        if event.id <= reader.newest:
            again = f"got {event.id} after {reader.newest}: twice, or out of order"
            self._violated("G1", event.at, event.reader, again)
        elif event.id > reader.newest + 1:
            gap = f"got {event.id} after {reader.newest}: {event.id - reader.newest - 1} are missing"
            self._violated("G2", event.at, event.reader, gap)
        reader.newest = max(reader.newest, event.id)
        place = (reader.epoch, event.id)
        self._is_stored(event.at, event.reader, place, Message(event.id, event.nonce, event.ts))
        self._in_time(event.at, event.reader, reader, self._since(place))

    def _since(self, place: tuple[str, int]) -> float:
        """Return when a message was there at the latest: somebody had it, or it was acknowledged."""
        sighting = self.stored[place]
        id_, at = self.acknowledged.get(sighting.nonce, (0, math.inf))
        return min(sighting.at, at) if id_ == place[1] else sighting.at

    def _in_time(self, at: float, name: str, reader: _Reader, known: float) -> None:
        """What is there, everybody who is connected has soon."""
        since = max(known, reader.since)
        if reader.slow or at - since <= self.live_seconds:
            return
        if at - self._excused(reader.instance, since) > self.live_seconds:
            late = f"stood at {reader.newest} on {reader.instance} {at - since:.1f} s after the next one was there"
            self._violated("G2", at, name, late)

    def _is_up_to_date(self, at: float, name: str, reader: _Reader) -> None:
        """Whoever leaves had what it should have had."""
        following = (reader.epoch, reader.newest + 1)
        if reader.connected and following in self.stored:
            self._in_time(at, name, reader, self._since(following))

    def _read(self, event: Read) -> None:
        self._enter(event.at, event.reader, event.epoch)
        ids = [message.id for message in event.messages]
        if event.at_least > (ids[0] if ids else 0):
            what = f"asked {event.instance} for {event.at_least} and got up to {ids[:1]}"
            self._violated("G1", event.at, event.reader, what)
        self._seen(event.at, event.instance, event.epoch, event.messages)

    # ---- messages

    def _seen(self, at: float, instance: str, epoch: str, messages: Sequence[Message]) -> None:
        ids = [message.id for message in messages]
        if ids and ids != list(range(ids[0], ids[0] - len(ids), -1)):
            self._violated("G1", at, instance, "serves a history with a gap, or out of order")
        for message in messages:
            self._is_stored(at, instance, (epoch, message.id), message)

    def _is_stored(self, at: float, who: str, place: tuple[str, int], message: Message) -> None:
        known = self.stored.get(place)
        if known is None:
            self.stored[place] = _Sighting(message.nonce, message.ts, at)
            self.places.setdefault(message.nonce, {})[place] = at
        elif (known.nonce, known.ts) != (message.nonce, message.ts):
            if not self._near_loss(at, known.at):
                what = f"{place[1]} is {message.nonce} here and {known.nonce} elsewhere"
                self._violated("G1", at, who, what)
            self.places.setdefault(message.nonce, {}).setdefault(place, at)

    def _look_for_doubled(self) -> None:
        for nonce, places in self.places.items():
            if len(places) < 2 or not nonce:
                continue
            # A message that was lost with its epoch is rightly stored again in the next one.
            epochs = [epoch for epoch, _ in places]
            if len(epochs) != len(set(epochs)) and not self._near_loss(*places.values()):
                self._violated("G5", self.end, nonce, f"is stored more than once: {sorted(places)}")

    def _look_for_acknowledged(self) -> None:
        for nonce, (id_, at) in self.acknowledged.items():
            ids = {place[1] for place in self.places.get(nonce, ())}
            if id_ in ids or self._near_loss(at):
                continue
            if not ids:
                self._violated("G4", at, nonce, f"was acknowledged as {id_}, and nobody got it")
            else:
                self._violated("G4", at, nonce, f"was acknowledged as {id_}, and arrived as {sorted(ids)}")

    # ---- the end

    def _kept(self, event: History) -> None:
        self.histories[event.instance] = event
        self._seen(event.at, event.instance, event.epoch, event.messages)

    def _compare_histories(self) -> None:
        if not self.histories:
            self._violated("G1", self.end, "the record", "has no history to compare")
            return
        first, *others = self.histories.values()
        for other in others:
            if (other.epoch, other.messages) != (first.epoch, first.messages):
                differs = f"serves another history than {first.instance}"
                self._violated("G1", other.at, other.instance, differs)

    def _look_for_those_behind(self) -> None:
        histories = [one for one in self.histories.values() if one.messages]
        if not histories:
            return
        newest, epoch = max((one.messages[0].id, one.epoch) for one in histories)
        told = min(one.at for one in self.histories.values())
        for name, reader in self.readers.items():
            if not reader.connected and not reader.since > told:
                self._violated("G6", self.end, name, "is not connected at the end")
            elif reader.newest < newest or (epoch and reader.epoch != epoch):
                stands = f"stands at {reader.newest} of {reader.epoch}, the history at {newest} of {epoch}"
                self._violated("G2", self.end, name, stands)

    def _measured(self, event: Level) -> None:
        if event.fresh:
            self.fresh[event.instance] = event
            return
        before = self.fresh[event.instance]
        for what, now, allowed in (
            ("files", event.files, before.files + MORE_FILES),
            ("tasks", event.tasks, before.tasks + MORE_TASKS),
            ("bytes of memory", event.memory, before.memory + MORE_MEMORY),
        ):
            if now > allowed:
                kept = f"has {now} {what} with no clients, where {allowed} were expected at most"
                self._violated("runs", event.at, event.instance, kept)


def check(
    events: Iterable[Event],
    *,
    history_limit: int,
    answer_seconds: float,
    live_seconds: float = math.inf,
    final: bool = True,
) -> list[Violation]:
    """Return what was broken, in the order of time; nothing is what one hopes for.

    Args:
        events: a record, in the order of time.
        history_limit: messages that a reader may have missed and still be recovered.
        answer_seconds: how long a publish may wait for its answer, the record's own delay included.
        live_seconds: how long after one reader another may get a message, likewise; and how long after Redis
            is back a publish may still be refused.
        final: whether the record is whole, with the histories at its end.
    """
    whole = list(_in_order(events))
    ends = {event.number: event.at for event in whole if isinstance(event, Over)}
    faults = [event for event in whole if isinstance(event, Fault)]
    checker = _Checker(
        history_limit,
        answer_seconds,
        live_seconds,
        losses=[event for event in whole if isinstance(event, Lost)],
        halted=_Faults(((fault.number, fault.halted) for fault in faults), ends),
        away=_Faults(((fault.number, fault.away) for fault in faults), ends),
    )
    left_after = _after_the_histories(whole) if final else len(whole)
    for event in whole[:left_after]:
        checker.take(event)
    for event in whole[left_after:]:
        if not isinstance(event, Left):  # everybody was asked to go
            checker.take(event)
    return checker.finish() if final else checker.so_far()


def _after_the_histories(events: Sequence[Event]) -> int:
    """Return where the run's own end begins."""
    for index in range(len(events) - 1, -1, -1):
        if isinstance(events[index], History):
            return index
    return len(events)


def _in_order(events: Iterable[Event]) -> Iterator[Event]:
    last = float("-inf")
    for event in events:
        if event.at < last:
            raise ValueError(f"the record goes back in time, from {last} to {event}")
        last = event.at
        yield event
