"""An instance in the tests' own process: for clocks that a test turns, and for what it looks at from inside."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from ditochat.application import _Server
from ditochat.listening import FileLimit
from ditochat.log.connections import connect
from ditochat.settings import load
from tests.harness.ports import HOST, free_port
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

__all__ = ["InProcess", "in_process"]


@dataclass(frozen=True)
class InProcess:
    """The instance's parts, and where it listens."""

    server: _Server
    port: int

    @property
    def base_url(self) -> str:
        """The URL to which paths are appended: no slash at its end."""
        return f"http://{HOST}:{self.port}"


@asynccontextmanager
async def in_process(redis_server: RedisServer, **settings: object) -> AsyncIterator[InProcess]:
    """Run an instance; `settings` are environment variables."""
    port = free_port()
    given = {"ADDR": f"{HOST}:{port}", "REDIS_URL": redis_server.url, "DRAIN_SECONDS": 0} | settings
    environment = {name: str(value) for name, value in given.items()}
    at = InProcess(_Server(load(environment, {}), connect(redis_server.url), FileLimit()), port)
    stop = asyncio.Event()
    serving = asyncio.create_task(at.server.serve(stop, asyncio.Event()))

    async def ready() -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{at.base_url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    try:
        await eventually(ready, otherwise=lambda: "not ready")
        yield at
    finally:
        stop.set()
        await serving
        await at.server.connections.close()
