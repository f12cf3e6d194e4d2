"""Following the log: what is published arrives over a subscription, what the subscription missed is read.

PUBLISH is at most once, so nothing is taken for granted: a hole in the ids is filled from the list before
anything later is delivered; the newest id is compared with Redis' own every second, and after every
reconnection. All that reaches the timeline reaches the listener, in the same order.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Final, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from ditochat.log.adoption import adopt
from ditochat.log.connections import Connections, Master, NotMaster, raise_if_cancelled, says_replica
from ditochat.log.envelope import open_envelope
from ditochat.log.keys import CHANNEL, EPOCH_KEY, ID_KEY, LIST_KEY, LOG_KEYS
from ditochat.log.scripts import OPEN, READ
from ditochat.message import StoredMessage
from ditochat.metrics import Metrics
from ditochat.timeline import Placement, Timeline

__all__ = ["Follower", "Listener"]

logger = logging.getLogger(__name__)

TAIL_CHECK_SECONDS: Final = 1.0
# What was appended just before the check may still be on its way over the subscription.
TAIL_GRACE_SECONDS: Final = 0.1
# Where nothing is published a PING asks whether the subscription lives; two unanswered ones mean that it is
# dead (a partition, say).
SILENCE_SECONDS: Final = 1.0
MAX_UNANSWERED_PINGS: Final = 2
# G6 promises everything live within 2 s of Redis' return: look often.
RECONNECT_MIN_SECONDS: Final = 0.05
RECONNECT_MAX_SECONDS: Final = 0.5
SUBSCRIBE_TIMEOUT_SECONDS: Final = 0.8
# SPEC, section 5: not ready "after 10 s without Redis".
UNREADY_AFTER_SECONDS: Final = 10.0


class Listener(Protocol):
    """Who is told what happens to the timeline; never waits."""

    def appended(self, message: StoredMessage) -> None:
        """``message`` is the timeline's newest now."""

    def reset(self, reason: str) -> None:
        """Continuity was lost; the timeline holds what the log holds now."""


