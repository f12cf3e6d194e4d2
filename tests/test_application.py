"""Starting and stopping, as the operating system and a proxy see it."""

import asyncio
import os
import resource
import shlex
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import StartInstances
from tests.harness.instance import Instance
from tests.harness.ports import HOST
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import DEADLINE, eventually


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


class FewFiles(Instance):
    """An instance that may have 128 files open."""

    def _command(self) -> list[str]:
        return ["sh", "-c", f"ulimit -n 128; exec {shlex.join(super()._command())}"]


def warnings(instance: Instance, text: str) -> list[str]:
    lines = [line for line in instance.log_lines() if line["level"] in ("warning", "error")]
    return [line["message"] for line in lines if text in line["message"]]


async def test_clients_leave_files_for_redis_and_those_for_whom_there_are_none_are_sent_away(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    instance = FewFiles(tmp_path / "few", REDIS_URL=redis_server.url)
    try:
        await instance.start()
        async with instance.http() as http, http.ws_connect("/ws") as reader:
            crowd = [await asyncio.open_connection(HOST, instance.port) for _ in range(100)]
            refused = [asyncio.create_task(stream.read()) for stream, _ in crowd]
            # Some are let in: they are not told anything before they say what they want.
            done, _ = await asyncio.wait(refused, timeout=1)
            assert 30 < len(done) < 90
            assert len(warnings(instance, "no file is left for new clients")) == 1
            await redis_server.kill()
            await redis_server.start()

            async def live() -> bool:
                await reader.send_str("still here")
                return bool((await reader.receive_json(timeout=DEADLINE))["text"] == "still here")

            await eventually(live, otherwise=lambda: instance.explain("does not find Redis again"))
            for _, writer in crowd:
                writer.transport.abort()
            await asyncio.gather(*refused, return_exceptions=True)
            await eventually(instance.ready, otherwise=lambda: instance.explain("lets nobody in"))
        assert warnings(instance, "new connections wait") == []
    finally:
        await instance.end()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let us lower another's limit")
async def test_where_no_connection_can_be_accepted_that_is_said_in_one_line(
    instances: StartInstances,
) -> None:
    (instance,) = await instances()
    soft, hard = resource.prlimit(instance.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{instance.pid}/fd"))  # noqa: PTH208 - a count of names
    resource.prlimit(instance.pid, resource.RLIMIT_NOFILE, (used, hard))
    waiting = [asyncio.create_task(instance.readiness()) for _ in range(5)]

    async def complained() -> bool:
        return bool(warnings(instance, "new connections wait"))

    await eventually(complained, otherwise=lambda: instance.explain("says nothing"))
    done, _ = await asyncio.wait(waiting, timeout=1.5)  # asyncio tries again after a second
    assert not done
    resource.prlimit(instance.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert [answer["status"] for answer in await asyncio.gather(*waiting)] == ["ready"] * 5
    said = f"new connections wait: Too many open files; this process may have {used} open"
    assert warnings(instance, "open") == [said]
