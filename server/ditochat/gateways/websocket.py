"""Plain WebSocket at ``/ws``: the protocol of the Go backend, whose frontends go on working unchanged.

A text frame up is one message; a frame down is one or more stored messages, joined by newlines. There is no
acknowledgement, so errors close the connection (RFC 6455, section 7.4).
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from ditochat.engine.deadlines import DeadlineWheel
from ditochat.engine.frames import Opcode, encode_frame
from ditochat.engine.handover import can_upgrade, serve_websocket
from ditochat.engine.websocket import WebSocketProtocol
from ditochat.errors import ChatError, Invalid, TooLarge, Unavailable
from ditochat.fanout import Closing, Encoding, Reset, Room, Session
from ditochat.gateways.publisher import Publisher
from ditochat.log.appender import Appended
from ditochat.log.follower import Follower
from ditochat.message import StoredMessage, draft_from_frame

__all__ = ["WebSocketGateway"]

logger = logging.getLogger(__name__)

PING_SECONDS: Final = 54.0
# From one pong to the next; more than PING_SECONDS, so that an answer has 6 s to arrive.
PONG_WAIT_SECONDS: Final = 60.0
# How long a client may not be answered for Redis' sake before it is told to try again later.
PUBLISH_SECONDS: Final = 10.0
DECIDE_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 5.0
MAX_FRAME_BYTES: Final = 64 * 1024
# Messages of one client that may be on their way to Redis; then no more is read from it until some are stored.
MAX_STORING: Final = 256
_ID: Final = re.compile(r"[0-9]{1,16}")
_CLOSE_CODES: Final = {Closing.SLOW: 1013, Closing.DRAINING: 1001, Closing.LOST: 1013}
_ERROR_CODES: Final = {TooLarge: 1009, Unavailable: 1013, Invalid: 1008}


class _Encoding:
    """A stored message goes out as it is; there is no word for anything else."""

    def __init__(self, *, resumable: bool) -> None:
        self._resumable = resumable

    def session(self, session: Session) -> Sequence[bytes]:
        return ()

    def message(self, message: StoredMessage, epoch: str) -> bytes:
        return message.text

    def reset(self, reset: Reset) -> Sequence[bytes] | None:
        # Who keeps a position must hear that it is void; the Go backend's frontend keeps none, and stays.
        return None if self._resumable else ()

    def event(self, name: str, args: Sequence[object], offset: str, ack_id: int | None) -> Sequence[bytes]:
        return ()

    def pack(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        return [encode_frame(Opcode.TEXT, b"\n".join(chunk)) for chunk in _chunks(payloads)]


def _chunks(payloads: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
    """Part messages into frames of at most :data:`MAX_FRAME_BYTES`, or of one message."""
    chunks: list[list[bytes]] = [[]]
    size = 0
    for payload in payloads:
        if chunks[-1] and size + len(payload) > MAX_FRAME_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(payload)
        size += len(payload) + 1
    return chunks


_PLAIN: Final = _Encoding(resumable=False)
_RESUMABLE: Final = _Encoding(resumable=True)


class _Client(WebSocketProtocol):
    """One connection, a member of the room."""

    __slots__ = (
        "_draining",
        "_gateway",
        "_storing",
        "after",
        "encoding",
        "epoch",
        "ping_due",
        "pong_due",
    )

    def __init__(self, gateway: "WebSocketGateway", after: int | None, epoch: str | None) -> None:
        super().__init__(gateway.max_frame_bytes)
        self.encoding: Encoding = _PLAIN if after is None else _RESUMABLE
        self.after = after
        self.epoch = epoch
        self.ping_due = 0.0
        self.pong_due = 0.0
        self._gateway = gateway
        self._storing = 0
        self._draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # The handshake's answer is written behind this; what is live comes behind the answer.
        asyncio.get_running_loop().call_soon(self._gateway.joined, self)

    def send(self, packed: Sequence[bytes]) -> int:
        return self.write(packed)

    def message_received(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.fail(Invalid("expected a text frame, got a binary one"))
        else:
            self._publish(message)

    def pong_received(self) -> None:
        self._gateway.alive(self)

    def farewell_seconds(self) -> float:
        return CLOSE_SECONDS

    def closed(self) -> None:
        self._gateway.left(self)

    def fail(self, error: ChatError) -> None:
        """Close for an error of the client's, or of ours."""
        self.send_close(_ERROR_CODES.get(type(error), 1011), str(error))

    def close(self, why: Closing) -> None:
        logger.info("closing a /ws client: %s", why.value)
        if why is Closing.DRAINING and self._storing:
            self._draining = True  # what it published is stored before it goes
        else:
            self.send_close(_CLOSE_CODES[why], why.value, drop=why is Closing.SLOW)

    def _publish(self, message: str) -> None:
        publisher = self._gateway.publisher
        try:
            # Tried for longer than others are: nobody could be told to try again.
            answer = publisher.submit(
                lambda: draft_from_frame(message, max_bytes=publisher.max_message_bytes),
                seconds=PUBLISH_SECONDS,
            )
        except ChatError as error:
            self.fail(error)
            return
        answer.add_done_callback(self._stored)
        self._storing += 1
        if self._storing == MAX_STORING and self.transport is not None:
            self.transport.pause_reading()

    def _stored(self, answer: "asyncio.Future[Appended]") -> None:
        if self._storing == MAX_STORING and self.transport is not None:
            self.transport.resume_reading()
        self._storing -= 1
        error = answer.exception()
        if isinstance(error, ChatError):
            self.fail(error)
        elif error is not None:
            logger.error("a publish failed unexpectedly", exc_info=error)
            self.send_close(1011, "unexpected error")
        elif self._draining and not self._storing:
            self.close(Closing.DRAINING)


