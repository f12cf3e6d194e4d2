"""A door on a free port, with aiohttp behind it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from ditochat.engine.door import Opener, Porter
from tests.harness.ports import HOST

__all__ = ["serve_front"]


@asynccontextmanager
async def serve_front(
    app: web.Application, opener: Opener, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, Porter]]:
    """Serve; the value is the port and what all doors share."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    porter = Porter(opener, runner.server)
    server = await asyncio.get_running_loop().create_server(porter, HOST, 0, backlog=1000, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], porter
    finally:
        server.close()
        await runner.cleanup()
