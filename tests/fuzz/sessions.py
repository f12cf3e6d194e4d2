"""Engine.IO sessions by a script: what clients may do, in any order and at any time.

A script is bytes, so that it can be spoilt like any other input. Its steps are parted by 0x1d; the first byte of a
step says what is done, the others are what it is done with.
"""

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import Callable
from typing import Final

from ditochat.engine.frames import Opcode
from ditochat.engine.packets import BadPacket
from ditochat.engine.server import Connection, EngineServer, EngineSocket
from ditochat.engine.session import Poll
from tests.fuzz.wire import Wire
from tests.harness.raw_client import client_frame

__all__ = ["SEPARATOR", "Player", "frames_of_server", "packets_of_server"]

SEPARATOR: Final = b"\x1d"
SEGMENT_BYTES: Final = 1024
_PACKETS: Final = b"\x1e"


class Player:
    """Plays a script on an engine.

    ``said`` does what an application does on its own (the steps `s`); ``sending`` hears of packets before they go.
    """

    def __init__(
        self,
        engine: EngineServer,
        said: Callable[[str, bytes], None],
        sending: Callable[[Connection, list[bytes]], None] = lambda connection, packets: None,
    ) -> None:
        self._engine = engine
        self._said = said
        self._sending = sending
        self.connection: Connection | None = None
        self.sockets: list[tuple[EngineSocket, Wire]] = []
        self.polled: list[bytes] = []
        self.sent_raw = False
        """Whether a step sent bytes as they are: what follows may be the rest of a frame."""
        self._held: list[tuple[Connection, asyncio.Future[bytes]]] = []
        self._segments: deque[tuple[Wire, bytes]] = deque()
        self._steps: dict[bytes, Callable[[bytes], None]] = {
            b"W": self._open_websocket,
            b"P": self._open_polling,
            b"<": self._send,
            b"u": self._offer,
            b">": self._frame,
            b"r": self._raw,
            b"g": self._get,
            b"a": self._abort,
            b"x": self._hang_up,
            b"z": self._stop_reading,
            b"y": self._read_on,
            b"s": self._say,
            b"S": self._close,
        }

    async def play(self, script: bytes, between: Callable[[], None]) -> None:
        """Do the steps; ``between`` is called after each of them."""
        for step in script.split(SEPARATOR):
            act = self._steps.get(step[:1])
            if act is not None:
                act(step[1:])
                await asyncio.sleep(0)
                while self._segments:
                    wire, segment = self._segments.popleft()
                    wire.feed(segment)
                    await asyncio.sleep(0)
            elif step[:1] == b"t":
                await asyncio.sleep(int(step[1:3]) if step[1:3].isdigit() else 1)
            between()

    async def settle(self) -> None:
        """Read all there is, and give the server the time for what it has to answer and to close."""
        for _, wire in self.sockets:
            wire.read_on()
        await asyncio.sleep(8)
        connection = self.connection
        while connection is not None and self._waits(connection):
            before = len(connection.queue or ())
            self._get(b"")
            assert len(connection.queue or ()) < before, "a poll brings nothing, but something waits"

    def _waits(self, connection: Connection) -> bool:
        """Tell whether the session is open and has something for the next poll."""
        return bool(connection.queue) and self._engine.is_open(connection.sid) and not connection.probing

    async def end(self) -> None:
        """Hang up whatever is still there."""
        closing = [wire for socket, wire in self.sockets if socket.close_sent]
        await asyncio.sleep(8)
        assert all(wire.lost for wire in closing), "a connection is open long after its close frame"
        for _, wire in self.sockets:
            wire.hang_up()
            wire.abort()
        for connection, held in self._held:
            if not held.done():
                self._engine.poll_aborted(connection)
        await asyncio.sleep(100)

    def _attach(self, socket: EngineSocket, first: bytes) -> None:
        wire = Wire(socket)
        self.sockets.append((socket, wire))
        socket.connection_made(wire)
        if first:
            wire.write(first)

    def _open_websocket(self, _: bytes) -> None:
        socket, first = self._engine.open_websocket()
        self.connection = socket.connection
        self._attach(socket, first)

    def _open_polling(self, _: bytes) -> None:
        self.connection, _handshake = self._engine.open(on_websocket=False)

    def _send(self, packets: bytes) -> None:
        """Send packets on the transport in use."""
        connection = self._current()
        self._sending(connection, packets.split(_PACKETS))
        if connection.on_websocket:
            frames = b"".join(_as_frame(packet) for packet in packets.split(_PACKETS))
            for socket, wire in self.sockets:
                if socket is connection.socket:
                    self._receive(wire, frames)
        elif self._engine.connections.get(connection.sid) is connection:
            try:
                self._engine.payload_received(connection, packets)
            except BadPacket:
                assert connection.sid not in self._engine.connections, "a bad packet ends the session"

    def _offer(self, _: bytes) -> None:
        socket = self._engine.offer_websocket(self._current().sid)
        if socket is not None:
            self._attach(socket, b"")

    def _frame(self, text: bytes) -> None:
        """Send one text frame on the newest WebSocket."""
        if self.sockets:
            self._receive(self.sockets[-1][1], client_frame(Opcode.TEXT, text))

    def _raw(self, data: bytes) -> None:
        self.sent_raw = True
        if self.sockets:
            self._receive(self.sockets[-1][1], data)

    def _receive(self, wire: Wire, data: bytes) -> None:
        """Have the server read bytes, some in each turn of the loop: what it answers in one turn is no growth."""
        self._segments += [
            (wire, data[start : start + SEGMENT_BYTES]) for start in range(0, len(data), SEGMENT_BYTES)
        ]

    def _get(self, _: bytes) -> None:
        """Do what the HTTP side does with a GET."""
        answer, connection = self._engine.poll(self._current().sid)
        if connection is None:
            assert answer is Poll.REFUSED
        elif answer is Poll.DATA:
            self.polled.append(connection.take_payload())
        elif answer is Poll.WAIT:
            connection.held = held = asyncio.get_running_loop().create_future()
            held.add_done_callback(lambda done: self.polled.append(done.result()))
            self._held.append((connection, held))

    def _abort(self, _: bytes) -> None:
        connection = self._current()
        if connection.held is not None:
            self._engine.poll_aborted(connection)

    def _hang_up(self, _: bytes) -> None:
        if self.sockets:
            self.sockets[-1][1].hang_up()

    def _stop_reading(self, _: bytes) -> None:
        if self.sockets:
            self.sockets[-1][1].stop_reading()

    def _read_on(self, _: bytes) -> None:
        if self.sockets:
            self.sockets[-1][1].read_on()

    def _say(self, data: bytes) -> None:
        self._said(self._current().sid, data)

    def _close(self, data: bytes) -> None:
        self._engine.close(self._current().sid, abort=data == b"!")

    def _current(self) -> Connection:
        if self.connection is None:
            self._open_websocket(b"")
        assert self.connection is not None
        return self.connection


