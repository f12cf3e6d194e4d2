"""What tests share: a Redis, instances on it, JavaScript clients. Each test has its own."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.harness.instance import Instance
from tests.harness.js_clients import JsClients
from tests.harness.redis_server import RedisServer


class StartInstances(Protocol):
    """`await instances(2, HISTORY_LIMIT=10)`: that many instances, started, on `redis_server` unless told."""

    async def __call__(self, n: int = 1, *, ready: bool = True, **settings: object) -> list[Instance]: ...


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    # TEST_REDIS_BINARY runs the tests on another server than the bundled Valkey.
    server = RedisServer(tmp_path / "redis", binary=os.environ.get("TEST_REDIS_BINARY"))
    try:
        await server.start()
        yield server
    finally:
        await server.end()


@pytest.fixture
async def instances(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[StartInstances]:
    started: list[Instance] = []

    async def start(n: int = 1, *, ready: bool = True, **settings: object) -> list[Instance]:
        new = []
        for _ in range(n):
            name = f"instance-{len(started) + 1}"
            instance = Instance(tmp_path / name, name=name, REDIS_URL=redis_server.url)
            instance.settings |= settings
            started.append(instance)
            new.append(instance)
        async with asyncio.TaskGroup() as starts:
            for instance in new:
                starts.create_task(instance.start(ready=ready))
        return new

    try:
        yield start
    finally:
        await asyncio.gather(*(instance.end() for instance in started))


@pytest.fixture
async def js_clients() -> AsyncIterator[JsClients]:
    async with JsClients() as clients:
        yield clients
