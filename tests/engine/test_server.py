"""The server in this process, on real sockets: nothing is lost on the way, and nothing is left behind."""

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from ditochat.engine import server as server_module
from ditochat.engine.door import Door, Handshake
from ditochat.engine.http import EngineHttp, websocket_session
from ditochat.engine.server import Burst, Connection, EngineServer, EngineSocket, Outgoing
from ditochat.engine.websocket import accept_response, handshake_key
from tests.engine.front import serve_front
from tests.harness.loop import timers
from tests.harness.raw_client import RawHttp, RawWebSocket
from tests.harness.waiting import until

POLLING = "/?EIO=4&transport=polling"
WEBSOCKET = "/?EIO=4&transport=websocket"
CLOSE, PING, PONG = 8, 9, 10


class Server:
    """An engine that keeps record of what it hears."""

    def __init__(self, **options: float) -> None:
        self.engine = EngineServer(**options)  # type: ignore[arg-type]  # its numbers
        self.port = 0
        self.opened: list[str] = []
        self.received: list[str | bytes] = []
        self.ended: dict[str, str] = {}
        self.on_message: Callable[[str], None] = lambda sid: None
        self.engine.on("connect", self.opened.append)
        self.engine.on("message", self._hear)
        self.engine.on("disconnect", self._end)

    def _hear(self, sid: str, data: str | bytes) -> None:
        self.received.append(data)
        self.on_message(sid)

    def _end(self, sid: str, reason: str) -> None:
        assert sid not in self.ended, "a session ends once"
        self.ended[sid] = reason

    def say(self, sid: str, *texts: str) -> None:
        self.engine.put(sid, Burst([Outgoing(text) for text in texts]))

    async def has_ended(self, sid: str) -> str:
        await until(lambda: sid in self.ended)
        return self.ended[sid]


@asynccontextmanager
async def served(**options: float) -> AsyncIterator[Server]:
    made = Server(**options)
    app = web.Application(client_max_size=2_000_000)
    app.router.add_route("*", "/", EngineHttp(made.engine).handle)

    def open_websocket(handshake: Handshake) -> tuple[asyncio.Protocol, bytes] | None:
        query = parse_qs(urlsplit(handshake.target.decode()).query)
        key = handshake_key(handshake.method, handshake.headers)
        session = websocket_session(made.engine, {name: values[0] for name, values in query.items()})
        return None if key is None or session is None else (session[0], accept_response(key) + session[1])

    async with serve_front(app, open_websocket) as (made.port, _):
        yield made


class Client:
    """A session that begins with polling: GETs on one connection, POSTs on another."""

    def __init__(self, gets: RawHttp, posts: RawHttp) -> None:
        self.gets = gets
        self.posts = posts
        self.sid = ""
        self.packets: list[str] = []

    @property
    def target(self) -> str:
        return f"{POLLING}&sid={self.sid}"

    async def post(self, *texts: str) -> None:
        answer = await self.posts.request(
            "POST", self.target, "\x1e".join(f"4{text}" for text in texts).encode()
        )
        assert (answer.status, answer.body) == (200, b"ok")

    async def get(self) -> bytes:
        answer = await self.gets.request("GET", self.target)
        assert answer.status == 200
        return self.keep(answer.body)

    async def refused(self) -> bool:
        return (await self.gets.request("GET", self.target)).status == 400

    async def hold(self) -> None:
        """Return when the server holds a GET."""
        self.gets.send_request("GET", self.target)
        assert (await self.posts.request("POST", self.target, b"3")).status == 200

    async def held(self) -> bytes:
        return self.keep((await self.gets.answer()).body)

    def keep(self, body: bytes) -> bytes:
        self.packets += [packet for packet in body.decode().split("\x1e") if packet != "6"]
        return body


@asynccontextmanager
async def polling(at: Server) -> AsyncIterator[Client]:
    async with await RawHttp.open(at.port) as gets, await RawHttp.open(at.port) as posts:
        client = Client(gets, posts)
        client.sid = json.loads((await gets.request("GET", POLLING)).body[1:])["sid"]
        yield client


@asynccontextmanager
async def websocket(at: Server, sid: str | None = None) -> AsyncIterator[tuple[RawWebSocket, str]]:
    async with await RawHttp.open(at.port) as http:
        answer = await http.handshake(WEBSOCKET if sid is None else f"{WEBSOCKET}&sid={sid}")
        assert answer.status == 101
        socket = RawWebSocket(http)
        if sid is None:
            sid = json.loads(str(await socket.packet())[1:])["sid"]
        yield socket, sid


