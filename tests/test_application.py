"""Starting and stopping, as the operating system and a proxy see it."""

import asyncio
import os
import signal
import sys

import aiohttp

from tests.conftest import StartInstances
from tests.harness.instance import Instance
from tests.harness.ports import HOST
from tests.harness.redis_server import RedisServer


async def test_a_kept_alive_connection_does_not_hold_up_the_stop(instances: StartInstances) -> None:
    (instance,) = await instances()
    async with instance.http() as http:
        async with http.get("/healthz") as answer:
            assert answer.status == 200
        assert await instance.terminate() == 0


async def test_a_connection_that_says_nothing_does_not_hold_up_the_stop(instances: StartInstances) -> None:
    (instance,) = await instances()
    _, writer = await asyncio.open_connection(HOST, instance.port)
    assert await instance.terminate() == 0
    writer.transport.abort()


async def test_a_second_signal_cuts_the_draining_short(instances: StartInstances) -> None:
    (instance,) = await instances(DRAIN_SECONDS=600)
    async with instance.http() as http:
        sockets = [await http.ws_connect("/ws") for _ in range(3)]
        assert instance.pid is not None
        os.kill(instance.pid, signal.SIGTERM)
        closed = [asyncio.create_task(socket.receive()) for socket in sockets]
        _, waiting = await asyncio.wait(closed, return_when=asyncio.FIRST_COMPLETED)
        assert waiting
        assert await instance.terminate() == 0
        assert {(await frame).type for frame in closed} == {aiohttp.WSMsgType.CLOSE}


async def test_a_port_in_use_is_one_clear_line(instances: StartInstances, redis_server: RedisServer) -> None:
    (first,) = await instances()
    second = Instance(first.directory.parent / "second", port=first.port)
    command = [sys.executable, "-m", "ditochat", "--addr", f"{HOST}:{first.port}"]
    await second.spawn(command, {"REDIS_URL": redis_server.url})
    assert await second.wait() == 1
    assert f"cannot listen on {HOST}:{first.port}" in second.log_text()
    assert "Traceback" not in second.log_text()
