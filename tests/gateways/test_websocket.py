"""The plain WebSocket protocol of the Go backend: section 4 of the contract."""

import asyncio
import json
import os
import secrets
import socket
import struct
import time
from base64 import b64encode
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import WSMsgType

from ditochat.gateways import websocket
from tests.conftest import StartInstances
from tests.harness.go_frontend import GoFrontend
from tests.harness.in_process import in_process
from tests.harness.instance import Instance
from tests.harness.ports import HOST
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

FRAME_LIMIT = 1_000_000  # bytes, at the default MAX_MESSAGE_BYTES
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


class RawClient:
    """A WebSocket client by hand, for what a library would not do; use it by `async with`.

    Little is buffered on its side: when it does not read, the server notices.
    """

    def __init__(self, port: int, path: str = "/ws") -> None:
        self._port = port
        self._path = path

    async def __aenter__(self) -> Self:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (HOST, self._port))
        self._reader, self._writer = await asyncio.open_connection(sock=connection, limit=4096)
        key = b64encode(secrets.token_bytes(16)).decode()
        self._writer.write(
            f"GET {self._path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    def send(self, opcode: int, payload: bytes, *, head: int = 0x80) -> None:
        """Send a masked frame; `head` has the FIN and RSV bits."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        length = (
            bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
        )
        self._writer.write(bytes([head | opcode]) + length + mask + masked)

    async def receive(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        async with asyncio.timeout(10):
            first, length = await self._reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
            assert first & 0xF0 == 0x80  # whole, and not compressed
            return first & 0x0F, await self._reader.readexactly(length)

    async def receive_close(self) -> tuple[int, str]:
        """Return the code and the reason of the close frame that must be next."""
        opcode, payload = await self.receive()
        assert opcode == CLOSE, payload
        return close_reason(payload)


def close_reason(payload: bytes) -> tuple[int, str]:
    code: int
    (code,) = struct.unpack("!H", payload[:2])
    return code, payload[2:].decode()


async def epoch_of(instance: Instance) -> str:
    async with instance.http() as http, http.get("/readyz") as answer:
        epoch: str = (await answer.json())["epoch"]
        return epoch


async def publish(instance: Instance, *texts: str) -> list[int]:
    """Publish, and return the ids once the instance has them in its history."""
    ids = [(await instance.publish(text))["id"] for text in texts]
    await instance.messages(at_least=ids[-1], limit=1)
    return ids


# ---- chatting


async def test_two_frontends_chat(instance: Instance) -> None:
    async with GoFrontend(instance.base_url) as ann, GoFrontend(instance.base_url) as bob:
        await ann.send("hello", uid="ann", date="2026-01-31T12:00:00Z", title="Ann")
        await ann.wait_for(count=1)
        await bob.send("hi", uid="bob", title="Bob", date="2026-01-31T12:00:01Z")
        for frontend in (ann, bob):
            await frontend.wait_for(count=2)
        assert ann.messages == bob.messages
        first, second = ann.messages
        assert first == {
            "id": first["id"], "ts": first["ts"],
            "uid": "ann", "text": "hello", "date": "2026-01-31T12:00:00Z", "title": "Ann",
            **{name: first[name] for name in first if name == "nonce"},
        }  # fmt: skip
        assert (second["uid"], second["text"], second["title"]) == ("bob", "hi", "Bob")
        assert second["id"] == first["id"] + 1
        assert (await ann.history())[:2] == [second, first]


async def test_a_frontend_that_has_no_date_gets_one(instance: Instance) -> None:
    async with GoFrontend(instance.base_url) as frontend:
        await frontend.send_raw('{"uid":"u","text":"hello"}')
        await frontend.wait_for(count=1)
        assert frontend.messages[0]["date"].startswith(time.strftime("%Y-", time.gmtime()))


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ("hello", "hello"),
        ("  two words \n", "two words"),
        ("two\nlines", "two\nlines"),
        ('"a JSON string"', "a JSON string"),
        ('"unfinished', '"unfinished'),
        ("{unfinished", "{unfinished"),
        ('{"text":"a"} and more', '{"text":"a"} and more'),
        ("5", "5"),
        ("true", "true"),
        ("null", "null"),
        ('["a"]', '["a"]'),
        ("[" * 2000, "[" * 2000),
        ("h\u00e9llo \U0001f600", "h\u00e9llo \U0001f600"),
        (' {"text":"spaced"} ', "spaced"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_is_no_json_object_or_string_is_plain_text(
    instance: Instance, frame: str, text: str
) -> None:
    async with GoFrontend(instance.base_url) as frontend:
        await frontend.send_raw(frame)
        await frontend.wait_for(count=1)
        assert frontend.messages[0]["text"] == text
        assert len(frontend.frames[0].split("\n")) == 1


async def test_a_frontend_s_messages_keep_their_order(instance: Instance) -> None:
    async with GoFrontend(instance.base_url) as sender, GoFrontend(instance.base_url) as reader:
        texts = [f"message {number}" for number in range(200)]
        for text in texts:
            await sender.send(text, date="2026-01-31")
        for frontend in (sender, reader):
            await frontend.wait_for(count=200)
            assert [message["text"] for message in frontend.messages] == texts
            assert frontend.ids == list(range(frontend.ids[0], frontend.ids[0] + 200))


async def test_a_frame_holds_as_many_messages_as_wait(instance: Instance) -> None:
    before = await publish(instance, "position")
    ids = await publish(instance, *(f"message {number}" for number in range(20)))
    async with GoFrontend(instance.base_url, params={"after": str(before[0])}) as frontend:
        await frontend.wait_for(count=20)
        assert frontend.ids == ids
        assert len(frontend.frames) == 1
        assert frontend.frames[0].count("\n") == 19


async def test_fragments_are_one_message_and_a_ping_in_between_is_answered(instance: Instance) -> None:
    async with RawClient(instance.port) as client:
        client.send(TEXT, b"hel", head=0)
        client.send(PING, b"are you there?")
        client.send(0, b"lo")
        assert await client.receive() == (PONG, b"are you there?")
        opcode, payload = await client.receive()
        assert (opcode, json.loads(payload)["text"]) == (TEXT, "hello")


async def test_nothing_is_compressed(instance: Instance) -> None:
    async with GoFrontend(instance.base_url, compress=15) as frontend:
        assert frontend.socket.compress == 0


# ---- errors close


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        ("x" * 4096, 1009, "4096"),
        ('{"text":"' + "x" * 4060 + '"}', 1009, "4096"),
        ("", 1008, "text: "),
        (" \n ", 1008, "text: "),
        ('""', 1008, "text: "),
        ("{}", 1008, "text: "),
        ('{"text":5}', 1008, "text: "),
        ('{"text":"a","uid":5}', 1008, "uid: "),
        ('{"text":"a","title":"' + "t" * 129 + '"}', 1008, "title: "),
        ('{"text":"a","date":"yesterday"}', 1008, "date: "),
        ('{"text":"a","nonce":""}', 1008, "nonce: "),
        ("a\0b", 1008, "text: "),
        ('{"text":"\\ud800"}', 1008, "text: "),
        ('{"text":"a","x":1e400}', 1008, "x: "),
        ('{"text":"a","x":' + "[" * 40 + "]" * 40 + "}", 1008, "nested"),
        ('{"x":' * 20_000, 1008, "nested"),
        ('{"text":"a","' + "\u20ac" * 100 + '":"\\u0000"}', 1008, "\u20ac" * 41),
        (b"binary", 1008, "text frame"),
        (b"", 1008, "text frame"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_frame_that_cannot_be_a_message_closes(
    instance: Instance, frame: str | bytes, code: int, reason: str
) -> None:
    async with GoFrontend(instance.base_url) as witness, GoFrontend(instance.base_url) as frontend:
        await frontend.send_raw(frame)
        assert await frontend.wait_closed(within=5) == code
        assert reason in (frontend.close_reason or "")
        [after] = await publish(instance, "after")
        await witness.wait_for(last=after)
        assert witness.ids == [after]
        assert not witness.closed


@pytest.mark.parametrize("size", [FRAME_LIMIT + 1, 4 * FRAME_LIMIT])
async def test_a_frame_that_is_not_even_read_closes(instance: Instance, size: int) -> None:
    async with GoFrontend(instance.base_url) as witness, GoFrontend(instance.base_url) as frontend:
        with suppress(ConnectionError):
            await frontend.send_raw("x" * size)
        # The rest of the frame comes in vain: TCP answers it with a reset, which may overtake the code.
        assert await frontend.wait_closed(within=5) in (1009, 1006)
        [after] = await publish(instance, "after")
        await witness.wait_for(last=after)
        assert witness.ids == [after]


async def test_what_came_before_a_bad_frame_is_stored_and_what_came_after_is_not(
    instance: Instance,
) -> None:
    async with GoFrontend(instance.base_url) as witness, GoFrontend(instance.base_url) as frontend:
        for frame in ("one", "two", "{}", "three"):
            await frontend.send_raw(frame)
        assert await frontend.wait_closed() == 1008
        [after] = await publish(instance, "after")
        await witness.wait_for(last=after)
        assert [message["text"] for message in witness.messages] == ["one", "two", "after"]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(0x80, TEXT, b"\xff")], 1007),
        ([(0x80, TEXT, b'{"text":"caf\xe9"}')], 1007),
        ([(0x80, TEXT, b"\xed\xa0\x80")], 1007),
        ([(0x00, TEXT, b"caf\xc3"), (0x80, 0, b"(")], 1007),
        ([(0x80, 0x3, b"")], 1002),  # there is no such opcode
        ([(0xC0, TEXT, b"compressed?")], 1002),
        ([(0x00, PING, b"half a ping")], 1002),
    ],
)
async def test_bytes_that_are_no_frame_or_no_text_close(
    instance: Instance, frames: list[tuple[int, int, bytes]], code: int
) -> None:
    async with GoFrontend(instance.base_url) as witness, RawClient(instance.port) as client:
        for head, opcode, payload in frames:
            client.send(opcode, payload, head=head)
        assert (await client.receive_close())[0] == code
        [after] = await publish(instance, "after")
        await witness.wait_for(last=after)
        assert witness.ids == [after]


async def test_a_fragment_may_end_within_a_character(instance: Instance) -> None:
    async with RawClient(instance.port) as client:
        client.send(TEXT, b"caf\xc3", head=0)
        client.send(0, b"\xa9")
        _, payload = await client.receive()
        assert json.loads(payload)["text"] == "caf\u00e9"


async def test_a_client_that_vanishes_takes_nothing_down(instance: Instance) -> None:
    async with GoFrontend(instance.base_url) as witness:
        for number in range(5):
            async with RawClient(instance.port) as client:
                client.send(TEXT, b"%d" % number)
                if number % 2:
                    client.send(TEXT, b"half", head=0)
        [after] = await publish(instance, "after")
        await witness.wait_for(last=after)

        async def gone() -> bool:
            return (await instance.metrics())['ditochat_connections{transport="ws"}'] == 1

        await eventually(gone, within=5, otherwise=lambda: "they are counted still")
        assert not witness.closed


# ---- before the upgrade


@pytest.mark.parametrize("after", ["", "-1", "x", "1.5", " 1", "\u0663", "9" * 17, "9" * 5000])
async def test_a_bad_position_is_refused_before_the_upgrade(instance: Instance, after: str) -> None:
    headers = {
        "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": b64encode(bytes(16)).decode(),
    }  # fmt: skip
    async with (
        instance.http() as http,
        http.get("/ws", params={"after": after}, headers=headers) as answer,
    ):
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        document = await answer.json(content_type=None)
        assert (document["code"], document["field"]) == ("invalid", "after")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "8"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
         "Sec-WebSocket-Key": "short"},
        {"Upgrade": "h2c", "Connection": "Upgrade"},
    ],
    ids=["a page", "no version", "another version", "a bad key", "another protocol"],
)  # fmt: skip
async def test_what_is_no_handshake_is_refused(instance: Instance, headers: dict[str, str]) -> None:
    async with instance.http() as http, http.get("/ws", headers=headers) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        assert "WebSocket" in (await answer.json(content_type=None))["detail"]


async def test_another_page_may_not_connect(instance: Instance) -> None:
    for origin in ("http://other.example", "null"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await GoFrontend(instance.base_url, origin=origin).open()
        assert refused.value.status == 403
    async with GoFrontend(instance.base_url, origin=instance.base_url) as frontend:
        await frontend.send("hello", date="2026-01-31")
        await frontend.wait_for(count=1)


# ---- coming back


async def test_a_replay_is_what_was_missed_and_then_live(instance: Instance) -> None:
    ids = await publish(instance, *"abcdef")
    position = {"after": str(ids[2]), "epoch": await epoch_of(instance)}
    for params in (position, {"after": position["after"]}):
        async with GoFrontend(instance.base_url, params=params) as frontend:
            [live] = await publish(instance, "live")
            await frontend.wait_for(last=live)
            assert frontend.ids == list(range(ids[2] + 1, live + 1))


async def test_who_missed_nothing_is_replayed_nothing(instance: Instance) -> None:
    [newest] = await publish(instance, "newest")
    async with GoFrontend(instance.base_url, params={"after": str(newest)}) as frontend:
        await publish(instance, "live")
        await frontend.wait_for(count=1)
        assert frontend.ids == [newest + 1]


async def test_without_a_position_nothing_is_replayed(instance: Instance) -> None:
    await publish(instance, "before")
    for params in (None, {"epoch": "whatever"}):
        async with GoFrontend(instance.base_url, params=params) as frontend:
            live = await publish(instance, "live")
            await frontend.wait_for(count=1)
            assert frontend.ids == live


async def test_joining_while_messages_flow_loses_and_doubles_nothing(instance: Instance) -> None:
    [before] = await publish(instance, "before")
    everything = list(range(before + 1, before + 301))

    async def flow() -> None:
        async with GoFrontend(instance.base_url) as sender:
            for number in range(300):
                await sender.send_raw(f"message {number}")
            await sender.wait_for(last=everything[-1])

    async def join_and_leave() -> None:
        ids = [before]
        while ids[-1] < everything[-1]:
            async with GoFrontend(instance.base_url, params={"after": str(ids[-1])}) as frontend:
                await frontend.wait_for(count=20 if ids[-1] + 20 < everything[-1] else 1)
            ids += frontend.ids
        assert ids[1:] == everything

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flow())
        for _ in range(8):
            tasks.create_task(join_and_leave())


async def test_where_a_replay_is_not_possible_all_that_is_known_is_sent(
    instances: StartInstances,
) -> None:
    [small] = await instances(HISTORY_LIMIT=5)
    ids = await publish(small, *"abcdefghij")
    epoch = await epoch_of(small)
    for params in (
        {"after": "9", "epoch": "another"},
        {"after": "0", "epoch": "another"},
        {"after": "2", "epoch": epoch},
        {"after": "4"},
        {"after": "10000", "epoch": epoch},
    ):
        async with GoFrontend(small.base_url, params=params) as frontend:
            await frontend.wait_for(last=ids[-1])
            assert frontend.ids == [6, 7, 8, 9, 10], params
    async with GoFrontend(small.base_url, params={"after": "5", "epoch": epoch}) as frontend:
        await frontend.wait_for(last=ids[-1])
        assert frontend.ids == [6, 7, 8, 9, 10]


async def test_a_replay_may_exceed_the_send_buffer(instances: StartInstances) -> None:
    [instance] = await instances(SEND_BUFFER_BYTES=65536)
    async with GoFrontend(instance.base_url) as sender:
        for _ in range(300):
            await sender.send_raw("x" * 3900)
        await sender.wait_for(count=300)
    async with GoFrontend(instance.base_url, params={"after": "0"}) as frontend:
        live = await publish(instance, *("live " + "x" * 3900 for _ in range(20)))
        await frontend.wait_for(last=live[-1])
        assert frontend.ids == list(range(1, 321))
        assert max(map(len, frontend.frames)) < 100_000


async def test_when_the_log_starts_over_who_gave_a_position_is_told(
    instances: StartInstances, redis_server: RedisServer
) -> None:
    [instance] = await instances()
    ids = await publish(instance, "one", "two", "three")
    position = {"after": str(ids[-1]), "epoch": await epoch_of(instance)}
    async with (
        GoFrontend(instance.base_url) as plain,
        GoFrontend(instance.base_url, params=position) as resuming,
        GoFrontend(instance.base_url, params={"after": "0"}) as other,
    ):
        async with redis_server.client() as redis:
            await redis.flushall()
        for frontend in (resuming, other):
            assert await frontend.wait_closed(within=5) == 1013
        again = await publish(instance, "again")
        assert again == [1]
        await plain.wait_for(count=1)
        assert [message["text"] for message in plain.messages] == ["again"]
        await resuming.open()  # with the old position
        await resuming.wait_for(count=1)
        assert [message["text"] for message in resuming.messages] == ["again"]


# ---- slow clients


async def flood(sender: GoFrontend) -> None:
    """Send more than the buffers of a client and of TCP hold (4 MB on Linux), as fast as the sender reads."""
    sent = len(sender.ids)
    for number in range(1, 451):
        await sender.send_raw("x" * 12_000)
        await sender.wait_for(count=sent + number)


async def test_a_slow_client_is_closed_and_costs_the_others_nothing(instances: StartInstances) -> None:
    [instance] = await instances(SEND_BUFFER_BYTES=65536, MAX_MESSAGE_BYTES=60_000)
    async with GoFrontend(instance.base_url) as other, RawClient(instance.port) as slow:
        await flood(other)
        ids = other.ids
        assert ids == list(range(1, 451))
        assert (await instance.metrics())["ditochat_slow_clients_closed_total"] == 1
        received: list[Any] = []
        while True:  # reading again, it gets what was written already, and is then told why it ends
            opcode, payload = await slow.receive()
            if opcode == CLOSE:
                break
            received += [json.loads(piece)["id"] for piece in payload.split(b"\n")]
        code, reason = close_reason(payload)
        assert code == 1013
        assert "waiting" in reason
        assert received == ids[: len(received)]
        assert len(received) < len(ids)
        missed = {"after": str(received[-1])}
        async with GoFrontend(instance.base_url, params=missed) as again:
            await again.wait_for(last=ids[-1])
            assert received + again.ids == ids


# ---- Redis away


async def test_a_publish_while_redis_is_briefly_away_is_stored_once(
    instances: StartInstances, redis_server: RedisServer
) -> None:
    [instance] = await instances()
    async with GoFrontend(instance.base_url) as frontend, GoFrontend(instance.base_url) as other:
        await frontend.send_raw("before")
        await frontend.wait_for(count=1)
        await redis_server.kill()
        for number in range(3):
            await frontend.send_raw(f"meanwhile {number}")
        await other.send_raw("from the other")
        await redis_server.start()
        [after] = await publish(instance, "after")
        for client in (frontend, other):
            await client.wait_for(lambda one: len(one.ids) >= 6, last=after, within=10)
            assert client.ids == [1, 2, 3, 4, 5, 6]
            assert not client.closed
        texts = [message["text"] for message in frontend.messages]
        assert sorted(texts) == sorted(
            ["before", "meanwhile 0", "meanwhile 1", "meanwhile 2", "from the other", "after"]
        )
        assert [text for text in texts if "meanwhile" in text] == [f"meanwhile {n}" for n in range(3)]


async def test_when_redis_is_away_for_long_who_waits_for_it_is_told(
    instances: StartInstances, redis_server: RedisServer
) -> None:
    [instance] = await instances()
    await publish(instance, "before")
    async with GoFrontend(instance.base_url) as waiting, GoFrontend(instance.base_url) as idle:
        redis_server.pause()
        begin = time.monotonic()
        await waiting.send_raw("lost, perhaps")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            # Only Redis knows whether there is such a position.
            await GoFrontend(instance.base_url, params={"after": "1000"}).open()
        assert refused.value.status == 503
        assert 9 < time.monotonic() - begin < 12
        assert await waiting.wait_closed(within=5) == 1013
        assert "Redis" in (waiting.close_reason or "")
        assert 10 < time.monotonic() - begin < 13

        async def unready() -> bool:
            return not await instance.ready()

        await eventually(unready, within=3, otherwise=lambda: instance.explain("is ready"))
        redis_server.resume()
        await eventually(instance.ready, within=5, otherwise=lambda: instance.explain("is not ready"))
        [after] = await publish(instance, "after")
        await idle.wait_for(last=after)
        assert not idle.closed
        assert idle.ids == list(range(2, after + 1))
        assert after <= 3


# ---- stopping


async def test_at_a_stop_clients_are_sent_away(instances: StartInstances) -> None:
    [instance] = await instances(DRAIN_SECONDS=2)
    frontends = [GoFrontend(instance.base_url) for _ in range(5)]
    for frontend in frontends:
        await frontend.open()
    [last] = await publish(instance, "last")
    stopping = asyncio.create_task(instance.terminate(within=10))
    closing = [asyncio.create_task(frontend.wait_closed()) for frontend in frontends]
    await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await GoFrontend(instance.base_url).open()
    assert refused.value.status == 503
    assert await asyncio.gather(*closing) == [1001] * 5
    for frontend in frontends:
        assert "shutting down" in (frontend.close_reason or "")
        assert frontend.ids == [last]
        await frontend.close()
    assert await stopping == 0


# ---- heartbeat, and other clocks that a test has to turn forward


def open_files() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208


async def test_who_answers_pings_stays_and_who_does_not_is_closed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.1)
    monkeypatch.setattr(websocket, "PONG_WAIT_SECONDS", 0.5)
    async with in_process(redis_server) as at, GoFrontend(at.base_url) as answering:
        for _ in range(2):
            pings = 0
            begin = time.monotonic()
            async with RawClient(at.port) as silent:
                while (frame := await silent.receive())[0] == PING:
                    pings += 1
            opcode, payload = frame
            assert opcode == CLOSE
            code, reason = close_reason(payload)
            assert (code, "no pong" in reason) == (1001, True)
            assert pings >= 3
            assert time.monotonic() - begin >= 0.5
        await answering.send_raw("still here")
        await answering.wait_for(count=1)
        assert not answering.closed


async def test_what_a_client_sends_is_no_pong(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.1)
    monkeypatch.setattr(websocket, "PONG_WAIT_SECONDS", 0.5)
    async with in_process(redis_server) as at, RawClient(at.port) as client:
        while True:
            opcode, payload = await client.receive()
            if opcode == CLOSE:
                break
            if opcode == PING:
                client.send(TEXT, b"hello")
        assert close_reason(payload)[0] == 1001


async def test_pongs_that_wait_behind_a_publish_count(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.2)
    monkeypatch.setattr(websocket, "PONG_WAIT_SECONDS", 0.5)
    async with in_process(redis_server) as at, GoFrontend(at.base_url) as waiting:
        redis_server.pause()
        await waiting.send_raw("hello")
        for _ in range(2):  # so much time passes
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(f"{at.base_url}/ws", autoping=False) as silent,
            ):
                while (await silent.receive(5)).type is WSMsgType.PING:
                    pass
                assert silent.close_code == 1001
        redis_server.resume()
        await waiting.wait_for(lambda one: bool(one.ids) or one.closed)
        assert [message["text"] for message in waiting.messages] == ["hello"]
        assert not waiting.closed


async def test_pings_come_in_the_middle_of_a_long_replay(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.1)
    async with in_process(redis_server, MAX_MESSAGE_BYTES=60_000) as at:
        async with GoFrontend(at.base_url) as sender:
            for _ in range(200):
                await sender.send_raw("x" * 50_000)
            await sender.wait_for(count=200)
        async with RawClient(at.port, "/ws?after=0") as slow:
            messages = 0
            while (frame := await slow.receive())[0] == TEXT:
                messages += frame[1].count(b"\n") + 1
                await asyncio.sleep(0.01)  # what makes it slow
            assert frame[0] == PING
            assert messages < 200


async def test_a_slow_client_that_never_reads_again_is_cut_off(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)
    async with (
        in_process(redis_server, MAX_MESSAGE_BYTES=60_000, SEND_BUFFER_BYTES=65_536) as at,
        RawClient(at.port),
        GoFrontend(at.base_url) as other,
    ):
        await other.send_raw("so that all connections are open")
        await other.wait_for(count=1)
        before = open_files()
        await flood(other)

        async def closed() -> bool:
            return open_files() == before - 1

        await eventually(closed, within=5, otherwise=lambda: f"{open_files()} are open, {before} were")
        assert not other.closed
