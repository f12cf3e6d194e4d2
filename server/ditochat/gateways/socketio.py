"""Socket.IO at ``/socket.io/``: python-socketio's server, with the log's way of connecting and sending.

The order on a new connection is CONNECT, `session`, replay, live; nothing may slip in between, so the four
are handed to the client in one step, without an ``await``.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any, Final

import socketio
from socketio import packet
from socketio.packet import Packet

from ditochat.errors import ChatError, Invalid
from ditochat.fanout import Closing, Encoding, Member, Reset, Room, Session
from ditochat.gateways.emits import ChatManager
from ditochat.gateways.engine import Engine, Outgoing
from ditochat.gateways.handshake import Handshake, parse_auth
from ditochat.gateways.publisher import Publisher
from ditochat.log.follower import Follower
from ditochat.message import MAX_DEPTH, StoredMessage, draft_from_value

__all__ = ["ChatServer"]

logger = logging.getLogger(__name__)

# Where nobody can tell yet whether a client can be recovered (Redis is away), it waits so long, and is then
# sent away to try again.
DECIDE_SECONDS: Final = 10.0
# A publish has its answer within 2 s.
ANSWER_SECONDS: Final = 2.0
# As socket.io's own parser; what a packet announces is kept until all of it is there.
MAX_ATTACHMENTS: Final = 10
_EVENT_WITH_ACK: Final = re.compile(r"2(?:/[^,]*,)?([0-9]{1,15})\[")
# python-socketio raises one of these wherever a packet has not the form that it expects.
_BAD_PACKET: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)


class _Encoding:
    """Encodes for Socket.IO clients; with ``recovery`` everything carries the client's newest offset last."""

    def __init__(self, *, recovery: bool) -> None:
        self._recovery = recovery

    def session(self, session: Session) -> Sequence[Outgoing]:
        return self.event("session", [session.as_json()], f"{session.epoch}:{session.last_id}", None)

    def message(self, message: StoredMessage, epoch: str) -> Outgoing:
        end = f',"{epoch}:{message.id}"]' if self._recovery else "]"
        begin = '2["message",'
        return Outgoing(f"{begin}{message.text.decode()}{end}", len(begin) + len(message.text) + len(end))

    def reset(self, reset: Reset) -> Sequence[Outgoing]:
        return self.event("reset", [reset.as_json()], f"{reset.epoch}:{reset.last_id}", None)

    def event(self, name: str, args: Sequence[Any], offset: str, ack_id: int | None) -> Sequence[Outgoing]:
        data = [name, *args, offset] if self._recovery else [name, *args]
        encoded = Packet(packet.EVENT, data=data, id=ack_id).encode()
        return [Outgoing(part) for part in (encoded if isinstance(encoded, list) else [encoded])]


class _SocketIOEncodings:
    plain: Final = _Encoding(recovery=False)
    with_recovery: Final = _Encoding(recovery=True)


