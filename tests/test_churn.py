"""Clients that come and go, in every way, leave nothing behind."""

import asyncio
import gc
import json
import os
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Set
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from ditochat.engine.deadlines import DeadlineWheel
from ditochat.gateways.socketio import ChatServer
from tests.conftest import StartInstances
from tests.harness.in_process import in_process
from tests.harness.loop import timers
from tests.harness.raw_client import RawHttp, RawWebSocket
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

POLLING = "/socket.io/?EIO=4&transport=polling"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
CLOSE = 8


# ---- how a WebSocket ends


async def closed(socket: RawWebSocket) -> None:
    socket.send(CLOSE, b"\x03\xe8")
    await socket.http.ended()


async def refused(socket: RawWebSocket) -> None:
    socket.send(3)  # there is no such opcode
    await socket.http.ended()


async def aborted(socket: RawWebSocket) -> None:
    socket.http.reset()


async def left(socket: RawWebSocket) -> None:
    """No close frame, but an orderly end of TCP."""


# ---- what comes before


@asynccontextmanager
async def websocket(port: int, target: str) -> AsyncIterator[RawWebSocket]:
    async with await RawHttp.open(port) as http:
        assert (await http.handshake(target)).status == 101
        yield RawWebSocket(http)


class Polling:
    """A session that begins with polling: GETs on one connection, POSTs on another."""

    def __init__(self, gets: RawHttp, posts: RawHttp, sid: str) -> None:
        self.gets = gets
        self.posts = posts
        self.sid = sid

    async def post(self, body: bytes) -> int:
        return (await self.posts.request("POST", f"{POLLING}&sid={self.sid}", body)).status

    async def hold(self) -> None:
        """Return when the server has a GET to answer."""
        self.gets.send_request("GET", f"{POLLING}&sid={self.sid}")
        assert await self.post(b"3") == 200


@asynccontextmanager
async def polling(port: int) -> AsyncIterator[Polling]:
    async with await RawHttp.open(port) as gets, await RawHttp.open(port) as posts:
        opened = await gets.request("GET", POLLING)
        yield Polling(gets, posts, json.loads(opened.body[1:])["sid"])


async def plain(port: int, end: Callable[[RawWebSocket], Awaitable[None]]) -> None:
    async with websocket(port, "/ws?after=0") as socket:
        await end(socket)


async def without_connect(port: int, end: Callable[[RawWebSocket], Awaitable[None]]) -> None:
    async with websocket(port, WEBSOCKET) as socket:
        await end(socket)


async def connected(port: int, end: Callable[[RawWebSocket], Awaitable[None]]) -> None:
    async with websocket(port, WEBSOCKET) as socket:
        socket.say("40")
        await socket.packets(3)  # OPEN, CONNECT, `session`
        await end(socket)


async def upgraded(port: int, end: Callable[[RawWebSocket], Awaitable[None]]) -> None:
    async with polling(port) as client, websocket(port, f"{WEBSOCKET}&sid={client.sid}") as socket:
        assert await client.post(b"40") == 200
        socket.say("2probe")
        assert await socket.packet() == "3probe"
        socket.say("5")
        await socket.packets(2)  # CONNECT, `session`
        await end(socket)


async def upgrading(port: int, end: Callable[[RawWebSocket], Awaitable[None]]) -> None:
    async with polling(port) as client:
        async with websocket(port, f"{WEBSOCKET}&sid={client.sid}") as socket:
            socket.say("2probe")
            assert await socket.packet() == "3probe"
            await end(socket)
        assert await client.post(b"1") == 200


async def polled_and_closed(port: int) -> None:
    async with polling(port) as client:
        assert await client.post(b"40") == 200
        assert (await client.gets.request("GET", f"{POLLING}&sid={client.sid}")).status == 200
        await client.hold()
        assert await client.post(b"1") == 200


async def polled_and_refused(port: int) -> None:
    async with polling(port) as client:
        assert await client.post(b"40") == 200
        assert await client.post(b"bad") == 400


async def polled_and_aborted(port: int) -> None:
    async with polling(port) as client:
        await client.hold()
        client.gets.reset()


