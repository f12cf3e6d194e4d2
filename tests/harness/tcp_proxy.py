"""The network between two programs, with the faults of one."""

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.harness.ports import HOST, free_port

__all__ = ["TcpProxy"]

_CHUNK = 65536
# Closing sends a reset, and whatever is buffered is gone.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TcpProxy:
    """Forwards a loopback port to `port` on `host`; use it by `async with`, or `start()` and `close()`."""

    def __init__(self, port: int, host: str = HOST) -> None:
        self.port = free_port()
        self.accepted = 0  # connections, since the beginning
        self.delay = 0.0  # seconds that whatever passes is held up, in each direction
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._half_closed: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """The proxy as an HTTP server; no slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def redis_url(self) -> str:
        """The proxy as a Redis."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return len(self._connections)

    async def start(self) -> None:
        """Begin to accept connections."""
        await self.accept()

    async def close(self) -> None:
        """End everything."""
        self.refuse()
        await self.cut()

    async def cut(self) -> int:
        """Reset all connections, and return how many there were. New ones are welcome."""
        cut = list(self._connections.items())
        for task, writers in cut:
            for writer in writers:
                _abort(writer)
            task.cancel()
        await asyncio.gather(*(task for task, _ in cut), return_exceptions=True)
        return len(cut)

    def refuse(self) -> None:
        """Refuse new connections; those that there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Accept new connections again."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, HOST, self.port)

    def blackhole(self) -> None:
        """Forward nothing, on any connection; what comes is held until `resume()`, or lost by `cut()`."""
        self._flows.clear()

    def resume(self) -> None:
        """Forward again, first what was held."""
        self._flows.set()

    def half_close(self) -> int:
        """Tell the clients of all connections that nothing more comes; return how many there were.

        What they send is forwarded still.
        """
        for client, *_ in self._connections.values():
            if not client.is_closing():
                self._half_closed.add(client)
                with suppress(OSError):  # it has just been reset
                    client.write_eof()
        return len(self._connections)

    def retarget(self, port: int, host: str = HOST) -> None:
        """Take new connections to another upstream."""
        self._upstream = (host, port)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        writers = [writer]
        task = asyncio.create_task(self._serve(reader, writer, writers))
        self._connections[task] = writers
        task.add_done_callback(self._connections.pop)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
        try:
            await self._flows.wait()
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            writers.append(up_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, up_writer))
                pumps.create_task(self._pump(up_reader, writer))
        except* OSError:
            pass  # one side is gone: so is the other, below
        finally:
            for each in writers:
                self._half_closed.discard(each)
                _abort(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flows.wait()
            if writer not in self._half_closed:
                writer.write(data)
                await writer.drain()
        await self._flows.wait()
        if writer.can_write_eof():
            writer.write_eof()


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
