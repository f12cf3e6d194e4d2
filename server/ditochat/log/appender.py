"""Appending to the log: messages that arrive while one call is under way share the next (group commit).

What is promised to who publishes: an answer within 2 s; ``stored`` means that Redis has it, with as
many replicas as were asked for, and every follower will deliver it once; a failure means that it was
*probably* not stored (where only replicas are missing, that it was), and sending it again with the same nonce
is safe.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from redis.exceptions import ReadOnlyError, RedisError

from ditochat.errors import TooLarge, Unavailable
from ditochat.log import envelope
from ditochat.log.connections import Connections, raise_if_cancelled
from ditochat.log.follower import Follower
from ditochat.log.keys import CHANNEL, LOG_KEYS, nonce_key
from ditochat.log.scripts import APPEND
from ditochat.message import Draft
from ditochat.metrics import Metrics

__all__ = ["DEADLINE_SECONDS", "Appended", "Appender"]

logger = logging.getLogger(__name__)

NONCE_MILLISECONDS: Final = 10 * 60 * 1000
# Longer than any retry of ours can take.
BATCH_NONCE_MILLISECONDS: Final = 30 * 1000
# SPEC, G6: "a publish fails within 2 s".
DEADLINE_SECONDS: Final = 1.8
RETRY_SECONDS: Final = 0.05
# 256 messages of 4 KB run in about 3 ms, during which Redis serves nobody else.
MAX_BATCH: Final = 256
# At the largest message that is 40 MB; past it waiting longer would help nobody.
MAX_UNANSWERED: Final = 10_000


class _Outcome(IntEnum):
    STORED = 0
    REPEATED = 1
    TOO_LARGE = 2


@dataclass(frozen=True, slots=True)
class Appended:
    """A stored message: ``text`` is ``None`` only for a ``duplicate`` that is older than the history."""

    id: int
    duplicate: bool
    text: bytes | None


@dataclass(frozen=True, slots=True)
class _Waiting:
    draft: Draft
    answer: "asyncio.Future[Appended]"


class _Patience:
    """Answers that may take ``seconds`` each: in order of arrival, and so of deadline, with one timer for all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.answers: dict[asyncio.Future[Appended], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.answers)

    def add(self, answer: "asyncio.Future[Appended]") -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        if not self.answers:
            self._timer = loop.call_at(due, self._expire)
        self.answers[answer] = due
        answer.add_done_callback(self._answered)

    def _answered(self, answer: "asyncio.Future[Appended]") -> None:
        self.answers.pop(answer, None)
        if not self.answers and self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        """Answer those whose time is up; what was not sent to Redis yet will not be."""
        loop = asyncio.get_running_loop()
        for answer, due in list(self.answers.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire)
                return
            del self.answers[answer]
            if not answer.done():
                answer.set_exception(Unavailable("Redis does not answer; try again"))


class Appender:
    """The one way into the log, for all gateways of this instance."""

    def __init__(
        self,
        connections: Connections,
        follower: Follower,
        metrics: Metrics,
        *,
        history_limit: int,
        max_message_bytes: int,
        wait_replicas: int,
    ) -> None:
        self._redis = connections.appends
        self._follower = follower
        self._metrics = metrics
        self._history_limit = history_limit
        self._max_message_bytes = max_message_bytes
        self._wait_replicas = wait_replicas
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._patience: dict[float, _Patience] = {}

    async def append(self, draft: Draft) -> Appended:
        """Store one message; drafts are stored in the order of these calls.

        Raises:
            TooLarge: as stored it would exceed the limit.
            Unavailable: Redis did not answer in time, or too few replicas did.
        """
        return await self.submit(draft)

    def submit(self, draft: Draft, *, seconds: float = DEADLINE_SECONDS) -> "asyncio.Future[Appended]":
        """Hand in one message; the future has the answer of :meth:`append`, or its error, within ``seconds``.

        Raises:
            Unavailable: too many are waiting already.
        """
        if sum(map(len, self._patience.values())) >= MAX_UNANSWERED:
            raise Unavailable("too many messages are waiting for Redis")
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        if seconds not in self._patience:
            self._patience[seconds] = _Patience(seconds)
        self._patience[seconds].add(answer)
        self._waiting.append(_Waiting(draft, answer))
        self._arrived.set()
        return answer

    async def run(self) -> None:
        """Send what arrives, until cancelled."""
        while True:
            raise_if_cancelled()
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._send(batch)

    async def settle(self) -> None:
        """Wait until everything that was handed in has its answer."""
        while unanswered := [answer for patience in self._patience.values() for answer in patience.answers]:
            await asyncio.wait(unanswered)

    def _take(self) -> list[_Waiting]:
        """Take the next batch, without those who were answered `unavailable` meanwhile."""
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < MAX_BATCH:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        """Try until Redis answers or nobody waits any more; always as the same batch, by its nonce."""
        batch_nonce = f"batch-{secrets.token_hex(12)}"
        while not all(waiting.answer.done() for waiting in batch):
            try:
                if await self._try(batch, batch_nonce):
                    return
            except (RedisError, OSError) as error:
                if isinstance(
                    error, ReadOnlyError
                ):  # a replica now: the next connection may lead to the master
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
                self._metrics.append_failures.inc()
                logger.debug("append failed, trying again: %r", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _try(self, batch: Sequence[_Waiting], batch_nonce: str) -> bool:
        """Run the script once; ``False`` where the log had to be opened first.

        Raises:
            redis.exceptions.RedisError: Redis is out of reach or refused, or too few replicas have the batch.
        """
        timeline = self._follower.timeline
        keys = [*LOG_KEYS, nonce_key(batch_nonce)]
        arguments: list[str | bytes | int] = [
            self._history_limit,
            self._max_message_bytes,
            CHANNEL,
            timeline.epoch or "",
            timeline.last_id,
            NONCE_MILLISECONDS,
            BATCH_NONCE_MILLISECONDS,
            envelope.BEFORE,
            envelope.AFTER,
        ]
        for waiting in batch:
            draft = waiting.draft
            arguments += (draft.body, int(draft.dated), int(draft.nonce is not None))
            if draft.nonce is not None:
                keys.append(nonce_key(draft.nonce))
        replicas = 0
        if self._wait_replicas:
            (status, *reply), replicas = await APPEND.run_and_wait(
                self._redis, keys, arguments, self._wait_replicas
            )
        else:
            status, *reply = await APPEND.run(self._redis, keys, arguments)
        if status != b"OK":
            # The log is not open, or went back: the follower starts a new epoch.
            await self._follower.synchronize()
            return False
        if replicas < self._wait_replicas:
            raise RedisError(f"{replicas} of {self._wait_replicas} replicas have the batch")
        _, *rows = reply
        for index, waiting in enumerate(batch):
            if not waiting.answer.done():
                self._answer(waiting.answer, *rows[3 * index : 3 * index + 3])
        return True

    def _answer(self, answer: "asyncio.Future[Appended]", message_id: int, outcome: int, text: bytes) -> None:
        if outcome == _Outcome.TOO_LARGE:
            answer.set_exception(TooLarge(self._max_message_bytes))
        else:
            answer.set_result(Appended(message_id, outcome == _Outcome.REPEATED, text or None))
