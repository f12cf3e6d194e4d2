"""An append that waits for replicas, against a real server with a real replica."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ditochat.errors import Unavailable
from ditochat.log.appender import Appended
from ditochat.log.keys import ID_KEY, LIST_KEY
from tests.harness.ports import HOST
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually
from tests.log.conftest import Log, StartLog, draft


@pytest.fixture
async def replica(any_redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[RedisServer]:
    options = {"replicaof": f"{HOST} {any_redis_server.port}"}
    server = RedisServer(tmp_path / "replica", binary=any_redis_server.binary, options=options)
    async with any_redis_server.client() as master:

        async def counts() -> bool:
            # Without a write WAIT counts a replica that is connected; its first acknowledgement comes later.
            await master.set("written", "")
            return await master.wait(1, 100) == 1

        await master.config_set("repl-diskless-sync-delay", 0)  # not 5 s
        try:
            await server.start()
            await eventually(counts, otherwise=lambda: server.explain("does not acknowledge"))
            yield server
        finally:
            await server.kill()  # it may be stopped, with much to read
            await server.end()


@pytest.fixture
async def log(start_log: StartLog, replica: RedisServer) -> Log:
    log = await start_log(wait_replicas=1)
    await has_it(replica, await log.appender.append(draft("first")))
    return log


async def has_it(replica: RedisServer, appended: Appended) -> None:
    """Check that the replica has the message, now."""
    async with replica.client() as redis:
        newest, texts = await redis.get(ID_KEY), await redis.lrange(LIST_KEY, 0, -1)
    assert int(newest or 0) >= appended.id
    assert appended.id in [json.loads(text)["id"] for text in texts]


def failures(log: Log) -> float:
    lines = log.metrics.render().decode().splitlines()
    (line,) = [each for each in lines if each.startswith("ditochat_append_failures_total ")]
    return float(line.split()[1])


async def test_what_is_acknowledged_is_at_the_replica(log: Log, replica: RedisServer) -> None:
    appended = await asyncio.gather(*(log.appender.append(draft(str(number))) for number in range(600)))
    await has_it(replica, appended[-1])
    assert [one.id for one in appended] == list(range(2, 602))
    assert not any(one.duplicate for one in appended)
    assert failures(log) == 0


async def test_nothing_is_acknowledged_while_the_replica_stands_still(log: Log, replica: RedisServer) -> None:
    replica.pause()
    try:
        with pytest.raises(Unavailable):
            await log.appender.append(draft("a", nonce="n"))
        # Again under the same nonce, it is another batch, whose write the replica has to have, too.
        with pytest.raises(Unavailable):
            await log.appender.append(draft("a", nonce="n"))
    finally:
        replica.resume()
    assert failures(log) >= 2
    again = await log.appender.append(draft("a", nonce="n"))
    await has_it(replica, again)
    assert (again.id, again.duplicate) == (2, True)
    assert [one["text"] for one in await log.stored()] == ["a", "first"]


async def test_a_retry_over_a_new_connection_waits_as_well(
    start_log: StartLog, replica: RedisServer, any_redis_server: RedisServer
) -> None:
    async with TcpProxy(any_redis_server.port) as network:
        log = await start_log(wait_replicas=1, url=network.redis_url)
        await log.appender.append(draft("first"))
        replica.pause()
        try:
            appending = asyncio.create_task(log.appender.append(draft("a", nonce="n")))

            async def stored() -> bool:
                return await log.redis.get(ID_KEY) == b"2"

            await eventually(stored, otherwise=lambda: "nothing is stored")
            before = network.accepted
            await network.cut()
            with pytest.raises(Unavailable):
                await appending
            assert network.accepted > before
        finally:
            replica.resume()
        again = await log.appender.append(draft("a", nonce="n"))
        await has_it(replica, again)
        assert (again.id, again.duplicate) == (2, True)


async def test_a_script_that_redis_forgot_is_sent_in_full_and_waited_for(
    log: Log, replica: RedisServer
) -> None:
    await log.redis.script_flush()
    await has_it(replica, await log.appender.append(draft("a")))
    assert failures(log) == 0
    await log.redis.script_flush()
    replica.pause()
    try:
        with pytest.raises(Unavailable):
            await log.appender.append(draft("b"))
    finally:
        replica.resume()


async def test_a_log_that_is_gone_is_opened_again(log: Log, replica: RedisServer) -> None:
    await log.redis.flushall()
    appended = await log.appender.append(draft("a"))
    await has_it(replica, appended)
    assert appended.id == 1


async def test_one_replica_is_too_few_for_two(start_log: StartLog, replica: RedisServer) -> None:
    log = await start_log(wait_replicas=2)
    with pytest.raises(Unavailable):
        await log.appender.append(draft("a"))
    assert replica.running


async def test_who_waits_for_none_is_answered_while_the_replica_stands_still(
    start_log: StartLog, replica: RedisServer
) -> None:
    log = await start_log()
    replica.pause()
    try:
        assert (await log.appender.append(draft("a"))).id == 1
    finally:
        replica.resume()