async def probed(socket: RawWebSocket) -> None:
    socket.say("2probe")
    assert await socket.packet() == "3probe"


async def test_a_session_that_ends_during_an_upgrade_says_so_once_the_client_has_moved() -> None:
    """Before that engine.io-client has stopped polling, and overlooks the end of the WebSocket that it moves to."""
    async with served() as at, polling(at) as client, websocket(at, client.sid) as (socket, _):
        await probed(socket)
        at.engine.close(client.sid, abort=True)
        assert at.ended == {client.sid: "server disconnect"}
        socket.send(PING, b"?")
        assert await socket.frame() == (PONG, b"?")
        socket.say("5")
        assert await socket.close_code() == 1000


# ---- nothing lost, nothing overtaken


@pytest.mark.parametrize("seed", range(6))
async def test_bursts_both_ways_while_moving_arrive_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's dice
    ours = iter([f"s{number}" for number in range(200)])
    theirs = iter([f"c{number}" for number in range(200)])

    def some(texts: Iterator[str], most: int) -> list[str]:
        return [text for _, text in zip(range(chance.randint(1, most)), texts, strict=False)]

    async with served() as at, polling(at) as client:

        def burst(most: int = 40) -> None:
            texts = some(ours, most)
            if texts:
                at.say(client.sid, *texts)

        at.on_message = lambda sid: burst(3) if chance.random() < 0.3 else None
        for _ in range(chance.randint(0, 3)):
            burst()
            await client.post(*some(theirs, 30))
            if chance.random() < 0.5:
                await client.get()
        async with websocket(at, client.sid) as (socket, _):
            holding = chance.random() < 0.5 and not at.engine.connections[client.sid].queue
            if holding:
                await client.hold()
            burst()
            if holding:
                await client.held()
            await probed(socket)
            burst()
            await client.post(*some(theirs, 30))
            assert await client.get() == b"6"
            burst()
            socket.say("5", *(f"4{text}" for text in theirs))
            burst()
            await until(lambda: at.engine.transport(client.sid) == "websocket")
            burst(200)
            at.say(client.sid, *ours)
            await until(lambda: len(at.received) == 200)
            moved = await socket.packets(200 - len(client.packets))
        assert client.packets + moved == [f"4s{number}" for number in range(200)]
        assert at.received == [f"c{number}" for number in range(200)]


async def test_all_that_is_said_in_one_turn_comes_with_one_poll() -> None:
    async with served() as at, polling(at) as client:
        await client.hold()
        at.say(client.sid, "a")
        at.say(client.sid, "b", "c")
        assert await client.held() == b"4a\x1e4b\x1e4c"


@pytest.mark.parametrize("abort", [True, False])
async def test_a_post_whose_session_ends_before_its_body_is_refused(abort: bool) -> None:
    async with served() as at, polling(at) as client:
        expecting = {"Expect": "100-continue", "Content-Length": "7"}
        client.posts.send_request("POST", client.target, headers=expecting)
        assert (await client.posts.answer(bodiless=True)).status == 100  # the request is being served
        client.posts.send(b"4to")
        at.engine.close(client.sid, abort=abort)
        client.posts.send(b"late")
        answer = await client.posts.answer()
        assert (answer.status, answer.body) == (400, b"no session to post to")
        assert at.received == []


# ---- nothing left behind


def living() -> int:
    gc.collect()
    return sum(isinstance(one, (Connection, EngineSocket, Door)) for one in gc.get_objects())


async def come_and_go_on_websocket(at: Server, way: int) -> None:
    async with websocket(at) as (socket, _):
        if way == 0:
            socket.http.reset()
        elif way == 1:
            socket.send(CLOSE, b"\x03\xe8")
            await socket.http.ended()
        elif way == 2:
            socket.say("1")
            assert await socket.close_code() == 1000


async def come_and_go_polling(at: Server, way: int) -> None:
    async with polling(at) as client:
        if way == 0:
            assert (await client.posts.request("POST", client.target, b"1")).status == 200
        elif way == 1:
            assert (await client.posts.request("POST", client.target, b"bad")).status == 400
        elif way == 2:
            await client.hold()
            client.gets.reset()
        else:
            async with websocket(at, client.sid) as (socket, _):
                await probed(socket)
                if way == 3:
                    socket.say("5", "4moved")
                    await until(lambda: at.engine.connections[client.sid].on_websocket)
            if way == 4:
                assert (await client.posts.request("POST", client.target, b"1")).status == 200


