"""A WebSocket handshake that aiohttp has read; what follows it is shown by the conformance suites."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ditochat.engine.handover import serve_websocket
from ditochat.engine.websocket import WebSocketProtocol
from tests.harness.ports import HOST, free_port
from tests.harness.raw_client import RawHttp


class Recorded(WebSocketProtocol):
    def __init__(self) -> None:
        super().__init__(100)
        self.ended = asyncio.Event()

    def closed(self) -> None:
        self.ended.set()


class Departing:
    """A server whose clients are gone just before they would get their answer."""

    def __init__(self) -> None:
        self.port = free_port()
        self.protocols: list[Recorded] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()  # as asyncio does when it meets the end, before it says so
        self.protocols.append(Recorded())
        return await serve_websocket(request, self.protocols[-1])


@pytest.fixture
async def departing() -> AsyncIterator[Departing]:
    server = Departing()
    app = web.Application()
    app.router.add_get("/", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, server.port).start()
    yield server
    await runner.cleanup()


async def test_a_client_that_goes_before_its_answer_is_no_error(
    departing: Departing, caplog: pytest.LogCaptureFixture
) -> None:
    async with await RawHttp.open(departing.port) as http:
        http.send(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert await http.ended() == b""
    [protocol] = departing.protocols
    async with asyncio.timeout(5):
        await protocol.ended.wait()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
