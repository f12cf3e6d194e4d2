"""The Engine.IO transport: python-engineio's server, with its queues bounded and its sessions closable.

All that is particular to python-engineio is here.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import engineio
from aiohttp import web
from engineio.async_drivers import aiohttp as driver
from engineio.packet import CLOSE, MESSAGE, Packet
from engineio.payload import Payload

__all__ = ["Engine", "Outgoing"]

# engine.io-client sends all that waited for the previous POST in the next one, however many packets that is.
Payload.max_decode_packets = 1_000_000

# How long a polling client that is closed has to fetch what waits for it.
LAST_POLL_SECONDS: Final = 1.0
_PACKET_TYPES: Final = frozenset("0123456")


class Outgoing(Packet):  # type: ignore[misc]  # python-engineio has no type information
    """A message packet that many clients share; ``size`` is what it takes up, in bytes."""

    def __init__(self, data: str | bytes, size: int | None = None) -> None:
        super().__init__(MESSAGE, data)
        self.size = len(data) if size is None else size

    def encode(self, b64: bool = False) -> str | bytes:
        """Encode for one transport; the base class would remember binary data in the first one's form."""
        if self.binary:
            self.encode_cache = None
        encoded: str | bytes = super().encode(b64)
        return encoded


class _SendQueue(asyncio.Queue[Packet | None]):
    """What waits for one client, and how many bytes that is."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.bytes = 0

    def _put(self, item: Packet | None) -> None:
        super()._put(item)
        self.bytes += _size(item)

    def _get(self) -> Packet | None:
        item: Packet | None = super()._get()
        self.bytes -= _size(item)
        return item


def _size(packet: Packet | None) -> int:
    if packet is None or not isinstance(packet.data, (str, bytes)):
        return 0  # python-engineio's own handshake and pings
    size: int = packet.size if isinstance(packet, Outgoing) else len(packet.data)
    return size


async def _emptied(queue: _SendQueue) -> None:
    """Wait until polls have taken what is queued: one that comes after the end is answered 400."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_POLL_SECONDS):
            while not queue.empty():  # noqa: ASYNC110  # python-engineio's queue has no event for it
                await asyncio.sleep(0.01)


class _WebSocket(driver.WebSocket):  # type: ignore[misc]
    """python-engineio's adapter, without compression and with a way to the TCP connection."""

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        request: web.Request = environ["aiohttp.request"]
        # A zlib context a client costs more memory than everything else of it together.
        self._sock = web.WebSocketResponse(max_msg_size=self.server.max_http_buffer_size, compress=False)
        await self._sock.prepare(request)
        self.environ = environ
        self.handler.__self__.tcp = request.transport
        await self.handler(self)
        return self._sock

    async def wait(self) -> str | bytes:
        data: str | bytes = await super().wait()
        if isinstance(data, str) and data[:1] not in _PACKET_TYPES:
            raise OSError("not an Engine.IO packet")  # how the adapter says that the connection is over
        return data


class _Body:
    """A request's body, read whole: python-engineio would take the first segment for all of it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, _length: int) -> bytes:
        return self._body


async def _translate_request(request: web.Request) -> dict[str, Any]:
    environ: dict[str, Any] = driver.translate_request(request)
    body = await request.read()
    return {**environ, "wsgi.input": _Body(body), "CONTENT_LENGTH": str(len(body))}


class Engine(engineio.AsyncServer):  # type: ignore[misc]
    """An Engine.IO server whose clients can be sent to, measured and closed without waiting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._async: dict[str, Any] = {
            **driver._async,  # noqa: SLF001  # the table that the base class has chosen from
            "websocket": _WebSocket,
            "translate_request": _translate_request,
        }
        self._closing: set[asyncio.Task[None]] = set()

    def create_queue(self, *_args: Any, **_kwargs: Any) -> _SendQueue:
        """Return the queue of a new client."""
        return _SendQueue()

    def is_open(self, eio_sid: str) -> bool:
        """Tell whether packets for this client still have a chance to arrive."""
        socket = self.sockets.get(eio_sid)
        return socket is not None and not socket.closed and not socket.closing

    def transport_counts(self) -> dict[str, int]:
        """Return how many clients use which transport."""
        upgraded = sum(1 for socket in self.sockets.values() if socket.upgraded)
        return {"websocket": upgraded, "polling": len(self.sockets) - upgraded}

    def put(self, eio_sid: str, packets: Sequence[Packet]) -> int:
        """Queue packets for a client; return the bytes that wait for it now."""
        socket = self.sockets.get(eio_sid)
        if socket is None or socket.closed:
            return 0
        queue: _SendQueue = socket.queue
        for packet in packets:
            queue.put_nowait(packet)
        return queue.bytes

    def close(self, eio_sid: str, *, abort: bool = False) -> None:
        """Begin to close the transport; the client takes it for a network fault and comes back.

        What is queued is still sent, unless ``abort``.
        """
        socket = self.sockets.get(eio_sid)
        if socket is not None and not socket.closed:
            task = asyncio.get_running_loop().create_task(self._close(socket, abort=abort))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close(self, socket: Any, *, abort: bool) -> None:
        if abort:
            while not socket.queue.empty():
                socket.queue.get_nowait()
        elif not socket.upgraded:
            await _emptied(socket.queue)
        await socket.close(wait=False, abort=True, reason=self.reason.SERVER_DISCONNECT)
        if not abort:
            socket.queue.put_nowait(Packet(CLOSE))
        socket.queue.put_nowait(None)  # ends python-engineio's writer, which then closes the WebSocket
        if abort and (tcp := getattr(socket, "tcp", None)) is not None:
            tcp.abort()
