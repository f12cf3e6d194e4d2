"""Plain WebSocket at ``/ws``: the protocol of the Go backend, whose frontends go on working unchanged.

A text frame up is one message; a frame down is one or more stored messages, joined by newlines. There is no
acknowledgement, so errors close the connection (RFC 6455, section 7.4).
"""

import asyncio
import dataclasses
import logging
import re
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from aiohttp import WSMessage, WSMsgType, web

from ditochat.errors import Invalid, TooLarge, Unavailable
from ditochat.fanout import Closing, Encoding, Reset, Room, Session
from ditochat.gateways.publisher import Publisher
from ditochat.log.follower import Follower
from ditochat.message import Draft, StoredMessage, draft_from_frame

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
_MAX_REASON_BYTES: Final = 123  # RFC 6455, section 5.5: a control frame holds 125 bytes, the code takes 2
_ID: Final = re.compile(r"[0-9]{1,16}")
_CODES: Final = {Closing.SLOW: 1013, Closing.DRAINING: 1001, Closing.LOST: 1013}


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


_PLAIN: Final = _Encoding(resumable=False)
_RESUMABLE: Final = _Encoding(resumable=True)


class _Client:
    """One connection: what waits for it, and the task that writes."""

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, encoding: Encoding
    ):
        self.encoding = encoding
        self._socket = socket
        self._transport = transport
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._publishing = asyncio.Lock()

    def send(self, payloads: Sequence[bytes]) -> int:
        self._waiting.extend(payloads)
        self._waiting_bytes += sum(map(len, payloads))
        self._arrived.set()
        return self._waiting_bytes

    def close(self, why: Closing) -> None:
        if self._closing is None:
            logger.info("closing a /ws client: %s", why.value)
            self._closing = asyncio.get_running_loop().create_task(self._close(why))

    async def write(self) -> None:
        """Write what arrives, and pings in between, until cancelled."""
        loop = asyncio.get_running_loop()
        next_ping = loop.time() + PING_SECONDS
        while True:
            # A slow client may have something waiting at all times, and is asked for a pong nevertheless.
            if loop.time() >= next_ping:
                await self._socket.ping()
                next_ping = loop.time() + PING_SECONDS
            if self._waiting:
                await self._write_frame()
                continue
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_ping):
                    await self._arrived.wait()

    async def read(self, publish: "Publisher") -> None:
        """Publish what the client sends, until it goes or errs."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PONG_WAIT_SECONDS) as pong_wait:
            while True:
                frame = await self._socket.receive()
                if frame.type is WSMsgType.PONG:
                    pong_wait.reschedule(loop.time() + PONG_WAIT_SECONDS)
                elif frame.type is WSMsgType.PING:
                    await self._socket.pong(frame.data)
                elif frame.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    # Pongs wait behind this frame, so that time does not count.
                    left = (pong_wait.when() or 0.0) - loop.time()
                    pong_wait.reschedule(None)
                    async with self._publishing:
                        await _publish(publish, frame)
                    pong_wait.reschedule(loop.time() + left)
                else:
                    return

    async def end(self, code: int, reason: str) -> None:
        """Close with a code; by force where the client does not answer."""
        text = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close(code=code, message=text)
        except (TimeoutError, ConnectionError):
            # aiohttp has closed the transport, which waits until the client has read what is left.
            if self._transport is not None:
                self._transport.abort()

    async def finish_closing(self) -> None:
        """Wait for a close of ours that is under way."""
        if self._closing is not None:
            await self._closing

    async def _write_frame(self) -> None:
        chunk = [self._waiting.popleft()]
        size = len(chunk[0])
        while self._waiting and size + len(self._waiting[0]) < MAX_FRAME_BYTES:
            chunk.append(self._waiting.popleft())
            size += len(chunk[-1])
        await self._socket.send_frame(b"\n".join(chunk), WSMsgType.TEXT)
        self._waiting_bytes -= sum(map(len, chunk))

    async def _close(self, why: Closing) -> None:
        if why is Closing.DRAINING:
            async with self._publishing:  # what it published is stored before it goes
                pass
        self._waiting.clear()
        await self.end(_CODES[why], why.value)


class WebSocketGateway:
    """Serves ``/ws``."""

    def __init__(self, room: Room, follower: Follower, publisher: Publisher, *, max_frame_bytes: int) -> None:
        self._room = room
        self._follower = follower
        self._publisher = publisher
        self._max_frame_bytes = max_frame_bytes
        self.count = 0
        """Connected clients."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from handshake to close."""
        after, epoch = _position(request)
        if not await self._follower.can_decide(after, epoch, DECIDE_SECONDS):
            raise Unavailable("Redis is out of reach")
        # Pongs have to be seen, so pings are not answered for us; no compression: see engine.py.
        socket = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=self._max_frame_bytes)
        if not socket.can_prepare(request):
            raise Invalid("expected a WebSocket handshake")
        await socket.prepare(request)
        client = _Client(socket, request.transport, _PLAIN if after is None else _RESUMABLE)
        self.count += 1
        try:
            await self._serve(client, after, epoch)
        finally:
            self.count -= 1
            self._room.leave(client)
        return socket

    async def _serve(self, client: _Client, after: int | None, epoch: str | None) -> None:
        timeline = self._follower.timeline
        if after is not None and not timeline.can_replay(after, epoch):
            # The protocol cannot say "load the history again", so all that is known is the answer.
            after, epoch = timeline.first_id - 1, None
        self._room.join(client, after=after, epoch=epoch)
        writer = asyncio.get_running_loop().create_task(client.write())
        try:
            await client.read(self._publisher)
        except TimeoutError:
            await client.end(1001, f"no pong in {PONG_WAIT_SECONDS:.0f} s")
        except TooLarge as error:
            await client.end(1009, str(error))
        except Unavailable as error:
            await client.end(1013, str(error))
        except Invalid as error:
            await client.end(1008, str(error))
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await client.finish_closing()


async def _publish(publisher: Publisher, frame: WSMessage) -> None:
    """Publish one frame, trying for longer than the others do: nobody could be told to try again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PUBLISH_SECONDS
    # Its own nonce, where it has none: trying again must not double it.
    nonce = secrets.token_hex(12)
    while True:
        try:
            await publisher.publish(lambda: _draft(publisher, frame, nonce))
        except Unavailable:
            if loop.time() > deadline:
                raise
        else:
            return


def _draft(publisher: Publisher, frame: WSMessage, nonce: str) -> Draft:
    if frame.type is not WSMsgType.TEXT:
        raise Invalid("expected a text frame, got a binary one")
    draft = draft_from_frame(frame.data, max_bytes=publisher.max_message_bytes)
    return draft if draft.nonce else dataclasses.replace(draft, nonce=nonce)


def _position(request: web.Request) -> tuple[int | None, str | None]:
    after, epoch = request.query.get("after"), request.query.get("epoch")
    if after is None:
        return None, None
    if not _ID.fullmatch(after):
        raise Invalid("expected an id, a whole number", "after")
    return int(after), epoch