async def polled_and_left(port: int) -> None:
    async with polling(port) as client:
        assert await client.post(b"40") == 200


async def half_a_head(port: int, *, reset: bool) -> None:
    async with await RawHttp.open(port) as http:
        http.send(b"GET /ws HTTP/1.1\r\nUpgrade: web")
        if reset:
            http.reset()


VISITS: list[Callable[[int], Coroutine[Any, Any, None]]] = [
    polled_and_closed,
    polled_and_refused,
    polled_and_aborted,
    polled_and_left,
    partial(half_a_head, reset=True),
    partial(half_a_head, reset=False),
    *(
        partial(visit, end=end)
        for visit in (plain, without_connect, connected, upgraded, upgrading)
        for end in (closed, refused, aborted, left)
    ),
]


async def come_and_go(port: int) -> None:
    """Have a hundred or so clients come and go at once."""
    async with asyncio.TaskGroup() as visitors:
        for visit in VISITS * 4:
            visitors.create_task(visit(port))


# ---- from outside


@pytest.mark.skipif(sys.platform != "linux", reason="/metrics has a process's files and memory on Linux only")
async def test_10_000_comings_and_goings_leave_no_file_and_no_memory(instances: StartInstances) -> None:
    # A quick heartbeat: it ends the sessions of those who just stop polling.
    [instance] = await instances(PING_INTERVAL=1, PING_TIMEOUT=3, HISTORY_LIMIT=10)
    await instance.publish("so that all connections to Redis are open")
    metrics = await instance.metrics()
    files = metrics["process_open_fds"]

    async def gone() -> bool:
        nonlocal metrics
        metrics = await instance.metrics()
        connected = [count for name, count in metrics.items() if name.startswith("ditochat_connections{")]
        return len(connected) == 3 and not any(connected) and metrics["process_open_fds"] <= files

    memory: list[float] = []
    for crowds in (10, 49, 49):
        for _ in range(crowds):
            await come_and_go(instance.port)
            await instance.publish("to those who are just going")
        await eventually(gone, otherwise=lambda: f"before, {files} files were open: {metrics}")
        memory.append(metrics["process_resident_memory_bytes"])
    # 5,000 clients more: 2 % would be some 200 bytes of each.
    assert memory[2] < 1.02 * memory[1]


# ---- from inside


def entries(value: object) -> int:
    """Count what is in a container, and in those inside it."""
    if isinstance(value, Mapping):
        return len(value) + sum(map(entries, value.values()))
    return len(value) if isinstance(value, (Set, deque, list, DeadlineWheel)) else 0


def tables(server: object) -> dict[str, int]:
    """Count the entries of each container that a part of the server has."""
    parts = [part for part in vars(server).values() if hasattr(part, "__dict__")]
    parts += [part.eio for part in parts if isinstance(part, ChatServer)]
    return {
        f"{type(part).__name__}.{name}": entries(value)
        for part in parts
        for name, value in vars(part).items()
    }


def left_behind(server: object) -> Counter[str]:
    """Count all that a client could leave: entries, objects of our own classes, tasks, timers, files."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    return (
        Counter(tables(server))
        + Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("ditochat."))
        + Counter(tasks=len(asyncio.all_tasks()), timers=timers(), files=len(os.listdir("/dev/fd")))  # noqa: PTH208
    )


async def test_comings_and_goings_leave_no_entry_no_object_no_task_and_no_timer(
    redis_server: RedisServer,
) -> None:
    async with in_process(redis_server, PING_INTERVAL=1, PING_TIMEOUT=3) as at:
        await come_and_go(at.port)
        counted: Counter[str] = Counter()

        async def gone() -> bool:
            nonlocal counted
            counted = left_behind(at.server)
            return not any(counted[kind] for kind in ("Door", "Connection", "EngineSocket", "_Client"))

        await eventually(gone, otherwise=lambda: f"some are there still: {counted}")
        before = counted
        for _ in range(10):
            await come_and_go(at.port)

        async def no_more_than_before() -> bool:
            nonlocal counted
            counted = left_behind(at.server)
            return not counted - before

        await eventually(no_more_than_before, otherwise=lambda: f"left behind: {counted - before}")
