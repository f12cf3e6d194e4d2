"""What the tests of the gateways share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.instance import Instance
from tests.harness.redis_server import RedisServer


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Instance]:
    """Start an instance and a Redis for it."""
    redis_server = RedisServer(directory / "redis")
    instance = Instance(directory / "instance", REDIS_URL=redis_server.url)
    try:
        await redis_server.start()
        await instance.start()
        yield instance
    finally:
        await instance.end()
        await redis_server.end()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def instance(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Instance]:
    """One for all tests of a module that need no other settings and break nothing.

    Its history is theirs in common.
    """
    async with serving(tmp_path_factory.mktemp("shared")) as shared:
        yield shared