class WebSocketGateway:
    """Serves ``/ws``."""

    def __init__(self, room: Room, follower: Follower, publisher: Publisher, *, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.publisher = publisher
        self._room = room
        self._follower = follower
        self._heartbeats: DeadlineWheel[_Client] = DeadlineWheel(min(0.25, PING_SECONDS / 20))
        self._timer: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """Connected clients."""
        return len(self._heartbeats)

    def open(self, query: Mapping[str, str]) -> WebSocketProtocol | None:
        """Return the protocol of a new client; ``None`` where :meth:`handle` has to think or to refuse."""
        try:
            after, epoch = _position(query)
        except Invalid:
            return None
        return _Client(self, after, epoch) if self._follower.knows(after, epoch) else None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client whose handshake came through aiohttp."""
        after, epoch = _position(request.query)
        if not can_upgrade(request):
            raise Invalid("expected a WebSocket handshake")
        if not await self._follower.can_decide(after, epoch, DECIDE_SECONDS):
            raise Unavailable("Redis is out of reach")
        return await serve_websocket(request, _Client(self, after, epoch))

    def joined(self, client: "_Client") -> None:
        """Take a client into the room; its handshake is answered."""
        if client.transport is None:
            return
        now = asyncio.get_running_loop().time()
        client.ping_due, client.pong_due = now + PING_SECONDS, now + PONG_WAIT_SECONDS
        self._expect(client)
        timeline = self._follower.timeline
        after, epoch = client.after, client.epoch
        if after is not None and not timeline.can_replay(after, epoch):
            # The protocol cannot say "load the history again", so all that is known is the answer.
            after, epoch = timeline.first_id - 1, None
        self._room.join(client, after=after, epoch=epoch)

    def left(self, client: "_Client") -> None:
        """Take a client out of the room."""
        self._heartbeats.drop(client)
        self._room.leave(client)

    def alive(self, client: "_Client") -> None:
        """A client has answered a ping."""
        client.pong_due = asyncio.get_running_loop().time() + PONG_WAIT_SECONDS
        self._expect(client)

    def _expect(self, client: "_Client") -> None:
        self._heartbeats.set(client, min(client.ping_due, client.pong_due))
        self._schedule()

    def _schedule(self) -> None:
        due = self._heartbeats.next_due()
        if due is None or (self._timer is not None and self._timer.when() <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for client in self._heartbeats.expire(now):
            if now >= client.pong_due:
                client.send_close(1001, f"no pong in {PONG_WAIT_SECONDS:.0f} s")
                continue
            client.ping()
            client.ping_due = now + PING_SECONDS
            self._heartbeats.set(client, min(client.ping_due, client.pong_due))
        self._schedule()


def _position(query: Mapping[str, str]) -> tuple[int | None, str | None]:
    after, epoch = query.get("after"), query.get("epoch")
    if after is None:
        return None, None
    if not _ID.fullmatch(after):
        raise Invalid("expected an id, a whole number", "after")
    return int(after), epoch
