"""Socket.IO at ``/socket.io/``: python-socketio's server, with the log's way of connecting and sending.

The order on a new connection is CONNECT, `session`, replay, live; nothing may slip in between, so the four are
handed to the client in one step, without an ``await``.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from socketio import packet
from socketio.packet import Packet

from ditochat.engine.server import Burst, EngineServer, Outgoing
from ditochat.engine.strict import CONNECT_SECONDS, StrictServer, ack_arguments, check_event
from ditochat.errors import ChatError, Invalid
from ditochat.fanout import Closing, Encoding, Reset, Room, Session
from ditochat.gateways.emits import ChatManager
from ditochat.gateways.handshake import Handshake, parse_auth
from ditochat.gateways.publisher import Publisher
from ditochat.log.appender import Appended
from ditochat.log.follower import Follower
from ditochat.message import MAX_DEPTH, StoredMessage, draft_from_value, encode_json

__all__ = ["ChatServer"]

logger = logging.getLogger(__name__)

# Where nobody can tell yet whether a client can be recovered (Redis is away), it waits so long, and is then
# sent away to try again.
DECIDE_SECONDS: Final = 10.0
# A publish has its answer within 2 s.
ANSWER_SECONDS: Final = 2.0
# Encoded messages that are kept for replays; the newest are asked for most.
MAX_ENCODED: Final = 2048
_EVENT_WITH_ACK: Final = re.compile(r"2(?:/[^,]*,)?([0-9]{1,15})\[")


class _Encoding:
    """Encodes for Socket.IO clients; with ``recovery`` everything carries the client's newest offset last."""

    def __init__(self, *, recovery: bool) -> None:
        self._recovery = recovery
        self._encoded: dict[bytes, Outgoing] = {}
        self._greeted: Session | None = None
        self._greeting: Sequence[Outgoing] = ()

    def session(self, session: Session) -> Sequence[Outgoing]:
        # When many come at once, as after a restart, they stand at the same place and are told the same.
        if session != self._greeted:
            offset = f"{session.epoch}:{session.last_id}"
            self._greeting = self.event("session", [session.as_json()], offset, None)
            self._greeted = session
        return self._greeting

    def message(self, message: StoredMessage, epoch: str) -> Outgoing:
        encoded = self._encoded.get(message.text)
        if encoded is None:
            end = f',"{epoch}:{message.id}"]' if self._recovery else "]"
            encoded = Outgoing(f'2["message",{message.text.decode()}{end}')
            if len(self._encoded) >= MAX_ENCODED:
                self._encoded.clear()
            self._encoded[message.text] = encoded
        return encoded

    def reset(self, reset: Reset) -> Sequence[Outgoing]:
        self._encoded.clear()  # what is numbered alike from now on belongs to another epoch
        return self.event("reset", [reset.as_json()], f"{reset.epoch}:{reset.last_id}", None)

    def event(self, name: str, args: Sequence[Any], offset: str, ack_id: int | None) -> Sequence[Outgoing]:
        data = [name, *args, offset] if self._recovery else [name, *args]
        encoded = Packet(packet.EVENT, data=data, id=ack_id).encode()
        return [Outgoing(part) for part in (encoded if isinstance(encoded, list) else [encoded])]

    def pack(self, payloads: Sequence[Outgoing]) -> Burst:
        return Burst(payloads)


class _Client:
    """A Socket.IO client in the room."""

    __slots__ = ("_connection", "_engine", "_farewell", "_room", "_unanswered", "eio_sid", "encoding", "sid")

    def __init__(self, room: Room, engine: EngineServer, eio_sid: str, sid: str, encoding: Encoding) -> None:
        self.encoding = encoding
        self.eio_sid = eio_sid
        self._connection = engine.connections[eio_sid]
        self.sid = sid
        self._room = room
        self._engine = engine
        self._unanswered = 0
        self._farewell: asyncio.TimerHandle | None = None

    def send(self, packed: Burst) -> int:
        socket = self._connection.socket
        if socket is not None:  # nearly always, and once for each delivery
            return socket.write(packed.pieces)
        return self._engine.send_burst(self._connection, packed)

    def acknowledge(self, answer: Outgoing) -> None:
        """Send an acknowledgement, with what else goes to this client now.

        Who asks and does not read the answers is a slow client like any other.
        """
        socket = self._connection.socket
        if socket is None:
            self._room.answered(self, self._engine.send_burst(self._connection, Burst([answer])))
            return
        socket.write_soon(answer.frame)
        if socket.paused:
            self._room.answered(self, socket.waiting_bytes())

    def close(self, why: Closing) -> None:
        logger.info("closing a client: %s", why.value)
        if why is Closing.SLOW:
            self._engine.close(self.eio_sid, abort=True)
        elif not self._unanswered:
            self._engine.close(self.eio_sid)
        elif self._farewell is None:
            self._farewell = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._leave)

    def begin_answer(self) -> None:
        self._unanswered += 1

    def end_answer(self) -> None:
        self._unanswered -= 1
        if self._farewell is not None and not self._unanswered:
            self._leave()

    def _leave(self) -> None:
        if self._farewell is not None:
            self._farewell.cancel()
        self._engine.close(self.eio_sid)


