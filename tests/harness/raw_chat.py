"""Chat clients by hand: hundreds of them cost little, and each can stop reading."""

import asyncio
import json
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

from tests.harness.raw_client import RawHttp, RawWebSocket
from tests.harness.waiting import DEADLINE

__all__ = ["PlainChat", "PollingChat", "RawChat", "SocketIoChat"]

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_SOCKETIO = "/socket.io/?EIO=4&transport="


class RawChat(ABC):
    """A client that keeps what it gets, and connects again where it stood; use it by `async with`.

    Args:
        port: the instance's.
        narrow: as with :meth:`RawHttp.open`.
    """

    def __init__(self, port: int, *, narrow: bool = False) -> None:
        self.port = port
        self.narrow = narrow
        self.ids: list[int] = []
        self.connects = 0
        self.epoch: str | None = None
        self._changed = asyncio.Event()
        self._connections = AsyncExitStack()
        self._reading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.ids)} messages, the last {self.ids[-3:]}>"

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._disconnect()

    async def wait_for(self, last: int) -> None:
        """Return once the newest id is at least `last`."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not self.ids or self.ids[-1] < last:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"{last} is not there within {DEADLINE} s: {self!r}") from None

    @abstractmethod
    def stop_reading(self) -> None:
        """Take nothing more from the server."""

    async def come_back(self) -> None:
        """Read what is left, up to the end that the server has made; then connect again."""
        if self._reading is None:
            raise RuntimeError("the client never connected")
        self._read_on()
        async with asyncio.timeout(DEADLINE):
            await self._reading
        await self._disconnect()
        await self._connect()

    @abstractmethod
    async def _begin(self) -> None:
        """Connect, with the position if there is one."""

    @abstractmethod
    async def _read(self) -> None:
        """Take what comes, until the server ends the connection."""

    @abstractmethod
    def _read_on(self) -> None:
        """Take back what `stop_reading` did."""

    async def _open(self) -> RawHttp:
        return await self._connections.enter_async_context(await RawHttp.open(self.port, narrow=self.narrow))

    def _auth(self) -> str:
        return json.dumps({"after": self.ids[-1], "epoch": self.epoch}) if self.ids else ""

    def _take_packet(self, packet: str) -> None:
        """Take an Engine.IO packet."""
        if packet.startswith("42"):
            name, data = json.loads(packet[2:])
            if name == "message":
                self._take(data)
            else:
                self.epoch = data["epoch"]

    def _take(self, message: dict[str, Any]) -> None:
        self.ids.append(message["id"])
        self._changed.set()

    async def _connect(self) -> None:
        await self._begin()
        self.connects += 1
        self._reading = asyncio.create_task(self._read())

    async def _disconnect(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        await self._connections.aclose()


class PollingChat(RawChat):
    """Socket.IO over long polling: GETs on one connection, POSTs on another."""

    def __init__(self, port: int, *, narrow: bool = False) -> None:
        super().__init__(port, narrow=narrow)
        self._may_poll = asyncio.Event()
        self._may_poll.set()

    def stop_reading(self) -> None:
        """Poll no more; a GET that is held is answered yet."""
        self._may_poll.clear()

    def _read_on(self) -> None:
        self._may_poll.set()

    async def _begin(self) -> None:
        self._polls, posts = await self._open(), await self._open()
        opened = await self._polls.request("GET", f"{_SOCKETIO}polling")
        self._target = f"{_SOCKETIO}polling&sid={json.loads(opened.body[1:])['sid']}"
        assert (await posts.request("POST", self._target, f"40{self._auth()}".encode())).status == 200

    async def _read(self) -> None:
        while True:
            await self._may_poll.wait()
            self._polls.send_request("GET", self._target)
            answer = await self._polls.answer(within=None)
            if answer.status != 200:
                return
            for packet in answer.body.decode().split("\x1e"):
                self._take_packet(packet)


class _WebSocketChat(RawChat):
    def stop_reading(self) -> None:
        """Leave what comes in the system's buffers."""
        self._socket.http.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it

    def _read_on(self) -> None:
        self._socket.http.writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def _upgrade(self, target: str) -> None:
        http = await self._open()
        assert (await http.handshake(target)).status == 101
        self._socket = RawWebSocket(http)

    async def _read(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # cut off
            while True:
                opcode, payload = await self._socket.frame(within=None)
                if opcode == _TEXT:
                    self._take_text(payload.decode())
                elif opcode == _PING:
                    self._socket.send(_PONG, payload)
                elif opcode == _CLOSE:
                    self._socket.send(_CLOSE, payload[:2])

    @abstractmethod
    def _take_text(self, text: str) -> None: ...


class SocketIoChat(_WebSocketChat):
    """Socket.IO over a WebSocket."""

    async def _begin(self) -> None:
        await self._upgrade(f"{_SOCKETIO}websocket")
        self._socket.say(f"40{self._auth()}")

    def _take_text(self, text: str) -> None:
        self._take_packet(text)


class PlainChat(_WebSocketChat):
    """The plain protocol at `/ws`."""

    async def _begin(self) -> None:
        await self._upgrade(f"/ws?after={self.ids[-1]}" if self.ids else "/ws")

    def _take_text(self, text: str) -> None:
        for piece in text.split("\n"):
            self._take(json.loads(piece))
