"""What happened in a run, as the clients and the harness saw it: one event a line, as JSON.

`at` is in seconds of one monotonic clock. A record is complete in itself: whoever judges it needs nothing else.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

__all__ = [
    "Answered",
    "Ended",
    "Event",
    "Fault",
    "History",
    "Left",
    "Level",
    "Lost",
    "Message",
    "Odd",
    "Over",
    "Read",
    "Received",
    "Recorder",
    "Reset",
    "Sent",
    "Session",
    "Standing",
    "read",
    "write",
]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """A stored message: its place, its name, and when Redis took it, in milliseconds."""

    id: int
    nonce: str
    ts: int


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    at: float


class Sent(_Event, frozen=True, kw_only=True):
    """A publisher handed a message in, for the first time or again; the nonce is the message's name."""

    publisher: str
    nonce: str
    instance: str = ""
    acknowledged: bool = True
    """Whether its protocol has an answer: /ws has none, the publisher waits for the message itself."""


class Answered(_Event, frozen=True, kw_only=True):
    """What it was told: an `id`, or a `code` (`dropped`: its connection ended before; `timeout`: it gave up)."""

    publisher: str
    nonce: str
    id: int | None = None
    duplicate: bool = False
    code: str | None = None


class Session(_Event, frozen=True, kw_only=True):
    """A reader was greeted; `recovered` is None where it said no position."""

    reader: str
    epoch: str
    last_id: int
    recovered: bool | None
    instance: str = ""
    slow: bool = False
    """Whether it stops reading now and then."""


class Reset(_Event, frozen=True, kw_only=True):
    """A reader was told that continuity is lost."""

    reader: str
    epoch: str
    last_id: int


class Received(_Event, frozen=True, kw_only=True):
    """A reader was sent a message."""

    reader: str
    id: int
    nonce: str
    ts: int = 0


class Left(_Event, frozen=True, kw_only=True):
    """A reader's connection ended, in whatever way."""

    reader: str


class Read(_Event, frozen=True, kw_only=True):
    """Somebody asked an instance for its history, up to `at_least`; newest first."""

    reader: str
    instance: str
    epoch: str
    at_least: int
    messages: list[Message]


class Lost(_Event, frozen=True, kw_only=True):
    """A fault, which began at `since`, took acknowledged messages from Redis, or may have (not `certain`)."""

    how: str
    since: float = 0.0
    certain: bool = True


class Fault(_Event, frozen=True, kw_only=True):
    """A fault begins.

    `away` names the instances which may have no Redis now; `halted` those which cannot answer at all.
    """

    number: int
    kind: str
    away: list[str] = []
    halted: list[str] = []


class Over(_Event, frozen=True, kw_only=True):
    """What broke works again."""

    number: int


class Ended(_Event, frozen=True, kw_only=True):
    """An instance ended though nobody had asked it to, or not as it was asked to."""

    instance: str
    status: int


class Odd(_Event, frozen=True, kw_only=True):
    """Somebody saw what must never be: an error in a log, a refusal without a reason."""

    who: str
    what: str


class Level(_Event, frozen=True, kw_only=True):
    """What an instance takes up while it has no clients: first `fresh`, later after all that happened."""

    instance: str
    fresh: bool
    files: int
    tasks: int
    memory: int
    """Bytes."""


class History(_Event, frozen=True, kw_only=True):
    """What an instance serves once the faults are over, newest first."""

    instance: str
    messages: list[Message]
    epoch: str = ""


Event = (
    Sent
    | Answered
    | Session
    | Reset
    | Received
    | Left
    | Read
    | Lost
    | Fault
    | Over
    | Ended
    | Odd
    | Level
    | History
)

_DECODER = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()


class Standing(msgspec.Struct):
    """Where a reader stands now."""

    epoch: str = ""
    newest: int = 0
    connected: bool = False


class Recorder:
    """Takes events as they happen; each source has its own order, all share one clock."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self.readers: dict[str, Standing] = {}
        self.newest_acknowledged = 0
        """The id of the last acknowledgement."""

    def add(self, event: Event) -> None:
        """Take an event."""
        self._events.append(event)
        match event:
            case Received():
                self._standing(event.reader).newest = event.id
            case Session() | Reset():
                standing = self._standing(event.reader)
                if isinstance(event, Reset) or not event.recovered:
                    standing.newest = event.last_id
                standing.epoch, standing.connected = event.epoch, True
            case Left():
                self._standing(event.reader).connected = False
            case Answered():
                self.newest_acknowledged = event.id or self.newest_acknowledged
            case _:
                pass

    def add_line(self, line: bytes) -> None:
        """Take an event that another program wrote."""
        self.add(_DECODER.decode(line))

    def events(self) -> list[Event]:
        """Return everything, in the order of time; of one source, in the order in which it was handed in."""
        return sorted(self._events, key=lambda event: event.at)

    def _standing(self, reader: str) -> Standing:
        return self.readers.setdefault(reader, Standing())


def write(path: Path, events: Iterable[Event]) -> None:
    """Write a record, a line for each event."""
    path.write_bytes(_ENCODER.encode_lines(list(events)))


def read(path: Path) -> list[Event]:
    """Read a record; raise `msgspec.ValidationError` where it is none."""
    return _DECODER.decode_lines(path.read_bytes())
