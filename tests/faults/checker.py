"""Decide from a record alone whether the promises held. Pure: it knows neither server nor Redis."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.record import (
    Answered,
    Ended,
    Event,
    History,
    Left,
    Lost,
    Received,
    Reset,
    Sent,
    Session,
)

__all__ = ["Violation", "check"]


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


@dataclass
class _Checker:
    history_limit: int
    answer_seconds: float
    found: list[Violation] = field(default_factory=list)
    readers: dict[str, _Reader] = field(default_factory=dict)
    stored: dict[tuple[str, int], str] = field(default_factory=dict)  # epoch and id to the message's nonce
    places: dict[str, set[tuple[str, int]]] = field(default_factory=dict)  # the other way around
    acknowledged: dict[str, tuple[int, float]] = field(default_factory=dict)  # nonce to id, and when
    unanswered: dict[str, tuple[str, float]] = field(
        default_factory=dict
    )  # nonce to publisher, and since when
    histories: dict[str, History] = field(default_factory=dict)
    lost_at: float | None = None
    end: float = 0.0

    def take(self, event: Event) -> None:
        self.end = event.at
        match event:
            case Sent():
                self.unanswered[event.nonce] = (event.publisher, event.at)
            case Answered():
                self._answered(event)
            case Session():
                self._greeted(event)
            case Reset():
                self._justified(event.at, event.reader, "was told to start over")
                reader = self._reader(event.reader)
                reader.epoch, reader.newest = event.epoch, event.last_id
            case Received():
                self._received(event)
            case Left():
                self._reader(event.reader).connected = False
            case Lost():
                self.lost_at = event.at
            case Ended():
                self._violated(
                    "runs", event.at, event.instance, f"ended by itself, with status {event.status}"
                )
            case History():
                self.histories[event.instance] = event
            case _:
                pass

    def finish(self) -> list[Violation]:
        for nonce, (publisher, since) in self.unanswered.items():
            self._violated("G6", since, publisher, f"{nonce} was never answered")
        self._compare_histories()
        self._look_for_acknowledged()
        self._look_for_doubled()
        self._look_for_those_behind()
        return sorted(self.found, key=lambda one: one.at)

    def _violated(self, promise: str, at: float, who: str, what: str) -> None:
        self.found.append(Violation(promise, at, who, what))

    def _reader(self, name: str) -> _Reader:
        return self.readers.setdefault(name, _Reader())

    def _justified(self, at: float, reader: str, what: str) -> None:
        """Continuity is given up only where it was lost."""
        if self.lost_at is None:
            self._violated("G3", at, reader, f"{what}, and nothing had been lost")

    def _answered(self, event: Answered) -> None:
        sent = self.unanswered.pop(event.nonce, None)
        if sent is None:
            self._violated("G4", event.at, event.publisher, f"{event.nonce} was answered without being asked")
        elif event.at - sent[1] > self.answer_seconds:
            took = f"{event.nonce} was answered after {event.at - sent[1]:.1f} s"
            self._violated("G6", event.at, event.publisher, took)
        if event.id is None:
            return
        before = self.acknowledged.get(event.nonce)
        if before is not None and before[0] != event.id and not self._lost_since(before[1]):
            twice = f"{event.nonce} was acknowledged as {before[0]} and as {event.id}"
            self._violated("G5", event.at, event.publisher, twice)
        self.acknowledged[event.nonce] = (event.id, event.at)

    def _greeted(self, event: Session) -> None:
        reader = self._reader(event.reader)
        reader.connected = True
        if event.recovered:
            if event.epoch != reader.epoch:
                other = f"was recovered into another epoch, {event.epoch}, from {reader.epoch}"
                self._violated("G3", event.at, event.reader, other)
                reader.epoch = event.epoch
            return
        if event.recovered is False:
            too_old = event.epoch == reader.epoch and event.last_id - reader.newest > self.history_limit
            if not too_old:
                self._justified(event.at, event.reader, f"at {reader.newest} was not recovered")
        reader.epoch, reader.newest = event.epoch, event.last_id

    def _received(self, event: Received) -> None:
        reader = self._reader(event.reader)
        if event.id <= reader.newest:
            again = f"got {event.id} after {reader.newest}: twice, or out of order"
            self._violated("G1", event.at, event.reader, again)
        elif event.id > reader.newest + 1:
            gap = f"got {event.id} after {reader.newest}: {event.id - reader.newest - 1} are missing"
            self._violated("G2", event.at, event.reader, gap)
        reader.newest = max(reader.newest, event.id)
        self._is_stored(event.at, event.reader, (reader.epoch, event.id), event.nonce)

    def _is_stored(self, at: float, who: str, place: tuple[str, int], nonce: str) -> None:
        known = self.stored.setdefault(place, nonce)
        if known != nonce:
            self._violated("G1", at, who, f"{place[1]} is {nonce} here and {known} elsewhere")
        self.places.setdefault(nonce, set()).add(place)

    def _lost_since(self, at: float) -> bool:
        return self.lost_at is not None and self.lost_at >= at

    def _compare_histories(self) -> None:
        if not self.histories:
            self._violated("G1", self.end, "the record", "has no history to compare")
            return
        first, *others = self.histories.values()
        for other in others:
            if other.messages != first.messages:
                differs = f"serves another history than {first.instance}"
                self._violated("G1", other.at, other.instance, differs)
        ids = [id_ for id_, _ in first.messages]
        if ids and ids != list(range(ids[0], ids[0] - len(ids), -1)):
            self._violated("G1", first.at, first.instance, "serves a history with a gap, or out of order")

    def _look_for_acknowledged(self) -> None:
        served = {nonce: id_ for one in self.histories.values() for id_, nonce in one.messages}
        for nonce, (id_, at) in self.acknowledged.items():
            if self._lost_since(at):
                continue
            ids = {place[1] for place in self.places.get(nonce, ())}
            if nonce in served:
                ids.add(served[nonce])
            if not ids:
                self._violated("G4", at, nonce, f"was acknowledged as {id_}, and nobody got it")
            elif id_ not in ids:
                self._violated("G4", at, nonce, f"was acknowledged as {id_}, and arrived as {sorted(ids)}")

    def _look_for_doubled(self) -> None:
        for nonce, places in self.places.items():
            # A message that was lost with its epoch is rightly stored again in the next one.
            epochs = [epoch for epoch, _ in places]
            if len(epochs) != len(set(epochs)):
                self._violated("G5", self.end, nonce, f"is stored more than once: {sorted(places)}")

    def _look_for_those_behind(self) -> None:
        newest = max((one.messages[0][0] for one in self.histories.values() if one.messages), default=0)
        for name, reader in self.readers.items():
            if not reader.connected:
                self._violated("G6", self.end, name, "is not connected at the end")
            elif reader.newest < newest:
                self._violated("G2", self.end, name, f"stands at {reader.newest}, the history at {newest}")


def check(events: Iterable[Event], *, history_limit: int, answer_seconds: float) -> list[Violation]:
    """Return what was broken, in the order of time; nothing is what one hopes for.

    Args:
        events: a whole record, in the order of time.
        history_limit: messages that a reader may have missed and still be recovered.
        answer_seconds: how long a publish may wait for its answer, the record's own delay included.
    """
    checker = _Checker(history_limit, answer_seconds)
    for event in _in_order(events):
        checker.take(event)
    return checker.finish()


def _in_order(events: Iterable[Event]) -> Iterator[Event]:
    last = float("-inf")
    for event in events:
        if event.at < last:
            raise ValueError(f"the record goes back in time, from {last} to {event}")
        last = event.at
        yield event
