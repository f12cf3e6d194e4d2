"""The clients of the room `chat`, and how messages reach them.

The room owns its members. A member is a sink that never blocks: what it is handed waits with it, and one that
lets too much wait is closed; a replay brings it back, and the others never notice (G7).

Messages that arrive within one turn of the event loop go out together: an idle room adds no delay, a busy one
does its work once for many messages.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from ditochat.message import StoredMessage
from ditochat.metrics import Metrics
from ditochat.timeline import Timeline

__all__ = ["Closing", "Encoding", "Member", "Reset", "Room", "Session"]


class Closing(Enum):
    """Why the room closes a member; in each case it may come back."""

    SLOW = "too much is waiting for this client"
    DRAINING = "this instance is shutting down"
    LOST = "continuity was lost; connect again"


@dataclass(frozen=True, slots=True)
class Session:
    """What a client is told first: where it stands."""

    epoch: str
    last_id: int
    recovered: bool | None
    replayed: int
    instance: str
    max_message_bytes: int
    history_limit: int

    def as_json(self) -> dict[str, Any]:
        """Return the data of the event `session`."""
        return {
            "epoch": self.epoch,
            "last_id": self.last_id,
            "recovered": self.recovered,
            "replayed": self.replayed,
            "instance": self.instance,
            "limits": {"message_bytes": self.max_message_bytes, "history": self.history_limit},
        }


@dataclass(frozen=True, slots=True)
class Reset:
    """Continuity was lost: the log stands at ``last_id`` of ``epoch`` now."""

    epoch: str
    last_id: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the data of the event `reset`."""
        return {"epoch": self.epoch, "last_id": self.last_id, "reason": self.reason}


class Encoding(Protocol):
    """How one kind of client is spoken to; what it returns is shared by all clients of the kind."""

    def session(self, session: Session) -> Sequence[Any]:
        """Encode the greeting; nothing, where the protocol has none."""

    def message(self, message: StoredMessage, epoch: str) -> Any:
        """Encode one message of the log."""

    def reset(self, reset: Reset) -> Sequence[Any] | None:
        """Encode the loss of continuity; ``None`` closes the client instead."""

    def event(self, name: str, args: Sequence[Any], offset: str, ack_id: int | None) -> Sequence[Any]:
        """Encode another process's emit; nothing, where the protocol has no events."""

    def pack(self, payloads: Sequence[Any]) -> Any:
        """Join what goes out together, once for all who get it."""


class Member(Protocol):
    """A client of the room."""

    encoding: Encoding

    def send(self, packed: Any) -> int:
        """Hand over, without waiting; return how many bytes wait for this client now."""

    def close(self, why: Closing) -> None:
        """Begin to close, without waiting; whoever made the member takes it out of the room."""