class Follower:
    """Keeps ``timeline`` equal to the log, and hands to ``foreign`` what others publish on the channel."""

    def __init__(
        self,
        connections: Connections,
        timeline: Timeline,
        listener: Listener,
        foreign: Callable[[bytes], None],
        metrics: Metrics,
    ) -> None:
        self.timeline = timeline
        self._reads = Master(connections.reads)
        self._subscriptions = connections.subscription
        self._listener = listener
        self._foreign = foreign
        self._metrics = metrics
        self._reading = asyncio.Lock()
        self._next_reading: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._subscribed = False
        self._followed = False
        self._lost_since: float | None = time.monotonic()
        self._loss_reported = False

    @property
    def trouble(self) -> str | None:
        """Why this instance should get no new clients; ``None`` where all is well."""
        if self.timeline.epoch is None:
            return "the log was not read yet: Redis is out of reach"
        if self._lost_since is not None and time.monotonic() - self._lost_since > UNREADY_AFTER_SECONDS:
            return f"Redis has been out of reach for more than {UNREADY_AFTER_SECONDS:.0f} s"
        return None

    async def run(self) -> None:
        """Follow until cancelled, whatever becomes of Redis."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._subscribe_forever())
                tasks.create_task(self._check_tail_forever())
        finally:
            if self._next_reading is not None:
                self._next_reading.cancel()

    async def wait_for(self, arrived: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``arrived()`` holds of the timeline; ``False`` when the time is up."""
        try:
            async with asyncio.timeout(seconds):
                while not arrived():
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            return False
        return True

    async def can_decide(self, after: int | None, epoch: str | None, seconds: float) -> bool:
        """Make sure that the timeline can tell whether a client at ``after`` of ``epoch`` can be replayed to.

        A position that this instance does not know may be one that it has not heard of yet: Redis knows.
        ``False`` where Redis could not be asked within ``seconds``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.knows(after, epoch):
            try:
                async with asyncio.timeout_at(deadline):
                    await self.synchronize()
            except (RedisError, OSError):  # a TimeoutError is an OSError
                if loop.time() >= deadline:
                    return False
                await asyncio.sleep(RECONNECT_MIN_SECONDS)
            else:
                return True
        return True

    def knows(self, after: int | None, epoch: str | None) -> bool:
        """Tell whether :meth:`can_decide` would answer at once."""
        timeline = self.timeline
        if timeline.epoch is None:
            return False
        if after is None or timeline.can_replay(after, epoch):
            return True
        return epoch in (None, timeline.epoch) and after < timeline.first_id

    async def synchronize(self) -> None:
        """Bring the timeline up to date from the list, opening the log where there is none.

        Who asks while one reading is under way shares the next one with all others who do.

        Raises:
            RedisError, OSError: Redis is out of reach.
        """
        if self._next_reading is None:
            self._next_reading = asyncio.get_running_loop().create_task(self._read_next())
            # Also where nobody waits any more when it fails.
            self._next_reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._next_reading)

    async def _read_next(self) -> None:
        async with self._reading:
            self._next_reading = None  # who asks from now on may know of more than this reading sees
            while not await self._synchronize_once():
                pass

    async def _synchronize_once(self) -> bool:
        """Take one step towards the state of the log; ``False`` where it has to be looked at again."""
        known_epoch, known_id = self.timeline.epoch, self.timeline.last_id
        # From the newest known message on, to see that it is still the same one.
        epoch, last_id, texts = await self._read(-1 if known_epoch is None else known_id)
        if epoch is None:
            await self._open(lost_epoch=None)
            return False
        if known_epoch is None:
            self._replace(epoch, last_id, texts)
        elif epoch != known_epoch:
            await self._start_anew("the log in Redis has started over")
        elif self._went_back(known_id, last_id, texts):
            await self._open(lost_epoch=epoch)
            await self._start_anew("the log in Redis has lost its newest messages")
        elif not self._take(last_id, texts):
            # Strangers in the list, perhaps: all of it may have what the part has not.
            epoch, last_id, texts = await self._read(-1)
            if epoch != known_epoch:
                return False
            if not self._take(last_id, texts):
                await self._start_anew("more messages were missed than are kept")
        return True

    def _went_back(self, known_id: int, last_id: int, texts: Sequence[bytes]) -> bool:
        known = self.timeline.get(known_id)
        return last_id < known_id or any(
            known is not None and message.id == known_id and message.text != known.text
            for message in _newest_run(texts)
        )

    def _take(self, last_id: int, texts: Sequence[bytes]) -> bool:
        """Append what was read; ``False`` where it does not join on to what is known."""
        for message in _newest_run(texts):
            if message.id > self.timeline.last_id and not self._append(message):
                return False
        return self.timeline.last_id >= last_id

    def _append(self, message: StoredMessage) -> bool:
        """Append the next message; ``True`` also where it is there already."""
        placement = self.timeline.append(message)
        if placement is Placement.APPENDED:
            self._listener.appended(message)
            self._wake()
        return placement in (Placement.APPENDED, Placement.KNOWN)

    async def _start_anew(self, reason: str) -> None:
        epoch, last_id, texts = await self._read(-1)
        if epoch is None:  # gone again; whoever called looks again at the next tail check
            return
        logger.warning("continuity was lost: %s", reason, extra={"epoch": epoch, "last_id": last_id})
        self._metrics.resets.inc()
        self._replace(epoch, last_id, texts)
        self._listener.reset(reason)

    def _replace(self, epoch: str, last_id: int, texts: Sequence[bytes]) -> None:
        messages = _newest_run(texts)
        if not messages or messages[-1].id != last_id:  # somebody deleted the list, or part of it
            messages = []
        self.timeline.replace(epoch, last_id, messages)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _read(self, since: int) -> tuple[str | None, int, list[bytes]]:
        """Read the epoch, the newest id, and the texts since an id, newest first."""
        reply: list[Any] = await READ.run(self._reads, LOG_KEYS, [since])
        if not reply:
            return None, 0, []
        return reply[0].decode(), reply[1], reply[2:]

    async def _open(self, *, lost_epoch: str | None) -> None:
        """Make sure that there is a log: a new epoch, and ids for a list that has none."""
        arguments: list[str | bytes | int] = [secrets.token_hex(8), lost_epoch or "", "", 0]
        while await OPEN.run(self._reads, LOG_KEYS, arguments) != b"OPEN":
            texts: list[bytes] = await self._reads.execute_command("LRANGE", LIST_KEY, 0, -1)
            seconds, _ = await self._reads.execute_command("TIME")
            newest, adopted = adopt(texts, now=int(seconds) * 1000)
            logger.info("giving ids to %d messages that have none", len(texts))
            digest = sha1(b"\n".join(texts), usedforsecurity=False).hexdigest()
            arguments[2:] = [digest, newest, *adopted]

    async def _subscribe_forever(self) -> None:
        delay = RECONNECT_MIN_SECONDS
        while True:
            raise_if_cancelled()
            self._followed = False
            try:
                await self._subscribe()
            except (RedisError, OSError) as error:
                logger.debug("the subscription ended: %r", error)
            if self._followed:
                delay = RECONNECT_MIN_SECONDS
            self._note_lost()
            await asyncio.sleep(delay)
            delay = min(2 * delay, RECONNECT_MAX_SECONDS)

    async def _subscribe(self) -> None:
        """Subscribe, catch up, and listen until the connection fails."""
        pool = self._subscriptions.connection_pool
        connection = await pool.get_connection()
        try:
            await self._raise_if_replica(connection)
            await connection.send_command("SUBSCRIBE", CHANNEL, check_health=False)
            await connection.read_response(timeout=SUBSCRIBE_TIMEOUT_SECONDS)
            # Subscribed first, read then: nothing can fall between the two.
            await self.synchronize()
            self._subscribed = True
            self._followed = True
            self._note_found()
            await self._listen(connection)
        finally:
            self._subscribed = False
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    async def _raise_if_replica(self, connection: AbstractConnection) -> None:
        await connection.send_command("HELLO", check_health=False)
        try:
            hello = await connection.read_response(timeout=SUBSCRIBE_TIMEOUT_SECONDS)
        except ResponseError:  # we may not ask
            return
        if says_replica(hello):
            raise NotMaster("this Redis is a replica")

    async def _listen(self, connection: AbstractConnection) -> None:
        """Take what comes until nothing does, or until Redis is a replica, which may hear nothing any more.

        Nobody else may use the connection, not even to send a PING: redis-py closes it under whoever is just
        sending (an AttributeError, on Python 3.11).
        """
        unanswered = 0
        demotions = self._reads.demotions
        while unanswered <= MAX_UNANSWERED_PINGS and demotions == self._reads.demotions:
            response = await connection.read_response(timeout=SILENCE_SECONDS)
            if response is None:
                await connection.send_command("PING", check_health=False)
                unanswered += 1
                continue
            unanswered = 0
            kind, *rest = response
            if kind == b"message":
                await self._receive(rest[-1])

    async def _receive(self, payload: bytes) -> None:
        opened = open_envelope(payload)
        if opened is None:
            self._foreign(payload)
            return
        epoch, text = opened
        try:
            message = StoredMessage.parse(text)
        except ValueError as error:
            logger.warning("dropped from the channel: %s", error)
            return
        if epoch == self.timeline.epoch and self._append(message):
            return
        if epoch == self.timeline.epoch and message.id > self.timeline.last_id:
            self._metrics.gaps_healed.inc()
        await self.synchronize()

    async def _check_tail_forever(self) -> None:
        while True:
            raise_if_cancelled()
            await asyncio.sleep(TAIL_CHECK_SECONDS)
            try:
                await self._check_tail()
            except (RedisError, OSError) as error:
                logger.debug("the tail check failed: %r", error)
                self._note_lost()
            else:
                if self._subscribed:
                    self._note_found()

    async def _check_tail(self) -> None:
        """Compare the newest id with Redis' own: a lost last message leaves no hole to be noticed by."""
        known_epoch, known_id = self.timeline.epoch, self.timeline.last_id
        if known_epoch is None:  # the subscription reads everything first
            return
        stored_id, stored_epoch = await self._reads.execute_command("MGET", ID_KEY, EPOCH_KEY)
        same_log = stored_id is not None and stored_epoch == known_epoch.encode()
        if same_log and int(stored_id) >= known_id:
            newest = int(stored_id)
            self._metrics.follower_lag.set(max(0, newest - self.timeline.last_id))
            if await self.wait_for(lambda: self.timeline.last_id >= newest, TAIL_GRACE_SECONDS):
                return
            self._metrics.gaps_healed.inc()
        await self.synchronize()
        self._metrics.follower_lag.set(0)

    def _note_lost(self) -> None:
        self._metrics.redis_up.set(0)
        self._metrics.subscribed.set(self._subscribed)
        if self._lost_since is None:
            self._lost_since = time.monotonic()
        if not self._loss_reported:
            self._loss_reported = True
            logger.warning("Redis is out of reach; history stays readable, publishing waits for its return")

    def _note_found(self) -> None:
        self._metrics.redis_up.set(1)
        self._metrics.subscribed.set(1)
        if self._lost_since is not None:
            self._lost_since = None
            self._loss_reported = False
            logger.info(
                "following the log", extra={"epoch": self.timeline.epoch, "last_id": self.timeline.last_id}
            )


def _newest_run(texts: Sequence[bytes]) -> list[StoredMessage]:
    """Parse texts, newest first, into the newest contiguous messages, in ascending order.

    What another program pushed into the list is passed over: it has no id.
    """
    run: list[StoredMessage] = []
    for text in texts:
        try:
            message = StoredMessage.parse(text)
        except ValueError as error:
            logger.warning("passed over in the list: %s", error)
            continue
        if run and message.id != run[-1].id - 1:
            break
        run.append(message)
    return run[::-1]