class ChatServer(StrictServer):
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
            client_manager=manager,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_http_buffer_size=max_payload_bytes,
        )
        self._room = room
        self._follower = follower
        self._publisher = publisher
        self._encoding = _Encoding(recovery=False)
        self._recovery_encoding = _Encoding(recovery=True)
        self._connecting: set[str] = set()
        self._clients: dict[str, _Client] = {}

    def transport_opened(self, eio_sid: str) -> None:
        """Wait for CONNECT. No environment is kept: the handshake has been checked."""
        self.eio.set_deadline(eio_sid, CONNECT_SECONDS)

    def transport_closed(self, eio_sid: str, _reason: str) -> None:
        """Take a client out of the room."""
        self._begun.pop(eio_sid, None)
        self._leave(eio_sid)

    def packet_received(self, eio_sid: str, received: Packet) -> None:
        """Take one whole packet, at once: what a client sends stays in order, and costs no task."""
        kind, namespace = received.packet_type, received.namespace or "/"
        client = self._clients.get(eio_sid)
        if kind == packet.CONNECT:
            self._connect(eio_sid, namespace, received.data)
        elif client is None or namespace != "/":
            logger.info("passed over: a packet for %.80s before CONNECT", namespace)
        elif kind in (packet.EVENT, packet.BINARY_EVENT):
            check_event(received.data)
            self._event(client, received.id, received.data)
        elif kind == packet.DISCONNECT:
            self._leave(eio_sid)
            self.eio.set_deadline(eio_sid, CONNECT_SECONDS)
        elif kind in (packet.ACK, packet.BINARY_ACK):
            answer = ack_arguments(received.data)
            if received.id:  # python-socketio keeps its counter under the id 0
                callback = self.manager.trigger_callback
                self.eio.start_background_task(callback, client.sid, received.id, answer)
        else:
            raise ValueError(f"a client does not send packets of type {kind}")

    def expel(self, eio_sid: str) -> None:
        """Send a client away for good, as another process asks: socket.io-client does not come back by itself."""
        self._send(eio_sid, Packet(packet.DISCONNECT))
        self._leave(eio_sid)
        self.eio.set_deadline(eio_sid, CONNECT_SECONDS)

    def has_joined(self, eio_sid: str, namespace: str) -> bool:
        """Tell whether a client is in."""
        return namespace == "/" and eio_sid in self._clients

    def undecodable(self, eio_sid: str, data: str | bytes, error: Exception) -> None:
        """Close the client; only what is nested too deeply to be read may have its answer instead."""
        found = _EVENT_WITH_ACK.match(data) if isinstance(data, str) else None
        client = self._clients.get(eio_sid)
        if isinstance(error, RecursionError) and found is not None and client is not None:
            _acknowledge(client, int(found[1]), _failure(Invalid(f"nested deeper than {MAX_DEPTH} levels")))
        else:
            super().undecodable(eio_sid, data, error)

    def _connect(self, eio_sid: str, namespace: str, data: object) -> None:
        if namespace != "/":
            refusal = Packet(packet.CONNECT_ERROR, data={"message": "Invalid namespace"}, namespace=namespace)
            self._answer(eio_sid, refusal)
            return
        if eio_sid in self._connecting or eio_sid in self._clients:
            return  # socket.io's own server ignores a second CONNECT, too
        try:
            handshake = parse_auth(data)
        except Invalid as error:
            reason = {"message": str(error), "data": error.as_json()}
            self._answer(eio_sid, Packet(packet.CONNECT_ERROR, data=reason))
            return
        self.eio.drop_deadline(eio_sid)
        if self._follower.knows(handshake.after, handshake.epoch):
            self._welcome(eio_sid, handshake)
        else:
            self._connecting.add(eio_sid)
            self.eio.start_background_task(self._connect_when_decided, eio_sid, handshake)

    async def _connect_when_decided(self, eio_sid: str, handshake: Handshake) -> None:
        try:
            decided = await self._follower.can_decide(handshake.after, handshake.epoch, DECIDE_SECONDS)
        finally:
            self._connecting.discard(eio_sid)
        if not self.eio.is_open(eio_sid):
            return
        if decided:
            self._welcome(eio_sid, handshake)
        else:
            # Not a connect_error: socket.io-client would stay away after that.
            logger.info("sending a client away: Redis is out of reach")
            self.eio.close(eio_sid)

    def _welcome(self, eio_sid: str, handshake: Handshake) -> None:
        """CONNECT, `session`, replay and the room, in one step."""
        after, epoch = handshake.after, handshake.epoch
        recovered = None if after is None else self._follower.timeline.can_replay(after, epoch)
        sid = self.manager.register(eio_sid)
        answer = {"sid": sid}
        pid = handshake.answer_pid(recovered=recovered)
        if pid is not None:
            answer["pid"] = pid
        encoding = self._recovery_encoding if handshake.recovery else self._encoding
        self._clients[eio_sid] = client = _Client(self._room, self.eio, eio_sid, sid, encoding)
        self.manager.members[sid] = client
        greeting = [Outgoing("0" + encode_json(answer).decode())]
        self._room.join(client, after=after, epoch=epoch, greeting=greeting)

    def _leave(self, eio_sid: str) -> None:
        client = self._clients.pop(eio_sid, None)
        if client is not None:
            self._room.leave(client)
            self.manager.unregister(client.sid)

    def _event(self, client: _Client, ack_id: int | None, data: Sequence[Any]) -> None:
        name, *args = data
        limit = self._publisher.max_message_bytes
        try:
            if name != "message":
                raise Invalid(f"unknown event {str(name)[:64]!r}; expected 'message'")
            if len(args) != 1:
                raise Invalid(f"expected one argument, the message; got {len(args)}")
            answer = self._publisher.submit(lambda: draft_from_value(args[0], max_bytes=limit))
        except ChatError as error:
            _acknowledge(client, ack_id, _failure(error))
            return
        client.begin_answer()
        answer.add_done_callback(partial(self._answered, client, ack_id))

    def _answered(self, client: _Client, ack_id: int | None, answer: "asyncio.Future[Appended]") -> None:
        error = answer.exception()
        if error is None:
            appended = answer.result()
            duplicate = "true" if appended.duplicate else "false"
            # Written by hand: json.dumps takes 4 us, and this is said once for each message.
            _acknowledge(client, ack_id, f'{{"ok":true,"id":{appended.id},"duplicate":{duplicate}}}')
        elif isinstance(error, ChatError):
            _acknowledge(client, ack_id, _failure(error))
        else:
            logger.error("a publish failed unexpectedly", exc_info=error)
        client.end_answer()

    def _answer(self, eio_sid: str, message: Packet) -> None:
        """Send what a client has asked for, in the room or not yet; close it if it reads none of this."""
        waiting = self._send(eio_sid, message)
        client = self._clients.get(eio_sid)
        if client is not None:
            self._room.answered(client, waiting)
        elif waiting > self._room.send_buffer_bytes:
            logger.info("closing a client: %s", Closing.SLOW.value)
            self.eio.close(eio_sid, abort=True)

    def _send(self, eio_sid: str, message: Packet) -> int:
        waiting: int = self.eio.put(eio_sid, Burst([Outgoing(message.encode())]))
        return waiting


def _acknowledge(client: _Client, ack_id: int | None, answer: str) -> None:
    if ack_id is not None:
        client.acknowledge(Outgoing(f"3{ack_id}[{answer}]"))


def _failure(error: ChatError) -> str:
    return encode_json({"ok": False, "error": error.as_json()}).decode()