class Room:
    """Everybody who is connected to this instance."""

    def __init__(
        self,
        timeline: Timeline,
        metrics: Metrics,
        *,
        instance: str,
        max_message_bytes: int,
        send_buffer_bytes: int,
    ) -> None:
        self._timeline = timeline
        self._metrics = metrics
        self._instance = instance
        self._max_message_bytes = max_message_bytes
        self.send_buffer_bytes = send_buffer_bytes
        self._members: dict[Encoding, set[Member]] = {}
        # A long replay may exceed the limit; what a member was given on joining is granted to it on top.
        self._granted: dict[Member, int] = {}
        self._pending: list[StoredMessage] = []
        self._pending_epoch = ""

    def __len__(self) -> int:
        return sum(len(members) for members in self._members.values())

    @property
    def offset(self) -> str:
        """Where a client stands that was sent everything up to now."""
        return f"{self._timeline.epoch}:{self._timeline.last_id}"

    def members(self) -> list[Member]:
        """Return everybody who is in now."""
        return [member for members in self._members.values() for member in members]

    def join(
        self, member: Member, *, after: int | None, epoch: str | None, greeting: Sequence[Any] = ()
    ) -> Session:
        """Greet, replay and enter in one step, so that no message can fall between or come twice.

        What the protocol says first of all, a ``greeting``, goes ahead of `session`.

        Raises:
            ValueError: the log was not read yet.
        """
        if self._timeline.epoch is None:
            raise ValueError("nobody can join before the log was read")
        self.flush()
        replay = self._timeline.replay(after, epoch)
        session = Session(
            epoch=self._timeline.epoch,
            last_id=self._timeline.last_id,
            recovered=replay.recovered,
            replayed=len(replay.messages),
            instance=self._instance,
            max_message_bytes=self._max_message_bytes,
            history_limit=self._timeline.capacity,
        )
        encoding = member.encoding
        payloads = [
            *greeting,
            *encoding.session(session),
            *[encoding.message(message, session.epoch) for message in replay.messages],
        ]
        waiting = member.send(encoding.pack(payloads)) if payloads else 0
        if waiting > self.send_buffer_bytes:
            self._granted[member] = waiting
        self._members.setdefault(encoding, set()).add(member)
        if replay.recovered is not None:
            self._metrics.replays.labels(str(replay.recovered).lower()).inc()
            self._metrics.replayed_messages.inc(len(replay.messages))
        return session

    def leave(self, member: Member) -> None:
        """Take a member out; nothing happens where it is not in."""
        self._members.get(member.encoding, set()).discard(member)
        self._granted.pop(member, None)

    def answered(self, member: Member, waiting: int) -> None:
        """Hold it against a member, too, what a gateway's own answer adds to what waits for it."""
        limit = self.send_buffer_bytes
        if waiting > limit and waiting > limit + self._granted.get(member, 0):
            self._close_slow((member,))

    def appended(self, message: StoredMessage) -> None:
        """Send a message to everybody, together with what else arrives in this turn of the loop."""
        if not self._pending:
            self._pending_epoch = self._timeline.epoch or ""
            asyncio.get_running_loop().call_soon(self.flush)
        self._pending.append(message)

    def flush(self) -> None:
        """Send what is pending now."""
        if not self._pending:
            return
        messages, self._pending = self._pending, []
        size = sum([len(message.text) for message in messages])
        slow: list[Member] = []
        for encoding, members in self._members.items():
            if members:
                payloads = [encoding.message(message, self._pending_epoch) for message in messages]
                slow += self._send(members, encoding.pack(payloads), size)
                self._metrics.deliveries.inc(len(messages) * len(members))
        now = time.time() * 1000
        for message in messages:
            self._metrics.delivery_delay.observe(max(0.0, now - message.ts) / 1000)
        self._close_slow(slow)

    def reset(self, reason: str) -> None:
        """Tell everybody that continuity was lost."""
        self.flush()
        reset = Reset(self._timeline.epoch or "", self._timeline.last_id, reason)
        slow: list[Member] = []
        for encoding, members in self._members.items():
            payloads = encoding.reset(reset)
            if payloads is not None:
                if payloads:
                    slow += self._send(members, encoding.pack(payloads))
                continue
            for member in tuple(members):
                self.leave(member)
                member.close(Closing.LOST)
        self._close_slow(slow)

    def emit(
        self, members: Iterable[Member], name: str, args: Sequence[Any], *, ack_id: int | None = None
    ) -> None:
        """Send another process's event to some members, in order with the messages."""
        self.flush()
        packed: dict[Encoding, Any] = {}
        slow: list[Member] = []
        for member in members:
            encoding = member.encoding
            if encoding not in packed:
                payloads = encoding.event(name, args, self.offset, ack_id)
                packed[encoding] = encoding.pack(payloads) if payloads else None
            if packed[encoding] is not None:
                slow += self._send((member,), packed[encoding])
        self._close_slow(slow)

    async def drain(self, seconds: float) -> None:
        """Close everybody, spread over ``seconds``, so that they do not all come back at once elsewhere."""
        loop = asyncio.get_running_loop()
        begin, members = loop.time(), self.members()
        for index, member in enumerate(members):
            due = begin + seconds * index / len(members)
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            member.close(Closing.DRAINING)

    def _send(self, members: Collection[Member], packed: Any, size: int = 0) -> list[Member]:
        """Hand the same to each member; return those who have too much waiting.

        What is handed over now, ``size`` bytes of messages, counts the next time only: nobody could have read
        it yet, and a burst (a gap that was healed, say) may be larger than the limit by itself.
        """
        limit, slow = self.send_buffer_bytes, []
        for member in members:
            waiting = member.send(packed)
            if waiting > limit:
                if waiting > limit + size + self._granted.get(member, 0):
                    slow.append(member)
            elif self._granted:
                self._granted.pop(member, None)
        return slow

    def _close_slow(self, slow: Iterable[Member]) -> None:
        for member in slow:
            self._metrics.slow_clients_closed.inc()
            self.leave(member)
            member.close(Closing.SLOW)
