"""The Redis side is tested on every server that is here: the bundled Valkey and Debian's Redis."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from redis.asyncio import Redis

from ditochat.log.appender import Appender
from ditochat.log.connections import Connections, connect
from ditochat.log.follower import Follower
from ditochat.log.keys import LIST_KEY
from ditochat.message import Draft, StoredMessage, draft_from_value
from ditochat.metrics import Metrics
from ditochat.timeline import Timeline
from tests.harness.redis_server import RedisServer

LIMIT = 4096


class Listener:
    """Records what a gateway would be told."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.resets: list[str] = []
        self.foreign: list[bytes] = []

    def appended(self, message: StoredMessage) -> None:
        self.ids.append(message.id)

    def reset(self, reason: str) -> None:
        self.resets.append(reason)


@dataclass
class Log:
    """One instance's side of the log, without any gateway."""

    connections: Connections
    timeline: Timeline
    listener: Listener
    follower: Follower
    appender: Appender
    redis: Redis
    metrics: Metrics

    async def stored(self) -> list[dict[str, object]]:
        texts = await self.redis.lrange(LIST_KEY, 0, -1)
        return [json.loads(text) for text in texts]


class StartLog(Protocol):
    """`await start_log()`: an instance's side of the log on `any_redis_server`; it runs, open or not yet.

    `url` is another way to that server.
    """

    async def __call__(
        self, *, history_limit: int = 1000, wait_replicas: int = 0, url: str | None = None
    ) -> Log: ...


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


@pytest.fixture
async def start_log(any_redis_server: RedisServer) -> AsyncIterator[StartLog]:
    started: list[Log] = []
    tasks: list[asyncio.Task[None]] = []

    async def start(*, history_limit: int = 1000, wait_replicas: int = 0, url: str | None = None) -> Log:
        connections = connect(url or any_redis_server.url)
        metrics, timeline, listener = Metrics(), Timeline(history_limit), Listener()
        follower = Follower(connections, timeline, listener, listener.foreign.append, metrics)
        appender = Appender(
            connections, follower, metrics,
            history_limit=history_limit, max_message_bytes=LIMIT, wait_replicas=wait_replicas,
        )  # fmt: skip
        tasks.extend((asyncio.create_task(follower.run()), asyncio.create_task(appender.run())))
        redis = any_redis_server.client(decode=False)
        log = Log(connections, timeline, listener, follower, appender, redis, metrics)
        started.append(log)
        return log

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for log in started:
        await log.redis.aclose()
        await log.connections.close()


def draft(text: str, **fields: object) -> Draft:
    return draft_from_value({"text": text, **fields}, max_bytes=LIMIT)