def _as_frame(packet: bytes) -> bytes:
    """Put a packet of a payload into a frame; binary data is base64 there."""
    if packet.startswith(b"b"):
        try:
            return client_frame(Opcode.BINARY, base64.b64decode(packet[1:]))
        except binascii.Error:
            pass
    return client_frame(Opcode.TEXT, packet)


def frames_of_server(data: bytes) -> list[tuple[int, bytes]]:
    """Read what a server sent, strictly."""
    frames: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        first, length = data[position], data[position + 1]
        assert first & 0x70 == 0
        assert first & 0x80, "a server's frame is final here"
        assert length < 0x80, "a server does not mask"
        position += 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(data[position : position + width], "big")
            position += width
        payload = data[position : position + length]
        assert len(payload) == length
        assert not frames or frames[-1][0] != Opcode.CLOSE, "a frame after the close frame"
        frames.append((first & 0x0F, payload))
        position += length
    return frames


def packets_of_server(player: Player) -> list[bytes]:
    """Return what a script's clients have been sent, on all transports."""
    packets = [packet for payload in player.polled for packet in payload.split(_PACKETS)]
    for _, wire in player.sockets:
        packets += [
            payload for kind, payload in frames_of_server(bytes(wire.received)) if kind == Opcode.TEXT
        ]
    return packets
