"""What the tests of the gateways share."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.harness.instance import Instance
from tests.harness.redis_server import RedisServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def instance(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Instance]:
    """One for all tests of a module that need no other settings and break nothing.

    Its history is theirs in common.
    """
    directory = tmp_path_factory.mktemp("shared")
    redis_server = RedisServer(directory / "redis")
    shared = Instance(directory / "instance", REDIS_URL=redis_server.url)
    try:
        await redis_server.start()
        await shared.start()
        yield shared
    finally:
        await shared.end()
        await redis_server.end()
