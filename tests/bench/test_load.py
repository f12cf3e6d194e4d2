"""The load generator against a real server: each mode, briefly. How fast it is, `make bench` shows."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.peers.peer import ROOT
from tests.conftest import StartInstances
from tests.harness.instance import Instance
from tests.harness.ports import free_port
from tests.harness.program import Program
from tests.harness.waiting import eventually

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)


class Tools:
    """load.c and floor.c, compiled."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("load", "floor"):
            source, program = ROOT / "bench" / f"{name}.c", directory / name
            flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-std=c11"]
            subprocess.run(["cc", *flags, "-o", program, source], check=True)

    async def load(self, mode: str, port: int, *words: object) -> dict[str, Any]:
        arguments = (mode, "--port", port, "--warm", 0.2, "--secs", 0.5, *words)
        result: dict[str, Any] = json.loads(await self._run(self.directory / "load", *arguments))
        return result

    @asynccontextmanager
    async def floor(self) -> AsyncIterator[int]:
        port, program = free_port(), Program("floor", self.directory)
        await program.spawn([str(self.directory / "floor"), str(port)], {})
        try:
            await eventually(lambda: _accepts(port), otherwise=lambda: program.explain("does not listen"))
            yield port
        finally:
            await program.end()

    @staticmethod
    async def _run(*command: object) -> str:
        process = await asyncio.create_subprocess_exec(
            *(str(word) for word in command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, complaints = await process.communicate()
        assert process.returncode == 0, complaints.decode()
        return output.decode()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return Tools(tmp_path_factory.mktemp("load"))


@pytest.fixture
async def instance(instances: StartInstances) -> Instance:
    (instance,) = await instances()
    return instance


@pytest.mark.parametrize("protocol", ["socketio", "ws"])
async def test_fanout_counts_every_delivery(tools: Tools, instance: Instance, protocol: str) -> None:
    words = ("--protocol", protocol, "--clients", 20, "--publishers", 4, "--rate", 40, "--pid", instance.pid)
    result = await tools.load("fanout", instance.port, *words)
    assert result["clients"] == 20
    assert result["delivered"] == result["expected"] == 20 * result["published"] > 0
    assert (result["lost_pct"], result["disordered"], result["dropped"]) == (0, 0, 0)
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"] * 1.02
    assert result["cpu_us_per_delivery"] > 0


async def test_fanout_over_two_instances_sees_one_order(tools: Tools, instances: StartInstances) -> None:
    one, other = await instances(2)
    words = ("--port", other.port, "--session", "--clients", 20, "--publishers", 10, "--rate", 200)
    result = await tools.load("fanout", one.port, *words)
    assert result["delivered"] == result["expected"] > 0
    assert result["disordered"] == 0


async def test_fanout_counts_what_is_lost(tools: Tools) -> None:
    async with _one_way_server() as port:
        words = ("--protocol", "ws", "--clients", 2, "--rate", 20, "--drain", 0.1)
        result = await tools.load("fanout", port, *words)
    assert result["delivered"] == 0
    assert result["lost_pct"] == 100


async def test_idle_holds_its_clients(tools: Tools, instance: Instance) -> None:
    result = await tools.load("idle", instance.port, "--clients", 50, "--session", "--pid", instance.pid)
    assert (result["clients"], result["dropped"]) == (50, 0)
    assert result["rss_mb"] > result["rss_before_mb"] > 10


async def test_storm_waits_for_the_session_and_the_replay(tools: Tools, instance: Instance) -> None:
    ids = [(await instance.publish({"text": str(number)}))["id"] for number in range(12)]
    epoch = await _epoch(instance)
    auth = json.dumps({"after": ids[-1] - 10, "epoch": epoch})
    words = ("--clients", 30, "--session", "--replay", 10, "--auth", auth, "--pid", instance.pid)
    result = await tools.load("storm", instance.port, *words)
    assert (result["clients"], result["failed_to_connect"], result["replayed"]) == (30, 0, 300)
    assert result["connects_per_s"] > 0


@pytest.mark.parametrize("protocol", ["socketio", "ws"])
async def test_publish_counts_acknowledgements(tools: Tools, instance: Instance, protocol: str) -> None:
    words = ("--protocol", protocol, "--clients", 3, "--publishers", 3, "--window", 4)
    result = await tools.load("publish", instance.port, *words)
    assert result["acks"] > 0
    assert (result["refused"], result["unacknowledged"], result["dropped"]) == (0, 0, 0)


async def test_publish_stops_after_a_count(tools: Tools, instance: Instance) -> None:
    result = await tools.load("publish", instance.port, "--warm", 0, "--secs", 20, "--count", 25)
    assert result["acks"] == 25
    assert len(await instance.messages()) >= 25


async def test_http_counts_answers(tools: Tools, instance: Instance) -> None:
    await instance.publish("one")
    result = await tools.load("http", instance.port, "--clients", 4)
    assert result["status_200"] > 0
    assert (result["status_304"], result["status_other"], result["dropped"]) == (0, 0, 0)
    assert result["mean_body_bytes"] > 20


async def test_http_with_if_none_match_gets_304(tools: Tools, instance: Instance) -> None:
    await instance.publish("one")
    result = await tools.load("http", instance.port, "--clients", 4, "--if-none-match")
    assert result["status_304"] > 0
    assert (result["status_200"], result["status_other"]) == (0, 0)


async def test_http_reads_chunked_answers(tools: Tools) -> None:
    async with _chunked_server() as port:
        result = await tools.load("http", port, "--clients", 2)
    assert result["status_200"] > 0
    assert result["status_other"] == result["dropped"] == 0


async def test_more_clients_than_ports_come_from_several_addresses(tools: Tools) -> None:
    seen: set[str] = set()
    async with _one_way_server(seen) as port:
        words = ("--protocol", "ws", "--clients", 40_001, "--opening", 1, "--timeout", 0.3)
        await tools.load("idle", port, *words)
    assert seen == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}


async def test_the_floor_delivers(tools: Tools) -> None:
    async with tools.floor() as port:
        words = ("--protocol", "ws", "--clients", 30, "--publishers", 3, "--rate", 100)
        result = await tools.load("fanout", port, *words)
    assert result["delivered"] == result["expected"] > 0
    assert result["disordered"] == 0


async def test_a_client_that_cannot_connect_is_no_crash(tools: Tools) -> None:
    result = await tools.load("idle", free_port(), "--clients", 3)
    assert (result["clients"], result["failed_to_connect"]) == (0, 3)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _epoch(instance: Instance) -> str:
    async with instance.http() as http:
        path = "/socket.io/?EIO=4&transport=polling"
        async with http.get(path) as answer:
            path += f"&sid={json.loads((await answer.text())[1:])['sid']}"
        async with http.post(path, data="40") as answer:
            await answer.read()
        seen = ""
        while '42["session"' not in seen:
            async with http.get(path) as answer:
                seen = await answer.text()
        session = next(packet for packet in seen.split("\x1e") if packet.startswith('42["session"'))
        epoch: str = json.loads(session[2:])[1]["epoch"]
        return epoch


@asynccontextmanager
async def _one_way_server(seen: set[str] | None = None) -> AsyncIterator[int]:
    """Accept WebSockets, note the addresses that they come from, and never send anything."""
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.add(writer.get_extra_info("peername")[0])
        writer.write(upgrade)
        while await reader.read(65536):
            pass
        writer.close()

    async with _serving(serve) as port:
        yield port


@asynccontextmanager
async def _chunked_server() -> AsyncIterator[int]:
    """Answer each request in three chunks, the pieces of which arrive in odd portions."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = head + b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for at in range(0, len(answer), 7):
                    writer.write(answer[at : at + 7])
                    await asyncio.sleep(0)
        except asyncio.IncompleteReadError:
            writer.close()

    async with _serving(serve) as port:
        yield port


@asynccontextmanager
async def _serving(serve: Any) -> AsyncIterator[int]:
    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield port
    finally:
        server.close()
