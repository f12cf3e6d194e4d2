"""The Engine.IO server: sessions, their transports, and the one timer behind all heartbeats.

It stands where python-socketio expects python-engineio's server. Handlers are plain functions:
``connect(sid)``, ``message(sid, data)``, ``disconnect(sid, reason)``.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from ditochat.engine.deadlines import DeadlineWheel
from ditochat.engine.frames import Opcode, encode_frame
from ditochat.engine.packets import BadPacket, Packet, PacketType, decode_frame, decode_payload, encode_text
from ditochat.engine.session import (
    CLOSE,
    NOOP,
    CloseReason,
    Config,
    Poll,
    Session,
)
from ditochat.engine.websocket import WebSocketProtocol, join_frames

__all__ = ["Burst", "Connection", "EngineServer", "EngineSocket", "Outgoing"]

logger = logging.getLogger(__name__)

# Of the heartbeat: coarse enough that 50,000 clients are pinged in bunches, fine enough not to be noticed.
GRANULES: Final = 200
MAX_GRANULE_SECONDS: Final = 0.25
MIN_GRANULE_SECONDS: Final = 0.001
# Node's server gives up an upgrade after the same time.
UPGRADE_SECONDS: Final = 10.0
# How long a polling client that is closed has for each of the polls in which it fetches what waits.
LAST_POLL_SECONDS: Final = 1.0
_PING_FRAME: Final = encode_frame(Opcode.TEXT, b"2")
_PROBED_FRAME: Final = encode_frame(Opcode.TEXT, b"3probe")


class Outgoing:
    """A message packet in both its forms, each made when first needed and then shared by all clients."""

    __slots__ = ("_frame", "_text", "data")

    def __init__(self, data: str | bytes) -> None:
        self.data = data
        self._text: str | None = None
        self._frame: bytes | None = None

    @property
    def text(self) -> str:
        """The packet in a long-polling payload."""
        if self._text is None:
            self._text = encode_text((PacketType.MESSAGE, self.data))
        return self._text

    @property
    def frame(self) -> bytes:
        """The packet as a WebSocket frame."""
        if self._frame is None:
            if isinstance(self.data, bytes):
                self._frame = encode_frame(Opcode.BINARY, self.data)
            else:
                self._frame = encode_frame(Opcode.TEXT, b"4" + self.data.encode())
        return self._frame


class Burst:
    """Packets that go out together, to one client or to many; joined once for all of them."""

    __slots__ = ("packets", "pieces")

    def __init__(self, packets: Sequence[Outgoing]) -> None:
        self.packets = packets
        self.pieces = join_frames([packet.frame for packet in packets])
        """All packets as WebSocket frames, joined into pieces of some size."""


class Connection(Session):
    """A session and what carries it now."""

    __slots__ = ("answering", "candidate", "held", "leaving", "socket")

    def __init__(self, sid: str, *, on_websocket: bool) -> None:
        super().__init__(sid, on_websocket=on_websocket)
        self.socket: EngineSocket | None = None
        self.candidate: EngineSocket | None = None
        self.held: asyncio.Future[bytes] | None = None
        # Closed by us while no GET was held: the next one still gets what waits, and CLOSE.
        self.leaving = False
        self.answering = False

    def answer_held(self, payload: bytes) -> None:
        """Answer the GET that is held, if one is."""
        held, self.held = self.held, None
        self.polling = False
        if held is not None and not held.done():
            held.set_result(payload)


class EngineSocket(WebSocketProtocol):
    """A WebSocket that carries a session, or that one may move to.

    ``probed`` from the answer to a probe on: the client then polls no more and waits for nothing but to move. Where
    the session ends meanwhile, that is told when it has moved: engine.io-client would overlook the end of this
    WebSocket, and then hear nothing until it misses a ping.
    """

    __slots__ = ("connection", "engine", "probed")

    def __init__(self, engine: "EngineServer", connection: Connection) -> None:
        super().__init__(engine.config.max_payload)
        self.probed = False
        self.engine = engine
        self.connection = connection

    def message_received(self, message: str | bytes) -> None:
        """Hand a packet to the session."""
        self.engine.packet_received(self, message)

    def closed(self) -> None:
        """Tell the session that its transport is gone."""
        self.engine.socket_closed(self)


class EngineServer:
    """All sessions of one endpoint.

    The names that python-socketio uses are python-engineio's: ``on``, ``send_packet``, ``disconnect``,
    ``generate_id``, ``start_background_task`` and so on.
    """

    reason = None  # python-socketio has the words itself
    async_mode = "asyncio"

    def __init__(
        self,
        *,
        ping_interval: float = 25.0,
        ping_timeout: float = 20.0,
        max_http_buffer_size: int = 1_000_000,
        transports: Sequence[str] = ("polling", "websocket"),
        async_handlers: bool = False,
    ) -> None:
        if async_handlers:
            raise ValueError("handlers are called in the order of arrival; expected async_handlers=False")
        self.config = Config(ping_interval, ping_timeout, max_http_buffer_size, tuple(transports))
        self.connections: dict[str, Connection] = {}
        self._leaving: dict[str, Connection] = {}
        self._handlers: dict[str, Callable[..., Any]] = {}
        granule = min(ping_interval, ping_timeout) / GRANULES
        self._heartbeats: DeadlineWheel[Connection] = DeadlineWheel(
            max(MIN_GRANULE_SECONDS, min(MAX_GRANULE_SECONDS, granule))
        )
        self._deadlines: DeadlineWheel[Connection] = DeadlineWheel(MAX_GRANULE_SECONDS)
        self._upgrades: DeadlineWheel[EngineSocket] = DeadlineWheel(MAX_GRANULE_SECONDS)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # What python-socketio calls.

    def on(self, event: str, handler: Callable[..., Any]) -> None:
        """Set the handler of ``connect``, ``message`` or ``disconnect``."""
        self._handlers[event] = handler

    def generate_id(self) -> str:
        """Return a session id that nobody can guess."""
        return secrets.token_urlsafe(15)

    def transport(self, sid: str) -> str:
        """Return what carries a session now."""
        return "websocket" if self.connections[sid].on_websocket else "polling"

    async def send(self, sid: str, data: str | bytes) -> None:
        """Send a message."""
        self.put(sid, Burst([Outgoing(data)]))

    async def send_packet(self, sid: str, packet: Any) -> None:
        """Send a message that python-socketio has wrapped in python-engineio's ``Packet``."""
        self.put(sid, Burst([Outgoing(packet.data)]))

    async def disconnect(self, sid: str) -> None:
        """Close a session."""
        self.close(sid)

    def start_background_task(
        self, target: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> "asyncio.Task[Any]":
        """Run a coroutine beside everything else."""
        task = asyncio.get_running_loop().create_task(target(*args, **kwargs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Sending.

    def is_open(self, sid: str) -> bool:
        """Tell whether what is sent to a session still has a chance to arrive."""
        return sid in self.connections

    def put(self, sid: str, burst: Burst) -> int:
        """Send packets; return how many bytes wait for this client now."""
        connection = self.connections.get(sid)
        return 0 if connection is None else self.send_burst(connection, burst)

    def send_burst(self, connection: Connection, burst: Burst) -> int:
        """Do what :meth:`put` does, for who has the session at hand."""
        if connection.socket is not None:
            return connection.socket.write(burst.pieces)
        if connection.sid not in self.connections:
            return 0
        for packet in burst.packets:
            connection.say(packet.text, len(packet.frame))
        self._answer_soon(connection)
        return connection.queued_bytes

    def close(self, sid: str, *, abort: bool = False) -> None:
        """End a session in a way after which the client comes back; at once, with ``abort``."""
        connection = self.connections.get(sid)
        if connection is None:
            return
        if abort and connection.socket is not None:
            connection.socket.abort()
        if not abort and connection.socket is None:
            self._leave(connection)
        else:
            self._end(connection, CloseReason.SERVER)

    def set_deadline(self, sid: str, seconds: float) -> None:
        """Close a session after ``seconds``, unless :meth:`drop_deadline` is called before."""
        connection = self.connections.get(sid)
        if connection is not None:
            self._deadlines.set(connection, self._now() + seconds)
            self._schedule()

    def drop_deadline(self, sid: str) -> None:
        """Take the deadline of :meth:`set_deadline` back."""
        connection = self.connections.get(sid)
        if connection is not None:
            self._deadlines.drop(connection)

    # Sessions.

    def open(self, *, on_websocket: bool) -> tuple[Connection, str]:
        """Begin a session; return it and its OPEN packet."""
        sid = self.generate_id()
        connection = Connection(sid, on_websocket=on_websocket)
        self.connections[sid] = connection
        self._heartbeats.set(connection, self._ping_due())
        self._schedule()
        self._handlers["connect"](sid)
        return connection, self.config.handshake(sid, polling=not on_websocket)

    def open_websocket(self) -> tuple[EngineSocket, bytes]:
        """Begin a session on a WebSocket; return its protocol and the first frame."""
        connection, handshake = self.open(on_websocket=True)
        socket = EngineSocket(self, connection)
        connection.socket = socket
        return socket, encode_frame(Opcode.TEXT, handshake.encode())

    def offer_websocket(self, sid: str) -> EngineSocket | None:
        """Let a session that polls move to a new WebSocket; ``None`` where it is not there.

        Where it has one already, the new one is accepted and closed; the first lives.
        """
        connection = self.connections.get(sid)
        if connection is None:
            return None
        socket = EngineSocket(self, connection)
        if connection.on_websocket or connection.candidate is not None:
            asyncio.get_running_loop().call_soon(socket.send_close)
        else:
            connection.candidate = socket
            self._upgrades.set(socket, self._now() + UPGRADE_SECONDS)
            self._schedule()
        return socket

    def poll(self, sid: str) -> tuple[Poll, Connection | None]:
        """Take a GET of a session."""
        self._tick()  # a heartbeat that is due this very moment has passed
        connection = self.connections.get(sid) or self._leaving.get(sid)
        if connection is None:
            return Poll.REFUSED, None
        if connection.leaving and not connection.queue and not connection.probing:
            self._end(connection, CloseReason.SERVER)
            return Poll.CLOSE, connection
        answer = connection.poll()
        if connection.leaving:
            self._give_time(connection)
        if answer is Poll.CONFLICT:
            connection.answer_held(CLOSE)
            self._forget(connection, CloseReason.TRANSPORT_ERROR)
        return answer, connection

    def poll_aborted(self, connection: Connection) -> None:
        """The client hung up on a GET: what it was to get may be lost, so the session ends."""
        connection.held = None
        self._end(connection, CloseReason.TRANSPORT_CLOSE)

    def payload_received(self, connection: Connection, body: bytes) -> None:
        """Take the packets of a POST.

        Raises:
            BadPacket: one cannot be read or is not a client's to send; the session has ended.
        """
        try:
            packets = decode_payload(body)
        except BadPacket:
            self._end(connection, CloseReason.TRANSPORT_ERROR)
            raise
        for packet in packets:
            self._take(connection, packet)

    def packet_received(self, socket: EngineSocket, frame: str | bytes) -> None:
        """Take a packet of a WebSocket."""
        connection = socket.connection
        try:
            packet = decode_frame(frame)
            if connection.socket is socket:
                self._take(connection, packet)
            else:
                self._take_probe(connection, socket, packet)
        except BadPacket as error:
            logger.info("closing a client that sent a bad packet: %s", error)
            if connection.socket is socket:
                self._end(connection, CloseReason.TRANSPORT_ERROR)
            else:
                socket.send_close()

    def socket_closed(self, socket: EngineSocket) -> None:
        """A WebSocket is gone."""
        connection = socket.connection
        self._upgrades.drop(socket)
        if connection.socket is socket:
            connection.socket = None
            self._end(connection, CloseReason.TRANSPORT_CLOSE)
        elif connection.candidate is socket:
            connection.candidate = None
            connection.probing = False

    def transport_counts(self) -> dict[str, int]:
        """Return how many sessions use which transport."""
        on_websocket = sum(connection.on_websocket for connection in self.connections.values())
        return {"websocket": on_websocket, "polling": len(self.connections) - on_websocket}

    @property
    def unfinished(self) -> int:
        """How many sessions have something left to say: open ones, and those that are closed between two polls."""
        return len(self.connections) + len(self._leaving)

    def close_all(self) -> None:
        """End every session."""
        for sid in tuple(self.connections):
            self.close(sid)

    def _take(self, connection: Connection, packet: Packet) -> None:
        try:
            data = connection.receive(packet)
        except BadPacket:
            self._end(connection, CloseReason.TRANSPORT_ERROR)
            raise
        if data is not None:
            if connection.sid in self.connections:
                self._handlers["message"](connection.sid, data)
        elif connection.closed is not None:
            # The protocol page: a GET that is held gets NOOP, not CLOSE, when the client itself closes.
            connection.answer_held(NOOP)
            self._forget(connection, connection.closed)
        elif packet[0] is PacketType.PONG:
            self._heartbeats.set(connection, self._ping_due())
            self._schedule()

    def _take_probe(self, connection: Connection, socket: EngineSocket, packet: Packet) -> None:
        if connection.candidate is not socket:
            raise BadPacket("the session has another WebSocket")
        if connection.closed is not None:
            socket.send_close()  # it has moved, and hears of the end
            return
        if not connection.probe(packet):
            socket.probed = True
            socket.write_now(_PROBED_FRAME)
            connection.answer_held(NOOP)
            return
        connection.candidate, connection.socket = None, socket
        self._upgrades.drop(socket)
        connection.answer_held(NOOP)
        frames = [_frame_of(text) for text in connection.take_all()]
        if frames:
            socket.write(join_frames(frames))
        if connection.leaving:
            self._end(connection, CloseReason.SERVER)

    def _end(self, connection: Connection, reason: CloseReason) -> None:
        """Close a session and its transports."""
        if connection.close(reason):
            connection.answer_held(CLOSE)
            self._forget(connection, reason)

    def _leave(self, connection: Connection) -> None:
        """Close a session that polls: it has a moment to fetch what waits, and then, by itself, CLOSE.

        socket.io-client hands packets on in the next turn of its loop but closes at once, so that CLOSE in one
        payload with others would have it drop them.
        """
        connection.leaving = True
        self._heartbeats.drop(connection)
        self._deadlines.drop(connection)
        del self.connections[connection.sid]
        self._leaving[connection.sid] = connection
        if connection.held is not None and not connection.queue:
            self._end(connection, CloseReason.SERVER)
        else:
            self._give_time(connection)
            self._answer_soon(connection)
        self._handlers["disconnect"](connection.sid, CloseReason.SERVER.value)

    def _give_time(self, connection: Connection) -> None:
        """Give a client that is leaving time for its next poll."""
        self._deadlines.set(connection, self._now() + LAST_POLL_SECONDS)
        self._schedule()

    def _answer_soon(self, connection: Connection) -> None:
        """Answer the GET that is held with all that is said in this turn of the loop."""
        if connection.held is not None and not connection.answering:
            connection.answering = True
            asyncio.get_running_loop().call_soon(self._answer_now, connection)

    def _answer_now(self, connection: Connection) -> None:
        connection.answering = False
        if connection.held is not None and connection.queue:
            connection.answer_held(connection.take_payload())
            if connection.leaving:
                self._give_time(connection)

    def _forget(self, connection: Connection, reason: CloseReason) -> None:
        self._heartbeats.drop(connection)
        self._deadlines.drop(connection)
        self._leaving.pop(connection.sid, None)
        if connection.socket is not None:
            connection.socket.send_close()
        if connection.candidate is not None and not connection.candidate.probed:
            connection.candidate.send_close()
        if self.connections.pop(connection.sid, None) is not None:
            self._handlers["disconnect"](connection.sid, reason.value)

    # The timer.

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _ping_due(self) -> float:
        # A ping may be early by a granule, so that its deadline is not late by two.
        return self._now() + self.config.ping_interval - self._heartbeats.granule

    def _schedule(self) -> None:
        """Have the timer run at the next deadline; one timer serves all."""
        wheels: tuple[DeadlineWheel[Any], ...] = (self._heartbeats, self._deadlines, self._upgrades)
        dues = [due for wheel in wheels if (due := wheel.next_due()) is not None]
        if not dues or (self._timer is not None and self._timer.when() <= min(dues)):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(min(dues), self._tick)

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._now()
        for connection in self._heartbeats.expire(now):
            if connection.awaiting_pong:
                self._end(connection, CloseReason.PING_TIMEOUT)
            else:
                connection.awaiting_pong = True
                self._heartbeats.set(connection, now + self.config.ping_timeout)
                self._ping(connection)
        for connection in self._deadlines.expire(now):
            self._end(connection, CloseReason.TRANSPORT_CLOSE)
        for socket in self._upgrades.expire(now):
            socket.send_close()
        self._schedule()

    def _ping(self, connection: Connection) -> None:
        if connection.on_websocket:
            if connection.socket is not None:
                connection.socket.write_now(_PING_FRAME)
            return
        connection.say("2", 1)
        self._answer_soon(connection)


def _frame_of(text: str) -> bytes:
    """Turn a packet that was written for a payload into a frame."""
    if text.startswith("b"):
        data = decode_payload(text.encode())[0][1]
        return encode_frame(Opcode.BINARY, data if isinstance(data, bytes) else data.encode())
    return encode_frame(Opcode.TEXT, text.encode())
