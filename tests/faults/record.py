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
    "Lost",
    "Received",
    "Reset",
    "Sent",
    "Session",
    "read",
    "write",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    at: float


class Sent(_Event, frozen=True, kw_only=True):
    """A publisher handed a message in, for the first time or again; the nonce is the message's name."""

    publisher: str
    nonce: str


class Answered(_Event, frozen=True, kw_only=True):
    """What it was told: an `id`, or a `code` (`dropped`: its connection ended before)."""

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


class Left(_Event, frozen=True, kw_only=True):
    """A reader's connection ended, in whatever way."""

    reader: str


class Lost(_Event, frozen=True, kw_only=True):
    """A fault took acknowledged messages from Redis: continuity may be lost from here."""

    how: str


class Fault(_Event, frozen=True, kw_only=True):
    """Any other fault."""

    kind: str


class Ended(_Event, frozen=True, kw_only=True):
    """An instance ended though nobody had asked it to."""

    instance: str
    status: int


class History(_Event, frozen=True, kw_only=True):
    """What an instance serves once the faults are over: pairs of id and nonce, newest first."""

    instance: str
    messages: list[tuple[int, str]]


Event = Sent | Answered | Session | Reset | Received | Left | Lost | Fault | Ended | History

_DECODER = msgspec.json.Decoder(Event)


def write(path: Path, events: Iterable[Event]) -> None:
    """Write a record, a line for each event."""
    path.write_bytes(msgspec.json.Encoder().encode_lines(list(events)))


def read(path: Path) -> list[Event]:
    """Read a record; raise `msgspec.ValidationError` where it is none."""
    return _DECODER.decode_lines(path.read_bytes())
