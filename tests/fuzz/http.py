"""The front on a real socket, with a real log behind it: the kernel cuts and closes in its own ways."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.fuzz.front import check_answers, segments
from tests.fuzz.instance import Errors
from tests.fuzz.requests import SID, complete_requests, draws, statuses
from tests.fuzz.target import Check, Target
from tests.harness.in_process import InProcess, in_process
from tests.harness.raw_client import RawHttp
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until

__all__ = ["TARGET"]

# Far longer than any answer takes; what is never answered is found by this.
ANSWER_SECONDS: Final = 8.0


class _Visitor:
    """Opens one connection after another."""

    def __init__(self, at: InProcess, errors: Errors) -> None:
        self._at = at
        self._errors = errors
        self._other: RawHttp | None = None

    async def play(self, data: bytes) -> None:
        data = data.replace(SID, b"unknown")
        async with await RawHttp.open(self._at.port) as http:
            received = await self._converse(http, data)
        check_answers(received, complete_requests(data), ended=True)
        self._errors.raise_logged()

    async def _converse(self, http: RawHttp, data: bytes) -> bytes:
        """Send the input, wait for the answers that are due, hang up; return all that came."""
        due = complete_requests(data)
        received = b""
        with suppress(ConnectionError):
            for segment in segments(data):
                http.send(segment)
                await http.writer.drain()
            async with asyncio.timeout(ANSWER_SECONDS):
                while _answers(received) < due:
                    piece = await http.reader.read(65536)
                    if not piece:
                        return received
                    received += piece
            if not due:
                await self._served_meanwhile()
            with suppress(OSError):  # it has been reset meanwhile
                http.writer.write_eof()
            async with asyncio.timeout(ANSWER_SECONDS):
                received += await http.reader.read()
        return received

    async def _served_meanwhile(self) -> None:
        """Return when the server has had its turn: what was sent before has been read."""
        if self._other is None:
            self._other = await RawHttp.open(self._at.port)
        assert (await self._other.request("GET", "/healthz")).status == 200

    async def ask_well(self) -> None:
        """Check that good requests work, on a connection of their own."""
        async with await RawHttp.open(self._at.port) as http:
            headers = {"Content-Type": "application/json"}
            assert (await http.request("POST", "/messages", b'"hello"', headers)).status == 201
            assert (await http.request("GET", "/messages")).status == 200

    async def end(self) -> None:
        """Hang up."""
        if self._other is not None:
            await self._other.__aexit__()


def _answers(received: bytes) -> int:
    """Count the answers that are there; the last one may not be whole yet."""
    head, end, _ = received.rpartition(b"\r\n\r\n")
    return len(statuses(head + end)) if end else 0


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, and nothing of the paths


@contextmanager
def _opened() -> Iterator[Check]:
    errors = Errors()
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as directory, errors.heard():
        loop = runner.get_loop()
        stack = AsyncExitStack()

        async def begin() -> _Visitor:
            server = RedisServer(Path(directory) / "redis")
            stack.push_async_callback(server.end)
            await server.start()
            return _Visitor(await stack.enter_async_context(in_process(server, HISTORY_LIMIT=20)), errors)

        try:
            visitor = runner.run(begin())
            runner.run(visitor.ask_well())  # what is opened once is open now
            before = _descriptors()
            yield lambda data: loop.run_until_complete(visitor.play(data))
            runner.run(visitor.end())
            runner.run(visitor.ask_well())
            runner.run(until(lambda: _descriptors() <= before, lambda: "descriptors are left open"))
            errors.raise_logged()
        finally:
            runner.run(stack.aclose())


TARGET: Final = Target("http", 10, _opened, draws)
