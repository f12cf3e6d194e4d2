"""The harness is worth something if it works with a server that is not ours: stock python-socketio."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import socketio
from aiohttp import WSMsgType, web

from tests.harness.go_frontend import GoFrontend
from tests.harness.instance import Instance, _log_line, _sample_key
from tests.harness.js_clients import JsClients, JsError
from tests.harness.ports import HOST, free_port
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

TRANSPORTS = pytest.mark.parametrize(
    "transports", [["polling"], ["websocket"], None], ids=["polling", "websocket", "upgrade"]
)


class StockChat:
    """A chat in a few lines, with the SPEC's events and the stock server's transport."""

    def __init__(self, *, always_connect: bool = True) -> None:
        self.epoch = "first"
        self.messages: list[dict[str, Any]] = []
        self.received: list[tuple[Any, ...]] = []
        self.auths: list[Any] = []
        self.names = itertools.count(1)
        self.sio = socketio.AsyncServer(async_mode="aiohttp", always_connect=always_connect)
        self.sio.on("connect", self._connect)
        self.sio.on("message", self._message)
        self.sio.on("*", self._anything)
        self.app = web.Application()
        self.sio.attach(self.app)
        self.app.router.add_get("/messages", self._history)
        self.app.router.add_get("/ws", self._websocket)
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def say(self, *texts: str) -> None:
        for text in texts:
            message = {"id": len(self.messages) + 1, "text": text}
            self.messages.append(message)
            await self.sio.emit("message", message)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        self.auths.append(auth)
        if auth == {"allowed": False}:
            raise socketio.exceptions.ConnectionRefusedError("no", {"code": "invalid"})
        after = (auth or {}).get("after")
        recovered = None if after is None else auth["epoch"] == self.epoch
        session = {"epoch": self.epoch, "last_id": len(self.messages), "recovered": recovered}
        await self.sio.emit("session", session, to=sid)
        if recovered:
            for message in self.messages[after:]:
                await self.sio.emit("message", message, to=sid)

    async def _message(self, sid: str, message: Any) -> dict[str, Any]:
        self.received.append((message,))
        id_ = len(self.messages) + 1
        await self.say(message["text"])
        return {"ok": True, "id": id_, "duplicate": False}

    async def _anything(self, event: str, sid: str, *args: Any) -> Any:
        self.received.append((event, *args))
        return args[0] if args else None

    async def _history(self, request: web.Request) -> web.Response:
        return web.json_response(self.messages[::-1])

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                if frame.data == "close":
                    await socket.close(code=1008, message=b"told to")
                    break
                await socket.send_str('{"id":1,"text":"one"}\n{"id":2,"text":"two"}')
        return socket


@asynccontextmanager
async def serving(chat: StockChat) -> AsyncIterator[StockChat]:
    runner = web.AppRunner(chat.app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, chat.port).start()
    try:
        yield chat
    finally:
        await chat.sio.shutdown()
        await runner.cleanup()


@pytest.fixture
async def chat() -> AsyncIterator[StockChat]:
    async with serving(StockChat()) as chat:
        yield chat


class TestJsClients:
    @TRANSPORTS
    async def test_connects_and_gets_messages_in_order(
        self, chat: StockChat, js_clients: JsClients, transports: list[str] | None
    ) -> None:
        client = await js_clients.connect(chat.url, transports=transports)
        await client.wait_for(transport="polling" if transports == ["polling"] else "websocket", sessions=1)
        await chat.say(*"abcde")
        assert await client.wait_for_ids(5) == [1, 2, 3, 4, 5]
        assert await client.messages() == chat.messages
        assert await client.order() == ["connect", "session", *(f"message:{id_}" for id_ in range(1, 6))]
        state = await client.state()
        assert state.connected
        assert state.raw_ids == state.ids
        assert (state.epoch, state.newest, state.duplicates_dropped) == ("first", 5, 0)
        assert [connect["auth"] for connect in state.connects] == chat.auths == [None]

    @TRANSPORTS
    @pytest.mark.parametrize("reset", [False, True], ids=["eof", "reset"])
    async def test_drop_is_followed_by_a_reconnection_of_the_clients_own(
        self, chat: StockChat, js_clients: JsClients, transports: list[str] | None, reset: bool
    ) -> None:
        client = await js_clients.connect(chat.url, transports=transports)
        await client.wait_for(transport="polling" if transports == ["polling"] else "websocket", sessions=1)
        await chat.say("a", "b")
        await client.wait_for_ids(2)
        assert await client.drop(reset=reset)
        await chat.say("c", "d")
        assert await client.wait_for_ids(4) == [1, 2, 3, 4]
        state = await client.state()
        assert len(state.connects) == 2
        assert state.connects[0]["id"] != state.connects[1]["id"]
        assert [gone["reason"] for gone in state.disconnects] in (["transport error"], ["transport close"])
        assert chat.auths == [None, {"after": 2, "epoch": "first"}]
        assert state.sessions[1]["recovered"] is True

    async def test_drop_works_where_polling_keeps_its_connections(
        self, chat: StockChat, js_clients: JsClients
    ) -> None:
        options = {"keepAlive": True}
        client = await js_clients.connect(chat.url, transports=["polling"], options=options)
        for drops in range(1, 6):
            await client.drop(reconnected=True)
            await chat.say("more")
            await client.wait_for(last=drops)
        assert await client.ids() == [1, 2, 3, 4, 5]

    @TRANSPORTS
    async def test_drops_in_quick_succession(
        self, chat: StockChat, js_clients: JsClients, transports: list[str] | None
    ) -> None:
        options = {"reconnectionDelay": 20}
        clients = [
            await js_clients.connect(chat.url, transports=transports, options=options) for _ in range(5)
        ]
        for number in range(20):
            await asyncio.gather(chat.say(str(number)), *(client.drop() for client in clients))
        for client in clients:
            assert await client.wait_for_ids(20) == list(range(1, 21))

    @TRANSPORTS
    async def test_acknowledgements_come_back(
        self, chat: StockChat, js_clients: JsClients, transports: list[str] | None
    ) -> None:
        client = await js_clients.connect(chat.url, transports=transports)
        assert await client.emit("message", {"text": "hello"}) == {"ok": True, "id": 1, "duplicate": False}
        assert await client.emit("message", {"text": "again"}, ack=False) is None
        await client.wait_for_ids(2)
        # The stock server loses a POST of more than 16 packets.
        answers = await client.emit_many([{"text": str(number)} for number in range(10)], retry=True)
        assert sorted(answer["id"] for answer in answers) == list(range(3, 13))

    async def test_an_acknowledgement_that_does_not_come_is_an_error(
        self, chat: StockChat, js_clients: JsClients
    ) -> None:
        client = await js_clients.connect(chat.url, transports=["websocket"])
        chat.sio.handlers["/"].pop("*")
        with pytest.raises(JsError, match="timed out"):
            await client.emit("silence", within=0.1)
        answers = await client.emit_many([1, 2], event="silence", within=0.1)
        assert answers == [{"error": "operation has timed out"}] * 2

    async def test_unusual_values_arrive_as_they_are(self, chat: StockChat, js_clients: JsClients) -> None:
        client = await js_clients.connect(chat.url, transports=["websocket"])
        for value in (b"\x00\xff", "nul \x00", "line \u2028 \r\n", "\U0001f600", {"deep": [b"1", None, 1.5]}):
            assert await client.emit("echo", value) == value
        assert await client.emit("echo", "\ud800") == "\ud800"
        assert chat.received[-1] == ("echo", "\ud800")
        await chat.sio.emit("other", ("x", b"y"))
        await client.wait_for(events=1)
        assert (await client.state()).events[0]["args"] == ["x", b"y"]

    async def test_extra_arguments_are_on_record(self, chat: StockChat, js_clients: JsClients) -> None:
        client = await js_clients.connect(chat.url, track=False)
        await chat.sio.emit("message", ({"id": 7, "text": "x"}, "first:7"))
        await client.wait_for_ids(7)
        (record,) = await client.records()
        assert (record["message"]["text"], record["extra"], record["kept"]) == ("x", ["first:7"], True)

    @pytest.mark.parametrize("transport", ["polling", "websocket"])
    async def test_a_tracking_client_drops_what_it_has(
        self, chat: StockChat, js_clients: JsClients, transport: str
    ) -> None:
        tracking = await js_clients.connect(chat.url, transports=[transport])
        taking = await js_clients.connect(chat.url, transports=[transport], track=False)
        for id_ in (1, 2, 2, 5, 4, 1):
            await chat.sio.emit("message", {"id": id_})
        await tracking.wait_for(raw_count=6)
        await taking.wait_for(raw_count=6)
        state = await tracking.state()
        assert (state.ids, state.duplicates_dropped, state.out_of_order) == ([1, 2, 5], 2, [4])
        assert await taking.ids() == [1, 2, 2, 5, 4, 1]

    async def test_a_tracking_client_begins_where_it_is_told(
        self, chat: StockChat, js_clients: JsClients
    ) -> None:
        await chat.say(*"abc")
        client = await js_clients.connect(chat.url, auth={"after": 1, "epoch": "first", "user": "u"})
        assert await client.wait_for_ids(3) == [2, 3]
        await client.drop(reconnected=True)
        assert chat.auths[-1] == {"after": 3, "epoch": "first", "user": "u"}

    @pytest.mark.parametrize("reload", [True, False])
    async def test_a_lost_epoch_reloads_the_history_where_asked(
        self, chat: StockChat, js_clients: JsClients, reload: bool
    ) -> None:
        client = await js_clients.connect(chat.url, reload=reload)
        await chat.say(*"abc")
        await client.wait_for_ids(3)
        chat.epoch, chat.messages = "second", chat.messages[:2]
        await client.drop(reconnected=True)
        await client.wait_for(sessions=2, reloads=int(reload))
        await chat.say("d")
        assert await client.wait_for_ids(count=6 if reload else 4) == [
            1,
            2,
            3,
            *([1, 2, 3] if reload else [3]),
        ]
        await chat.sio.emit("reset", {"epoch": "third", "last_id": 3, "reason": "test"})
        await client.wait_for(resets=1, reloads=2 * int(reload))
        state = await client.state()
        assert (state.epoch, state.newest, state.out_of_order) == ("third", 3, [])
        assert len(state.ids) == (9 if reload else 4)

    async def test_always_reloading_begins_with_the_history(
        self, chat: StockChat, js_clients: JsClients
    ) -> None:
        await chat.say(*"abc")
        client = await js_clients.connect(chat.url, reload="always")
        assert await client.wait_for_ids(3) == [1, 2, 3]

    async def test_a_recovering_client_says_that_and_nothing_else(
        self, chat: StockChat, js_clients: JsClients
    ) -> None:
        client = await js_clients.connect(
            chat.url, recovery=True, auth={"after": 1}, transports=["websocket"]
        )
        await client.drop(reconnected=True)
        assert chat.auths == [{"recovery": True}, {"recovery": True}]
        assert [connect["auth"] for connect in (await client.state()).connects] == chat.auths

    @TRANSPORTS
    async def test_reconnect_to_goes_on_at_another_server(
        self, chat: StockChat, js_clients: JsClients, transports: list[str] | None
    ) -> None:
        async with serving(StockChat()) as other:
            await other.say(*"abc")
            await chat.say("a")
            client = await js_clients.connect(
                chat.url, auth={"after": 0, "epoch": "first"}, transports=transports
            )
            await client.wait_for_ids(1)
            await client.reconnect_to(other.url)
            assert await client.wait_for_ids(3) == [1, 2, 3]
            assert other.auths == [{"after": 1, "epoch": "first"}]
            await client.close()

    async def test_a_refused_client_has_the_reason(self, js_clients: JsClients) -> None:
        auth = {"allowed": False}
        async with serving(StockChat(always_connect=False)) as chat:
            with pytest.raises(JsError, match="invalid"):
                await js_clients.connect(chat.url, auth=auth)
            client = await js_clients.connect(chat.url, auth=auth, wait=False)
            await client.wait_for(connect_errors=1, active=False)
        (error,) = (await client.state()).connect_errors
        assert (error["message"], error["data"]) == ("no", {"code": "invalid"})

    async def test_a_server_that_is_not_there_is_tried_again(self, js_clients: JsClients) -> None:
        chat = StockChat()
        client = await js_clients.connect(chat.url, wait=False)
        await client.wait_for(connect_errors=2, active=True, connected=False)
        async with serving(chat):
            await client.wait_for(connected=True)

    @pytest.mark.parametrize("transport", ["polling", "websocket"])
    async def test_raw_packets(self, chat: StockChat, js_clients: JsClients, transport: str) -> None:
        client = await js_clients.connect(chat.url, transports=[transport])
        await client.send_packet('2["message",{"text":"packet"}]')
        await client.send_frame('42["message",{"text":"frame"}]')
        assert await client.wait_for_ids(2) == [1, 2]
        assert {message["text"] for message in await client.messages()} == {"packet", "frame"}
        if transport == "websocket":
            await client.send_bytes(b"\x81\x82\x00\x00\x00\x00\xff\xff")
            await client.wait_for(connects=2)

    async def test_closing_and_connecting_again(self, chat: StockChat, js_clients: JsClients) -> None:
        client = await js_clients.connect(chat.url)
        await client.close()
        state = await client.state()
        assert (state.connected, state.active) == (False, False)
        assert state.disconnects[-1]["reason"] == "io client disconnect"
        await client.connect()

    async def test_a_slow_client(self, chat: StockChat, js_clients: JsClients) -> None:
        client = await js_clients.connect(chat.url, transports=["websocket"])
        await client.pause_reading()
        await chat.say("a", "b")
        with pytest.raises(TimeoutError, match=r"ids: \[\]"):
            await client.wait_for_ids(2, within=0.2)
        await client.resume_reading()
        await client.wait_for_ids(2)

    async def test_waits_say_what_the_state_is(self, chat: StockChat, js_clients: JsClients) -> None:
        client = await js_clients.connect(chat.url)
        with pytest.raises(TimeoutError, match=r"(?s)'count': 3.*connected: True"):
            await client.wait_for(count=3, within=0.1)
        with pytest.raises(TimeoutError, match="connected: True"):
            await client.wait_until(lambda state: False, within=0.1)
        waiting = asyncio.create_task(client.wait_until(lambda state: len(state.ids) == 3))
        await chat.say(*"abc")
        assert (await waiting).ids == [1, 2, 3]

    async def test_many_clients_and_messages(self, chat: StockChat, js_clients: JsClients) -> None:
        clients = await asyncio.gather(
            *(js_clients.connect(chat.url, transports=["websocket"]) for _ in range(30))
        )
        await asyncio.gather(*(client.wait_for(sessions=1) for client in clients))
        await chat.say(*map(str, range(300)))
        for ids in await asyncio.gather(*(client.wait_for_ids(300) for client in clients)):
            assert ids == list(range(1, 301))

    async def test_the_end_of_node_is_an_error_and_not_a_hang(self, chat: StockChat) -> None:
        async with JsClients() as clients:
            client = await clients.connect(chat.url)
            waiting = asyncio.create_task(client.wait_for(count=1))
            await asyncio.sleep(0)
            process = clients._process  # noqa: SLF001 - there is no public way to break it
            assert process is not None
            process.kill()
            with pytest.raises(JsError, match="ended"):
                await waiting
            with pytest.raises(JsError, match="ended"):
                await client.state()


class TestRedisServer:
    async def test_data_outlives_a_kill_at_the_same_address(self, redis_server: RedisServer) -> None:
        url = redis_server.url
        for number in range(1, 6):
            async with redis_server.client() as client:
                assert await client.rpush("list", str(number)) == number
            await redis_server.kill()
            await redis_server.start()
        assert redis_server.url == url
        async with redis_server.client() as client:
            assert await client.lrange("list", 0, -1) == ["1", "2", "3", "4", "5"]

    async def test_data_outlives_a_stop(self, redis_server: RedisServer) -> None:
        async with redis_server.client() as client:
            await client.set("key", "value")
        assert await redis_server.stop() == 0
        await redis_server.start()
        async with redis.asyncio.Redis.from_url(redis_server.unix_url, decode_responses=True) as client:
            assert await client.get("key") == "value"

    async def test_a_paused_server_answers_when_it_is_resumed(self, redis_server: RedisServer) -> None:
        async with redis_server.client() as client:
            await client.ping()
            redis_server.pause()
            answer = asyncio.ensure_future(client.get("key"))
            _, waiting = await asyncio.wait([answer], timeout=0.2)
            assert waiting
            redis_server.resume()
            assert await answer is None

    async def test_a_paused_server_can_be_stopped(self, redis_server: RedisServer) -> None:
        redis_server.pause()
        assert await redis_server.stop() == 0

    async def test_a_setting_it_does_not_know_is_in_the_error(self, tmp_path: Path) -> None:
        server = RedisServer(tmp_path, options={"no-such-setting": "1"})
        with pytest.raises(RuntimeError, match="no-such-setting"):
            await server.start()
        await server.end()


class TestTcpProxy:
    async def test_cut_ends_connections_and_lets_new_ones_in(
        self, chat: StockChat, js_clients: JsClients
    ) -> None:
        async with TcpProxy(chat.port) as proxy:
            client = await js_clients.connect(proxy.url, transports=["websocket"])
            await client.wait_for(sessions=1)
            assert await proxy.cut() == 1
            await chat.say("a")
            assert await client.wait_for_ids(1) == [1]
            assert len((await client.state()).connects) == 2
            await client.close()

    async def test_refuse_and_accept(self, chat: StockChat, js_clients: JsClients) -> None:
        async with TcpProxy(chat.port) as proxy:
            client = await js_clients.connect(proxy.url, transports=["websocket"])
            proxy.refuse()
            await chat.say("a")
            await client.wait_for_ids(1)
            await proxy.cut()
            await client.wait_for(connect_errors=2, connected=False)
            await proxy.accept()
            await client.wait_for(connected=True)
            await client.close()

    async def test_a_blackhole_holds_what_comes(self, redis_server: RedisServer) -> None:
        async with (
            TcpProxy(redis_server.port) as proxy,
            redis.asyncio.Redis.from_url(proxy.redis_url) as client,
        ):
            await client.ping()
            proxy.blackhole()
            answers = [asyncio.ensure_future(client.get("key")) for _ in range(2)]
            done, _ = await asyncio.wait(answers, timeout=0.2)
            assert not done
            assert proxy.connections == 2  # an old one, and a new one
            proxy.resume()
            assert await asyncio.gather(*answers) == [None, None]

    async def test_a_delay_holds_up_each_direction(self, redis_server: RedisServer) -> None:
        async with (
            TcpProxy(redis_server.port) as proxy,
            redis.asyncio.Redis.from_url(proxy.redis_url) as client,
        ):
            await client.ping()
            proxy.delay = 0.1
            begun = asyncio.get_running_loop().time()
            await client.ping()
            assert asyncio.get_running_loop().time() - begun >= 0.2
            proxy.delay = 0.0

    async def test_after_a_half_close_nothing_comes_and_what_is_sent_still_arrives(
        self, redis_server: RedisServer
    ) -> None:
        async with TcpProxy(redis_server.port) as proxy, redis_server.client() as client:
            reader, writer = await asyncio.open_connection(HOST, proxy.port)
            writer.write(b"PING\r\n")
            assert await reader.readline() == b"+PONG\r\n"
            assert proxy.half_close() == 1
            assert await reader.read() == b""
            writer.write(b"SET key value\r\n")

            async def arrived() -> bool:
                return await client.get("key") == "value"

            await eventually(arrived, otherwise=lambda: "it does not arrive")
            writer.close()

    async def test_retarget_leads_new_connections_elsewhere(self, tmp_path: Path) -> None:
        servers = [RedisServer(tmp_path / name) for name in "ab"]
        try:
            for server, name in zip(servers, "ab", strict=True):
                await server.start()
                async with server.client() as client:
                    await client.set("name", name)
            async with TcpProxy(servers[0].port) as proxy:
                for server, name in zip(servers, "ab", strict=True):
                    proxy.retarget(server.port)
                    async with redis.asyncio.Redis.from_url(proxy.redis_url, decode_responses=True) as client:
                        assert await client.get("name") == name
        finally:
            for server in servers:
                await server.end()

    async def test_an_upstream_that_is_not_there_resets(self) -> None:
        async with TcpProxy(free_port()) as proxy:
            reader, writer = await asyncio.open_connection(HOST, proxy.port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()


class TestGoFrontend:
    async def test_splits_frames_and_reads_the_history(self, chat: StockChat) -> None:
        await chat.say("a", "b")
        async with GoFrontend(chat.url) as frontend:
            await frontend.send("hello")
            await frontend.wait_for(count=2, last=2)
            assert frontend.ids == [1, 2]
            assert len(frontend.frames) == 1
            assert [message["text"] for message in await frontend.history()] == ["b", "a"]

    async def test_records_how_it_was_closed(self, chat: StockChat) -> None:
        async with GoFrontend(chat.url) as frontend:
            await frontend.send_raw("close")
            assert await frontend.wait_closed() == 1008
            assert frontend.close_reason == "told to"
            await frontend.open()
            assert not frontend.closed

    async def test_waits_say_what_came(self, chat: StockChat) -> None:
        async with GoFrontend(chat.url) as frontend:
            with pytest.raises(TimeoutError, match="0 messages"):
                await frontend.wait_for(count=1, within=0.1)


class TestInstance:
    async def test_what_a_failing_process_wrote_is_in_the_error(self, tmp_path: Path) -> None:
        instance = Instance(tmp_path, flags=["--no-such-flag"])
        with pytest.raises(RuntimeError, match=r"ended while starting(?s:.)*instance\.log"):
            await instance.start()
        assert instance.exit_code
        assert instance.log_lines()

    def test_names_of_samples_have_sorted_labels(self) -> None:
        assert _sample_key("up", {}) == "up"
        assert _sample_key("x_total", {"b": "2", "a": "1"}) == 'x_total{a="1",b="2"}'

    def test_log_lines_that_are_not_json_are_text(self) -> None:
        assert _log_line('{"event":"x"}') == {"event": "x"}
        assert _log_line("3") == {"text": "3"}
        assert _log_line("Traceback") == {"text": "Traceback"}
