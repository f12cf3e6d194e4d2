"""The newest messages of the log, in memory and in order.

Pure: no I/O and no clock. The follower feeds it, the gateways read it. It is contiguous always: every id
from ``first_id`` to ``last_id`` is there, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from ditochat.message import StoredMessage

__all__ = ["Placement", "Replay", "Timeline"]


class Placement(Enum):
    """What became of a message that was offered to :meth:`Timeline.append`."""

    APPENDED = auto()
    KNOWN = auto()
    """It was there already, or is older than all that is kept."""
    GAP = auto()
    """Earlier ones are missing: read them from the log first."""
    CONFLICT = auto()
    """Another message has this id: the log went back and gave it a second time."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer to a client that comes back.

    ``recovered`` is ``None`` where the client asked for nothing, ``False`` where continuity is lost;
    ``messages`` follow in ascending order.
    """

    recovered: bool | None
    messages: Sequence[StoredMessage] = ()


class Timeline:
    """At most ``capacity`` messages of one epoch.

    ``epoch`` is ``None`` until the log was read for the first time.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"expected a capacity of 1 or more, got {capacity}")
        self.capacity = capacity
        self.epoch: str | None = None
        self.last_id = 0
        # Trimmed only when it is twice too long, so that an append costs the same at any length.
        self._messages: list[StoredMessage] = []

    @property
    def first_id(self) -> int:
        """The oldest id that can be replayed; one more than ``last_id`` where there is none."""
        return self.last_id + 1 - min(len(self._messages), self.capacity)

    def __len__(self) -> int:
        return min(len(self._messages), self.capacity)

    def get(self, message_id: int) -> StoredMessage | None:
        """Return the message with this id, ``None`` where it is not kept."""
        if not self.first_id <= message_id <= self.last_id:
            return None
        return self._messages[message_id - self.last_id - 1]

    def append(self, message: StoredMessage) -> Placement:
        """Take the next message, and no other."""
        if message.id <= self.last_id:
            known = self.get(message.id)
            return Placement.KNOWN if known is None or known.text == message.text else Placement.CONFLICT
        if message.id != self.last_id + 1:
            return Placement.GAP
        self._messages.append(message)
        self.last_id = message.id
        if len(self._messages) >= 2 * self.capacity:
            del self._messages[: -self.capacity]
        return Placement.APPENDED

    def replace(self, epoch: str, last_id: int, messages: Sequence[StoredMessage]) -> None:
        """Start anew from what the log holds: ``messages`` in ascending order, up to ``last_id``.

        Raises:
            ValueError: the messages are not contiguous or do not end at ``last_id``.
        """
        expected = range(last_id + 1 - len(messages), last_id + 1)
        if any(message.id != message_id for message, message_id in zip(messages, expected, strict=True)):
            raise ValueError(f"expected the ids {expected.start} to {last_id}, in order")
        self.epoch = epoch
        self.last_id = last_id
        self._messages = list(messages[-self.capacity :])

    def can_replay(self, after: int, epoch: str | None) -> bool:
        """Tell whether every message later than ``after`` is known; without ``epoch``, of this epoch."""
        return epoch in (None, self.epoch) and self.first_id - 1 <= after <= self.last_id

    def replay(self, after: int | None, epoch: str | None) -> Replay:
        """Return what a client has missed that has everything up to ``after`` of ``epoch``."""
        if after is None:
            return Replay(None)
        if not self.can_replay(after, epoch):
            return Replay(False)
        return Replay(True, self._slice(after + 1, self.last_id))

    def newest_first(
        self, limit: int, *, before: int | None = None, after: int | None = None
    ) -> list[StoredMessage]:
        """Return at most ``limit`` messages in descending order, with ``after`` < id < ``before``."""
        stop = self.last_id if before is None else min(before - 1, self.last_id)
        start = self.first_id if after is None else max(after + 1, self.first_id)
        start = max(start, stop + 1 - limit)
        return self._slice(start, stop)[::-1]

    def _slice(self, first: int, last: int) -> list[StoredMessage]:
        """Return the messages ``first`` to ``last``, both of them kept."""
        offset = len(self._messages) - self.last_id - 1
        return self._messages[first + offset : max(first, last + 1) + offset]
