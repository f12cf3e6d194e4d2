"""G7: a client that stops reading is closed, costs the others nothing, and comes back by a replay."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

import pytest

from tests.conftest import StartInstances
from tests.harness.instance import Instance
from tests.harness.raw_chat import PlainChat, PollingChat, RawChat, SocketIoChat
from tests.harness.raw_client import RawHttp, RawWebSocket

KINDS = (PollingChat, SocketIoChat, PlainChat)
SLOW = "ditochat_slow_clients_closed_total"
MEMORY = "process_resident_memory_bytes"
BUFFER = 65_536  # SEND_BUFFER_BYTES
TEXT = "x" * 4000
STORED = 4100  # bytes that a message with this text takes, with its other fields


class Others:
    """A reader on each transport, and somebody who publishes."""

    def __init__(self, readers: list[RawChat], publisher: RawHttp) -> None:
        self.readers = readers
        self.last = 0
        self._publisher = publisher

    async def deliver(self, text: str) -> float:
        """Publish a message; return after how many seconds all readers have it."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        body = f'{{"text":"{text}"}}'.encode()
        answer = await self._publisher.request(
            "POST", "/messages", body, {"Content-Type": "application/json"}
        )
        assert answer.status == 201
        self.last += 1
        for reader in self.readers:
            await reader.wait_for(self.last)
        return loop.time() - begun

    def check(self) -> None:
        """Each reader has everything, and was never away."""
        for reader in self.readers:
            assert reader.ids == list(range(1, self.last + 1))
            assert reader.connects == 1


@asynccontextmanager
async def others_on(instance: Instance) -> AsyncIterator[Others]:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(kind(instance.port)) for kind in KINDS]
        others = Others(readers, await stack.enter_async_context(await RawHttp.open(instance.port)))
        await others.deliver("hello")
        yield others


async def test_a_client_that_stops_polling_is_closed_once_too_much_waits(instances: StartInstances) -> None:
    [instance] = await instances(SEND_BUFFER_BYTES=BUFFER, PING_INTERVAL=300)
    async with others_on(instance) as others, PollingChat(instance.port) as slow:
        await others.deliver(TEXT)
        await slow.wait_for(others.last)
        slow.stop_reading()
        await others.deliver(TEXT)  # the answer to the GET that is held
        await slow.wait_for(others.last)
        waiting = 0
        while not (await instance.metrics())[SLOW]:
            waiting += 1
            await others.deliver(TEXT)
        # The newest message is not held against it.
        assert BUFFER // STORED < waiting <= BUFFER // len(TEXT) + 2
        assert (await instance.metrics())['ditochat_connections{transport="polling"}'] == 1
        missed = [await others.deliver("missed") for _ in range(5)]
        assert slow.ids == list(range(2, others.last - waiting - len(missed) + 1))
        await slow.come_back()
        await others.deliver("live")
        await slow.wait_for(others.last)
        assert slow.ids == list(range(2, others.last + 1))
        others.check()
        assert (await instance.metrics())[SLOW] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="/metrics has a process's memory on Linux only")
@pytest.mark.parametrize("kind", KINDS)
async def test_200_clients_that_stop_reading_at_once_cost_the_others_nothing(
    instances: StartInstances, kind: type[RawChat]
) -> None:
    clients = 200
    [instance] = await instances(SEND_BUFFER_BYTES=BUFFER, PING_INTERVAL=300)
    async with others_on(instance) as others, AsyncExitStack() as stack:
        # Narrow, so that 1 MB at most is in the system's buffers of each.
        slow = [await stack.enter_async_context(kind(instance.port, narrow=True)) for _ in range(clients)]
        usual = [await others.deliver(TEXT) for _ in range(50)]
        for client in slow:
            await client.wait_for(others.last)
        before = (await instance.metrics())[MEMORY]
        for client in slow:
            client.stop_reading()
        batches: list[float] = []
        memory = closed = 0.0
        while closed < clients:
            assert others.last < 900, f"{closed} of {clients} are closed"
            batches.append(median([await others.deliver(TEXT) for _ in range(10)]))
            metrics = await instance.metrics()
            closed = metrics[SLOW]
            memory = max(memory, metrics[MEMORY])
        # Each of those messages reached the others while it waited for the slow ones; and no later than before,
        # when all were reading, in the batch before the closing, too, when the system's buffers are full.
        # (10 ms, because medians of next to nothing differ by more than their triple.)
        assert max(batches) < 3 * median(usual) + 0.01
        # What waits, half as much for how Python's buffers grow, and the messages, in each of their forms.
        assert memory < before + 1.5 * clients * BUFFER + 6 * 10 * len(batches) * STORED + 5_000_000
        async with asyncio.TaskGroup() as returning:
            for client in slow:
                returning.create_task(client.come_back())
        await others.deliver("live")
        for client in slow:
            await client.wait_for(others.last)
            assert client.ids == list(range(2, others.last + 1))
            assert client.connects == 2
        others.check()
        metrics = await instance.metrics()
        assert metrics[SLOW] == clients
        assert metrics['ditochat_replays_total{recovered="true"}'] == clients


QUESTIONS = pytest.mark.parametrize(
    "question", ['420["unknown"]', "40/unknown,"], ids=["of events", "of CONNECT"]
)


@QUESTIONS
@pytest.mark.parametrize("joined", [True, False])
async def test_who_asks_on_a_websocket_and_does_not_read_the_answers_is_closed(
    instances: StartInstances, question: str, *, joined: bool
) -> None:
    if question.startswith("42") and not joined:
        return  # nobody answers an event before CONNECT
    [instance] = await instances(SEND_BUFFER_BYTES=BUFFER, PING_INTERVAL=300)
    async with await RawHttp.open(instance.port, narrow=True) as http:
        assert (await http.handshake("/socket.io/?EIO=4&transport=websocket")).status == 101
        socket = RawWebSocket(http)
        await socket.packet()
        if joined:
            socket.say("40")
            await socket.packets(2)
        http.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads
        with pytest.raises(ConnectionError):  # noqa: PT012 - any of these may meet the end
            for _ in range(100):  # 10 MB of answers, far more than is in the system's buffers
                socket.say(*[question] * 1000)
                await http.writer.drain()
    assert (await instance.metrics())[SLOW] == joined


@QUESTIONS
async def test_who_asks_by_polling_and_does_not_fetch_the_answers_is_closed(
    instances: StartInstances, question: str
) -> None:
    [instance] = await instances(SEND_BUFFER_BYTES=BUFFER, PING_INTERVAL=300)
    async with await RawHttp.open(instance.port) as http:
        opened = await http.request("GET", "/socket.io/?EIO=4&transport=polling")
        target = f"/socket.io/?EIO=4&transport=polling&sid={json.loads(opened.body[1:])['sid']}"
        assert (await http.request("POST", target, b"40")).status == 200
        posts = 0
        while (await http.request("POST", target, "\x1e".join([question] * 100).encode())).status == 200:
            posts += 1
            assert posts < BUFFER // (100 * len(question)) + 2
    assert (await instance.metrics())[SLOW] == 1
