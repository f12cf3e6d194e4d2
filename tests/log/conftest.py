"""The Redis side is tested on every server that is here: the bundled Valkey and Debian's Redis."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.redis_server import RedisServer


@pytest.fixture(params=["valkey", "redis-server"])
async def any_redis_server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RedisServer]:
    binary = None if request.param == "valkey" else shutil.which(request.param)
    if binary is None and request.param != "valkey":
        pytest.skip("no redis-server on the PATH")
    server = RedisServer(tmp_path / "redis", binary=binary)
    try:
        await server.start()
        yield server
    finally:
        await server.end()