class _Client:
    """A Socket.IO client in the room."""

    def __init__(self, engine: Engine, eio_sid: str, encoding: Encoding) -> None:
        self.encoding = encoding
        self._engine = engine
        self._eio_sid = eio_sid
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._answered.set()
        self._farewell: asyncio.Task[None] | None = None

    def send(self, payloads: Sequence[Outgoing]) -> int:
        return self._engine.put(self._eio_sid, payloads)

    def close(self, why: Closing) -> None:
        logger.info("closing a client: %s", why.value)
        if why is Closing.SLOW:
            self._engine.close(self._eio_sid, abort=True)
        elif self._farewell is None:
            self._farewell = asyncio.get_running_loop().create_task(self._close_when_answered())

    def begin_answer(self) -> None:
        self._unanswered += 1
        self._answered.clear()

    def end_answer(self) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._answered.set()

    async def _close_when_answered(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._answered.wait()
        except TimeoutError:
            logger.warning("closing a client whose publish was not answered in %.0f s", ANSWER_SECONDS)
        self._engine.close(self._eio_sid)


class ChatServer(socketio.AsyncServer):  # type: ignore[misc]  # python-socketio has no type information
    """Accepts clients, publishes what they send, and takes them in and out of the room."""

    def __init__(
        self,
        room: Room,
        follower: Follower,
        publisher: Publisher,
        manager: ChatManager,
        *,
        ping_interval: float,
        ping_timeout: float,
        max_payload_bytes: int,
    ) -> None:
        super().__init__(
            async_mode="aiohttp",
            client_manager=manager,
            # Origins are checked, and their headers set, in one place for all gateways.
            cors_allowed_origins=[],
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_http_buffer_size=max_payload_bytes,
            http_compression=False,
            logger=logging.getLogger("socketio"),
            engineio_logger=logging.getLogger("engineio"),
        )
        self._room = room
        self._follower = follower
        self._publisher = publisher
        self._connecting: set[str] = set()
        self._clients: dict[str, _Client] = {}
        self.on("message", self._on_message)
        self.on("*", self._on_unknown_event)
        self.on("disconnect", self._on_disconnect)

    def _engineio_server_class(self) -> type[Engine]:
        return Engine

    def by_sid(self, sid: str) -> Member | None:
        """Return the client with this Socket.IO session id."""
        eio_sid = self.manager.eio_sid_from_sid(sid, "/")
        return None if eio_sid is None else self._clients.get(eio_sid)

    def close_everybody(self) -> None:
        """Close all transports that are left, those included that never got into the room."""
        for eio_sid in tuple(self.eio.sockets):
            self.eio.close(eio_sid)

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: object) -> None:
        if namespace not in (None, "/"):
            await self._refuse(eio_sid, namespace, {"message": "Invalid namespace"})
            return
        if eio_sid in self._connecting or eio_sid in self._clients:
            return  # socket.io's own server ignores a second CONNECT, too
        try:
            handshake = parse_auth(data)
        except Invalid as error:
            await self._refuse(eio_sid, "/", {"message": str(error), "data": error.as_json()})
            return
        self._connecting.add(eio_sid)
        try:
            decided = await self._follower.can_decide(handshake.after, handshake.epoch, DECIDE_SECONDS)
        finally:
            self._connecting.discard(eio_sid)
        if not self.eio.is_open(eio_sid):
            return
        if not decided:
            # Not a connect_error: socket.io-client would stay away after that.
            logger.info("sending a client away: Redis is out of reach")
            self.eio.close(eio_sid)
            return
        sid = await self.manager.connect(eio_sid, "/")
        if sid is not None:
            self._welcome(eio_sid, sid, handshake)

    def _welcome(self, eio_sid: str, sid: str, handshake: Handshake) -> None:
        """CONNECT, `session`, replay and the room, in one step."""
        timeline = self._follower.timeline
        recovered = None
        if handshake.after is not None:
            recovered = timeline.can_replay(handshake.after, handshake.epoch)
        answer = {"sid": sid}
        pid = handshake.answer_pid(recovered=recovered)
        if pid is not None:
            answer["pid"] = pid
        self.eio.put(eio_sid, [Outgoing(Packet(packet.CONNECT, data=answer).encode())])
        encodings = _SocketIOEncodings
        encoding = encodings.with_recovery if handshake.recovery else encodings.plain
        client = _Client(self.eio, eio_sid, encoding)
        self._clients[eio_sid] = client
        self._room.join(client, after=handshake.after, epoch=handshake.epoch)

    async def _refuse(self, eio_sid: str, namespace: str | None, reason: dict[str, Any]) -> None:
        await self._send_packet(eio_sid, Packet(packet.CONNECT_ERROR, data=reason, namespace=namespace))

    async def _handle_disconnect(
        self, eio_sid: str, namespace: str | None, reason: str | None = None
    ) -> None:
        if namespace in (None, "/"):
            self._leave(eio_sid)
        await super()._handle_disconnect(eio_sid, namespace, reason)

    def _leave(self, eio_sid: str | None) -> None:
        if eio_sid is not None and (client := self._clients.pop(eio_sid, None)) is not None:
            self._room.leave(client)

    async def _on_disconnect(self, sid: str, _reason: str) -> None:
        # Another process may have asked for it: then nothing else says so.
        self._leave(self.manager.eio_sid_from_sid(sid, "/"))

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        try:
            if isinstance(data, str) and eio_sid in self._binary_packet:
                raise ValueError("expected an attachment, got text")
            await super()._handle_eio_message(eio_sid, data)
            begun = self._binary_packet.get(eio_sid)
            if begun is not None and not 1 <= begun.attachment_count <= MAX_ATTACHMENTS:
                raise ValueError(f"expected 1 to {MAX_ATTACHMENTS} attachments")
        except RecursionError:
            found = _EVENT_WITH_ACK.match(data) if isinstance(data, str) else None
            if found is None:
                self._close_bad(eio_sid, "nested too deeply")
                return
            error = Invalid(f"nested deeper than {MAX_DEPTH} levels")
            answer = Packet(packet.ACK, id=int(found[1]), data=[_failure(error)])
            await self._send_packet(eio_sid, answer)
        except _BAD_PACKET as error:
            self._close_bad(eio_sid, str(error))

    def _close_bad(self, eio_sid: str, problem: str) -> None:
        logger.info("closing a client that sent a bad packet: %.200s", problem)
        self._binary_packet.pop(eio_sid, None)
        self.eio.close(eio_sid)

    async def _handle_event(
        self, eio_sid: str, namespace: str | None, ack_id: int | None, data: object
    ) -> None:
        # python-socketio would take a string's first letter for the name, and fail at an object in its place.
        # A number is a name to socket.io's own parser.
        if not (isinstance(data, list) and data and isinstance(data[0], (str, int, float))):
            raise ValueError("expected an array that begins with the event's name")
        await super()._handle_event(eio_sid, namespace, ack_id, data)

    async def _handle_event_internal(
        self, server: socketio.AsyncServer, sid: str, eio_sid: str, *event: Any
    ) -> None:
        client = self._clients.get(eio_sid)
        if client is None:
            return
        client.begin_answer()
        try:
            await super()._handle_event_internal(server, sid, eio_sid, *event)
        finally:
            client.end_answer()

    async def _on_message(self, _sid: str, *args: object) -> dict[str, Any]:
        try:
            if len(args) != 1:
                raise Invalid(f"expected one argument, the message; got {len(args)}")
            limit = self._publisher.max_message_bytes
            appended = await self._publisher.publish(lambda: draft_from_value(args[0], max_bytes=limit))
        except ChatError as error:
            return _failure(error)
        return {"ok": True, "id": appended.id, "duplicate": appended.duplicate}

    async def _on_unknown_event(self, event: object, _sid: str, *_args: object) -> dict[str, Any]:
        return _failure(Invalid(f"unknown event {str(event)[:64]!r}; expected 'message'"))


def _failure(error: ChatError) -> dict[str, Any]:
    return {"ok": False, "error": error.as_json()}