async def test_a_thousand_comings_and_goings_leave_nothing() -> None:
    async with served(ping_interval=2.0, ping_timeout=2.0) as at:
        async with websocket(at):
            pass
        await until(lambda: not at.engine.connections)
        tasks, scheduled, objects = len(asyncio.all_tasks()), timers(), living()
        for batch in range(20):
            async with asyncio.TaskGroup() as group:
                for number in range(25):
                    group.create_task(come_and_go_on_websocket(at, number % 4))
                    group.create_task(come_and_go_polling(at, number % 5))
            await until(lambda: not at.engine.connections)
            assert len(at.opened) == len(at.ended) == 1 + 50 * (batch + 1)
        engine = at.engine
        # A timer that waits for nobody any more is allowed to run once.
        await until(lambda: timers() <= scheduled)
        assert engine.unfinished == 0
        wheels = (engine._heartbeats, engine._deadlines, engine._upgrades)  # noqa: SLF001 - what is left behind
        assert [len(wheel) for wheel in wheels] == [0, 0, 0]
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: living() <= objects)


@pytest.mark.parametrize("end", ["moved", "aborted", "refused"])
async def test_an_upgrade_that_is_over_leaves_no_deadline(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(server_module, "UPGRADE_SECONDS", 3600.0)
    async with served() as at:
        objects = living()
        async with polling(at) as client, websocket(at, client.sid) as (socket, _):
            if end == "moved":
                await probed(socket)
                socket.say("5", "1")
            elif end == "aborted":
                socket.http.reset()
            else:
                socket.say("no probe")
                assert await socket.close_code() == 1000
            await client.posts.request("POST", client.target, b"1")
            await at.has_ended(client.sid)
        await until(lambda: living() <= objects)


# ---- deadlines


async def test_a_deadline_closes_and_one_that_is_dropped_does_not() -> None:
    async with (
        served() as at,
        websocket(at) as (socket, sid),
        websocket(at) as (other, kept),
        polling(at) as third,
    ):
        await third.hold()
        at.engine.set_deadline(kept, 0.2)
        at.engine.set_deadline(sid, 0.3)
        at.engine.set_deadline(third.sid, 0.3)
        at.engine.drop_deadline(kept)
        assert await socket.close_code() == 1000
        assert await third.held() == b"1"
        assert at.ended == {sid: "transport close", third.sid: "transport close"}
        other.say("4still here")
        await until(lambda: at.received == ["still here"])
        assert at.engine.is_open(kept)


async def test_a_deadline_moves() -> None:
    async with served() as at, websocket(at) as (socket, sid):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        at.engine.set_deadline(sid, 0.01)
        at.engine.set_deadline(sid, 0.6)
        assert await socket.close_code() == 1000
        assert loop.time() - begun >= 0.6


async def test_deadlines_of_nobody_are_nothing() -> None:
    async with served() as at:
        at.engine.set_deadline("nobody", 1)
        at.engine.drop_deadline("nobody")
        at.engine.close("nobody")
        assert at.engine.put("nobody", Burst([Outgoing("a")])) == 0


# ---- closing


async def test_close_on_a_websocket_sends_what_was_said_before() -> None:
    async with served() as at, websocket(at) as (socket, sid):
        at.say(sid, *(str(number) for number in range(50)))
        at.engine.close(sid)
        at.say(sid, "too late")
        assert await socket.packets(50) == [f"4{number}" for number in range(50)]
        assert await socket.close_code() == 1000
        assert at.ended == {sid: "server disconnect"}


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("held", [True, False])
async def test_close_while_polling_delivers_what_waits_and_then_close(count: int, held: bool) -> None:
    async with served() as at, polling(at) as client:
        if held:
            await client.hold()
        if count:
            at.say(client.sid, *(str(number) for number in range(count)))
        at.engine.close(client.sid)
        at.say(client.sid, "too late")
        assert at.ended == {client.sid: "server disconnect"}
        assert not at.engine.is_open(client.sid)
        if held:
            await client.held()
        last = b""
        while "1" not in client.packets:
            last = await client.get()
        # By itself: socket.io-client would drop what comes in one payload with it.
        assert last in (b"", b"1")
        assert client.packets == [*(f"4{number}" for number in range(count)), "1"]
        assert await client.refused()
        assert at.engine.unfinished == 0


async def test_a_client_that_polls_slowly_still_gets_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LAST_POLL_SECONDS", 0.5)
    async with served() as at, polling(at) as client:
        at.say(client.sid, *(str(number) for number in range(16 * 6)))
        at.engine.close(client.sid)
        while "1" not in client.packets:
            await asyncio.sleep(0.2)  # its network: each poll is in time, all together are not
            await client.get()
        assert client.packets == [*(f"4{number}" for number in range(16 * 6)), "1"]


async def test_a_client_that_does_not_poll_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LAST_POLL_SECONDS", 0.1)
    async with served() as at, polling(at) as client:
        at.say(client.sid, "a")
        at.engine.close(client.sid)
        assert at.engine.unfinished == 1
        await until(lambda: at.engine.unfinished == 0)
        assert await client.refused()


async def test_close_during_the_upgrade_delivers_what_waits_on_the_websocket() -> None:
    async with served() as at, polling(at) as client, websocket(at, client.sid) as (socket, _):
        await probed(socket)
        at.say(client.sid, "a", "b")
        at.engine.close(client.sid)
        assert await client.get() == b"6"
        socket.say("5")
        assert await socket.packets(2) == ["4a", "4b"]
        assert await socket.close_code() == 1000
        assert at.ended == {client.sid: "server disconnect"}
        assert at.engine.unfinished == 0


async def test_close_during_an_upgrade_that_is_given_up_delivers_by_polling() -> None:
    async with served() as at, polling(at) as client:
        async with websocket(at, client.sid) as (socket, _):
            await probed(socket)
            at.say(client.sid, "a", "b")
            at.engine.close(client.sid)
            assert await client.get() == b"6"
            socket.send(CLOSE, b"\x03\xe8")
            assert await socket.close_code() == 1000
        assert await client.get() == b"4a\x1e4b"
        assert await client.get() == b"1"
        assert await client.refused()


async def test_abort_on_a_websocket_throws_away_what_waits() -> None:
    async with served() as at, websocket(at) as (socket, sid):
        for _ in range(40):
            at.say(sid, "x" * 500_000)
        at.engine.close(sid, abort=True)
        assert at.ended == {sid: "server disconnect"}
        with suppress(ConnectionResetError):
            assert len(await socket.http.ended()) < 40 * 500_000


async def test_abort_while_polling_ends_the_session_at_once() -> None:
    async with served() as at, polling(at) as client, polling(at) as holding:
        await holding.hold()
        for one in (client, holding):
            at.say(one.sid, "a")
            at.engine.close(one.sid, abort=True)
        assert await holding.held() == b"1"
        assert await client.refused()
        assert at.engine.unfinished == 0


async def test_close_all_ends_every_session() -> None:
    async with served() as at, AsyncExitStack() as stack:
        sockets = [(await stack.enter_async_context(websocket(at)))[0] for _ in range(5)]
        clients = [await stack.enter_async_context(polling(at)) for _ in range(5)]
        for client in clients:
            await client.hold()
        assert at.engine.transport_counts() == {"websocket": 5, "polling": 5}
        at.engine.close_all()
        assert [await socket.close_code() for socket in sockets] == [1000] * 5
        assert [await client.held() for client in clients] == [b"1"] * 5
        assert at.engine.transport_counts() == {"websocket": 0, "polling": 0}


async def test_an_upgrade_that_is_never_finished_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "UPGRADE_SECONDS", 0.2)
    async with served() as at, polling(at) as client:
        async with websocket(at, client.sid) as (silent, _):
            assert await silent.close_code() == 1000
        async with websocket(at, client.sid) as (socket, _):
            await probed(socket)
            at.say(client.sid, "a")
            assert await client.get() == b"6"
            assert await socket.close_code() == 1000
        assert await client.get() == b"4a"
        assert at.ended == {}


# ---- the numbers that others rely on


async def test_put_tells_how_much_waits() -> None:
    async with served() as at, polling(at) as client:
        one = Burst([Outgoing("x" * 1000)])
        first = at.engine.put(client.sid, one)
        assert 1000 <= first < 1020
        assert at.engine.put(client.sid, one) == 2 * first
        await client.get()
        assert at.engine.connections[client.sid].queued_bytes == 0


async def test_put_to_a_websocket_that_is_not_read_from_tells_how_much_waits() -> None:
    async with served() as at, websocket(at) as (socket, sid):
        socket.http.writer.transport.pause_reading()  # type: ignore[attr-defined]
        one = Burst([Outgoing("x" * 100_000)])
        waiting = [at.engine.put(sid, one) for _ in range(300)]
        assert waiting[-1] > 10_000_000
        socket.http.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await socket.packets(300)) == 300


async def test_handlers_in_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="async_handlers=False"):
        EngineServer(async_handlers=True)
