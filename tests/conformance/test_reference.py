"""What clients of the reference server rely on, where the protocol pages are terse; on real sockets.

`calm` has a heartbeat of 25 and 20 s, and no wait here is as long: nothing it closes was a ping timeout.
`quick` has 300 and 200 ms. WebSockets come in through both ways: as the first request of a connection (the
door), and on one that was used before (aiohttp, then the handover).
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.ports import HOST, free_port
from tests.harness.raw_client import RawHttp, RawWebSocket, client_frame
from tests.harness.waiting import DEADLINE, eventually

ROOT = Path(__file__).parents[2]
ENGINE = "/engine.io/"
SOCKETIO = "/socket.io/"
POLLING = "EIO=4&transport=polling"
WEBSOCKET = "EIO=4&transport=websocket"
MAX_PAYLOAD = 1_000_000
PACKETS_IN_A_POLL = 16
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10

both_ways = pytest.mark.parametrize("way", ["door", "kept alive"])


def start_app(directory: Path, *options: str) -> Iterator[int]:
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.app", "--host", HOST, "--port", str(port), *options],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        asyncio.run(listening(process, port, directory / "log"))
        yield port
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def listening(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    async def connects() -> bool:
        assert process.poll() is None, log.read_text()  # noqa: ASYNC240 - it has nothing else to do
        try:
            async with await RawHttp.open(port):
                return True
        except ConnectionRefusedError:
            return False

    await eventually(connects, otherwise=log.read_text)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from start_app(tmp_path_factory.mktemp("calm"), "--ping-interval", "25", "--ping-timeout", "20")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from start_app(tmp_path_factory.mktemp("quick"))


class Polling:
    """A session that polls, each of its requests on the one or the other of two connections."""

    def __init__(self, port: int, gets: RawHttp, posts: RawHttp, path: str) -> None:
        self.port = port
        self.gets = gets
        self.posts = posts
        self.path = path
        self.target = f"{path}?{POLLING}"
        self.sid = ""

    async def begin(self) -> None:
        answer = await self.gets.request("GET", self.target)
        assert answer.status == 200
        self.sid = json.loads(answer.body[1:])["sid"]
        self.target += f"&sid={self.sid}"

    async def get(self) -> tuple[int, bytes]:
        """GET once; answer a ping and GET again."""
        while True:
            answer = await self.gets.request("GET", self.target)
            if answer.status != 200 or answer.body != b"2":
                return answer.status, answer.body
            assert await self.post("3") == (200, b"ok")

    async def take(self, count: int) -> list[str]:
        """GET until so many packets have come."""
        packets: list[str] = []
        while len(packets) < count:
            status, body = await self.get()
            assert status == 200, body
            came = body.decode().split("\x1e")
            assert len(came) <= PACKETS_IN_A_POLL
            packets += [packet for packet in came if packet not in ("2", "6")]
        return packets

    async def hold(self) -> None:
        """Send a GET that finds nothing; return when the server holds it."""
        self.gets.send_request("GET", self.target)
        # A PONG that nobody asked for means nothing; once it is answered the server has read the GET, too.
        assert await self.post("3") == (200, b"ok")

    async def held(self) -> tuple[int, bytes]:
        """Read the answer of the GET that is held."""
        answer = await self.gets.answer()
        return answer.status, answer.body

    async def post(self, *packets: str) -> tuple[int, bytes]:
        answer = await self.posts.request("POST", self.target, "\x1e".join(packets).encode())
        return answer.status, answer.body

    async def is_closed(self) -> bool:
        """Whether the server does not know the session any more; a session that it knows loses nothing."""
        return (await self.post("3"))[0] == 400

    async def closes(self) -> None:
        await eventually(self.is_closed, within=5, otherwise=lambda: "the session is open still")


@asynccontextmanager
async def polling(port: int, path: str = ENGINE) -> AsyncIterator[Polling]:
    async with await RawHttp.open(port) as gets, await RawHttp.open(port) as posts:
        session = Polling(port, gets, posts, path)
        await session.begin()
        yield session


@asynccontextmanager
async def handshaken(
    port: int, way: str = "door", *, sid: str | None = None, path: str = ENGINE, first: bytes = b""
) -> AsyncIterator[RawWebSocket]:
    """A WebSocket, of which nothing has been read yet."""
    async with await RawHttp.open(port) as http:
        if way == "kept alive":
            assert (await http.request("GET", f"{path}?EIO=3")).status == 400
        query = WEBSOCKET if sid is None else f"{WEBSOCKET}&sid={sid}"
        assert (await http.handshake(f"{path}?{query}", first)).status == 101
        yield RawWebSocket(http)


@asynccontextmanager
async def websocket(port: int, way: str = "door", path: str = ENGINE) -> AsyncIterator[RawWebSocket]:
    """A session on a WebSocket, after OPEN."""
    async with handshaken(port, way, path=path) as socket:
        opened = await socket.packet()
        assert isinstance(opened, str)
        assert opened[0] == "0"
        yield socket


async def assert_alive(socket: RawWebSocket, word: str = "alive") -> None:
    """Check that the next thing is the echo of what is said now."""
    socket.say(f"4{word}")
    assert await socket.packet() == f"4{word}"


async def move(session: Polling, socket: RawWebSocket) -> None:
    """Move a session to a WebSocket, as clients do."""
    socket.say("2probe")
    assert await socket.packet() == "3probe"
    assert await session.get() == (200, b"6")
    socket.say("5")


# ---- the handshake


def assert_handshake(opened: str, upgrades: list[str], interval: int, timeout: int) -> None:
    assert opened[0] == "0"
    handshake = json.loads(opened[1:])
    assert list(handshake) == ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"]
    assert len(handshake.pop("sid")) >= 20
    assert handshake == {
        "upgrades": upgrades,
        "pingInterval": interval,
        "pingTimeout": timeout,
        "maxPayload": MAX_PAYLOAD,
    }


async def test_the_handshake_of_a_polling_client_offers_the_upgrade(calm: int) -> None:
    async with await RawHttp.open(calm) as http:
        answer = await http.request("GET", f"{ENGINE}?{POLLING}")
        assert answer.status == 200
        assert answer.headers["content-type"].lower() == "text/plain; charset=utf-8"
        assert_handshake(answer.body.decode(), ["websocket"], 25_000, 20_000)


@both_ways
async def test_the_handshake_on_a_websocket_offers_nothing(calm: int, way: str) -> None:
    async with handshaken(calm, way) as socket:
        assert_handshake(str(await socket.packet()), [], 25_000, 20_000)


async def test_a_heartbeat_below_a_second_is_announced_as_it_is(quick: int) -> None:
    async with await RawHttp.open(quick) as http:
        answer = await http.request("GET", f"{ENGINE}?{POLLING}")
        assert_handshake(answer.body.decode(), ["websocket"], 300, 200)


async def test_each_session_has_an_id_of_its_own(calm: int) -> None:
    async with polling(calm) as one, polling(calm) as another:
        assert one.sid != another.sid


# ---- requests that are refused


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", "transport=polling"),
        ("GET", "EIO=3&transport=polling"),
        ("GET", "EIO=abc&transport=polling"),
        ("GET", "EIO=&transport=polling"),
        ("GET", "EIO=4"),
        ("GET", "EIO=4&transport=carrier-pigeon"),
        ("GET", "EIO=4&transport="),
        ("GET", "EIO=4&transport=websocket"),  # without an Upgrade
        ("GET", "EIO=4&transport=polling&sid=unknown"),
        ("GET", "EIO=4&transport=polling&sid="),
        ("POST", "EIO=4&transport=polling"),
        ("POST", "EIO=4&transport=polling&sid=unknown"),
        ("POST", "EIO=4&transport=websocket"),
        ("PUT", "EIO=4&transport=polling"),
        ("DELETE", "EIO=4&transport=polling"),
        ("PUT", "EIO=4&transport=websocket"),
    ],
)
async def test_a_request_that_makes_no_sense_is_400(calm: int, method: str, query: str) -> None:
    async with await RawHttp.open(calm) as http:
        assert (await http.request(method, f"{ENGINE}?{query}", b"4a")).status == 400
        assert (await http.request("GET", f"{ENGINE}?{POLLING}")).status == 200, "the connection is usable"


@both_ways
@pytest.mark.parametrize(
    "query",
    ["transport=websocket", "EIO=3&transport=websocket", "EIO=4&transport=x", f"{WEBSOCKET}&sid=unknown"],
)
async def test_a_websocket_that_makes_no_sense_is_400(calm: int, way: str, query: str) -> None:
    async with await RawHttp.open(calm) as http:
        if way == "kept alive":
            await http.request("GET", f"{ENGINE}?{POLLING}")
        assert (await http.handshake(f"{ENGINE}?{query}")).status == 400


async def test_put_to_a_session_is_400_and_it_lives(calm: int) -> None:
    async with polling(calm) as session:
        answer = await session.posts.request("PUT", session.target, b"4a")
        assert answer.status == 400
        assert await session.post("4b") == (200, b"ok")
        assert await session.take(1) == ["4b"]


async def test_a_closed_session_is_400(calm: int) -> None:
    async with polling(calm) as session:
        assert await session.post("1") == (200, b"ok")
        assert (await session.get())[0] == 400
        assert (await session.post("4a"))[0] == 400
        assert (await session.posts.handshake(f"{ENGINE}?{WEBSOCKET}&sid={session.sid}")).status == 400


async def test_polling_after_the_upgrade_is_400_and_the_session_lives(calm: int) -> None:
    async with polling(calm) as session, handshaken(calm, sid=session.sid) as socket:
        await move(session, socket)
        await assert_alive(socket)
        assert (await session.get())[0] == 400
        assert (await session.post("4a"))[0] == 400
        await assert_alive(socket)


# ---- POST


async def test_a_post_is_ok_and_its_packets_arrive(calm: int) -> None:
    async with polling(calm) as session:
        assert await session.post("4a", "4é€😀", "bAAEC/w==", "4") == (200, b"ok")
        assert await session.take(4) == ["4a", "4é€😀", "bAAEC/w==", "4"]


@pytest.mark.parametrize("pieces", [2, 5])
async def test_a_post_is_answered_after_its_whole_body_was_read(calm: int, pieces: int) -> None:
    body = b"4" + b"0123456789" * 30_000
    step = len(body) // pieces
    async with polling(calm) as session:
        session.posts.send_request("POST", session.target, headers={"Content-Length": str(len(body))})
        for start in range(0, len(body), step):
            session.posts.send(body[start : start + step])
            # Somebody else is served meanwhile: the server has read what there was.
            async with polling(calm) as another:
                await another.post("4a")
                assert await another.take(1) == ["4a"]
        answer = await session.posts.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert await session.take(1) == [body.decode()]


async def test_a_chunked_post_is_read_whole(calm: int) -> None:
    async with polling(calm) as session:
        session.posts.send_request("POST", session.target, headers={"Transfer-Encoding": "chunked"})
        for chunk in (b"4hello ", b"world", b"\x1e4again"):
            session.posts.send(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await session.posts.writer.drain()
        session.posts.send(b"0\r\n\r\n")
        assert (await session.posts.answer()).status == 200
        assert await session.take(2) == ["4hello world", "4again"]


async def test_a_post_may_have_any_number_of_packets_and_a_get_at_most_16(calm: int) -> None:
    packets = [f"4{number}" for number in range(200)]
    async with polling(calm) as session:
        assert await session.post(*packets) == (200, b"ok")
        status, body = await session.get()
        assert status == 200
        first = body.decode().split("\x1e")
        assert first == packets[:PACKETS_IN_A_POLL]
        assert await session.take(200 - PACKETS_IN_A_POLL) == packets[PACKETS_IN_A_POLL:]


async def test_a_post_of_the_announced_size_is_accepted(calm: int) -> None:
    body = "4" + "x" * (MAX_PAYLOAD - 1)
    async with polling(calm) as session:
        assert await session.post(body) == (200, b"ok")
        assert await session.take(1) == [body]


@pytest.mark.parametrize("size", [MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_larger_post_is_413_and_the_session_lives(calm: int, chunked: bool, size: int) -> None:
    body = b"4" + b"x" * (size - 1)
    async with polling(calm) as session, await RawHttp.open(calm) as http:
        await session.hold()
        if chunked:
            http.send_request("POST", session.target, headers={"Transfer-Encoding": "chunked"})
            http.send(f"{size:x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        else:
            http.send_request("POST", session.target, body)
        assert (await http.answer()).status == 413
        assert await session.post("4small") == (200, b"ok")
        assert await session.held() == (200, b"4small")


# ---- GET


async def test_two_gets_at_once_close_the_session(calm: int) -> None:
    async with polling(calm) as session, await RawHttp.open(calm) as second:
        await session.hold()
        assert (await second.request("GET", session.target)).status == 400
        assert await session.held() == (200, b"1")
        assert (await session.get())[0] == 400
        assert (await session.post("4a"))[0] == 400


@pytest.mark.parametrize("reset", [False, True])
async def test_an_aborted_get_closes_the_session(calm: int, reset: bool) -> None:
    async with polling(calm) as session:
        await session.hold()
        if reset:
            session.gets.reset()
        else:
            session.gets.writer.close()
        await session.closes()
        # What would be said now is not eaten silently: the client hears that there is no session.
        assert (await session.posts.request("GET", session.target)).status == 400


async def test_close_by_polling_answers_the_get_that_is_held(calm: int) -> None:
    async with polling(calm) as session:
        await session.hold()
        assert await session.post("1") == (200, b"ok")
        assert await session.held() == (200, b"6")
        assert (await session.get())[0] == 400


# ---- the upgrade


@both_ways
async def test_during_the_upgrade_polling_gets_noop_and_the_websocket_nothing(calm: int, way: str) -> None:
    async with polling(calm) as session, handshaken(calm, way, sid=session.sid) as socket:
        await session.hold()
        socket.say("2probe")
        assert await socket.packet() == "3probe"
        assert await session.held() == (200, b"6")
        assert await session.post("4a", "4b") == (200, b"ok")
        assert await session.get() == (200, b"6")
        assert await session.get() == (200, b"6")
        # Had anything been sent before UPGRADE, this would come behind it.
        socket.send(PING, b"nothing yet?")
        assert await socket.frame() == (PONG, b"nothing yet?")
        assert await session.post("bAAH/") == (200, b"ok")
        socket.say("5", "4c")
        assert await socket.packets(4) == ["4a", "4b", b"\x00\x01\xff", "4c"]


async def test_what_waits_when_the_upgrade_begins_is_not_lost(calm: int) -> None:
    packets = [f"4{number}" for number in range(40)]
    async with polling(calm) as session, handshaken(calm, sid=session.sid) as socket:
        await session.post(*packets[:30])
        assert await session.take(16) == packets[:16]
        await move(session, socket)
        socket.say(*packets[30:])
        assert await socket.packets(24) == packets[16:]


@pytest.mark.parametrize("ending", ["close frame", "end of stream", "reset", "wrong packet"])
@pytest.mark.parametrize("probed", [True, False])
@both_ways
async def test_an_upgrade_that_is_given_up_loses_nothing(
    calm: int, way: str, ending: str, probed: bool
) -> None:
    async with polling(calm) as session:
        async with handshaken(calm, way, sid=session.sid) as socket:
            if probed:
                socket.say("2probe")
                assert await socket.packet() == "3probe"
            await session.post("4a", "4b")
            match ending:
                case "close frame":
                    socket.send(CLOSE, b"\x03\xe8")
                    assert await socket.close_code() == 1000
                case "reset":
                    socket.http.reset()
                case "wrong packet":
                    socket.say("4not a probe")
                    assert await socket.close_code() == 1000
        assert await session.take(2) == ["4a", "4b"]
        await session.hold()
        await session.post("4c")
        assert await session.held() == (200, b"4c")
        async with handshaken(calm, way, sid=session.sid) as socket:
            await move(session, socket)
            await assert_alive(socket)


@both_ways
async def test_a_second_websocket_is_accepted_then_closed_and_the_first_lives(calm: int, way: str) -> None:
    async with polling(calm) as session, handshaken(calm, sid=session.sid) as first:
        await move(session, first)
        await assert_alive(first)
        async with handshaken(calm, way, sid=session.sid) as second:
            assert await second.close_code() == 1000
        await assert_alive(first)


@both_ways
async def test_a_second_websocket_for_a_session_that_began_on_one_is_closed(calm: int, way: str) -> None:
    async with handshaken(calm) as first:
        sid = json.loads(str(await first.packet())[1:])["sid"]
        async with handshaken(calm, way, sid=sid) as second:
            assert await second.close_code() == 1000
        await assert_alive(first)


@both_ways
async def test_a_second_websocket_during_the_upgrade_is_closed_and_the_upgrade_goes_on(
    calm: int, way: str
) -> None:
    async with polling(calm) as session, handshaken(calm, sid=session.sid) as first:
        first.say("2probe")
        assert await first.packet() == "3probe"
        async with handshaken(calm, way, sid=session.sid) as second:
            assert await second.close_code() == 1000
        first.say("5")
        await assert_alive(first)


@both_ways
@pytest.mark.parametrize("moved", [True, False])
async def test_a_second_websocket_that_speaks_at_once_takes_nothing_over(
    calm: int, way: str, moved: bool
) -> None:
    hasty = client_frame(TEXT, b"2probe") + client_frame(TEXT, b"5") + client_frame(TEXT, b"4stolen")
    async with polling(calm) as session, handshaken(calm, sid=session.sid) as first:
        if moved:
            await move(session, first)
            await assert_alive(first)
        async with handshaken(calm, way, sid=session.sid, first=hasty) as second:
            assert await second.close_code() == 1000
        if not moved:
            await move(session, first)
        await assert_alive(first)


# ---- what breaks the rules


@both_ways
@pytest.mark.parametrize("packet", ["", "7", "abc", "é", "0{}", "2"])
async def test_a_bad_packet_on_a_websocket_closes_at_once(calm: int, way: str, packet: str) -> None:
    async with websocket(calm, way) as socket:
        await assert_alive(socket)
        socket.say(packet, "4never looked at")
        assert await socket.close_code() == 1000


@pytest.mark.parametrize("body", ["", "7", "abc", "bno base64!", "4a\x1e", "\x1e4a", "4a\x1e9", "0{}", "2"])
async def test_a_bad_packet_in_a_post_closes_at_once(calm: int, body: str) -> None:
    async with polling(calm) as session:
        await session.hold()
        assert (await session.post(body))[0] == 400
        assert await session.held() == (200, b"1")
        assert (await session.get())[0] == 400
        assert (await session.post("4a"))[0] == 400


async def test_a_post_that_is_not_utf8_closes_at_once(calm: int) -> None:
    async with polling(calm) as session:
        await session.hold()
        assert (await session.posts.request("POST", session.target, b"4\xff")).status == 400
        assert await session.held() == (200, b"1")


# ---- the heartbeat


@both_ways
async def test_a_websocket_that_answers_pings_lives(quick: int, way: str) -> None:
    async with websocket(quick, way) as socket:
        for _ in range(4):
            assert await socket.frame() == (TEXT, b"2")
            socket.say("3")
        await assert_alive(socket)


async def test_a_polling_client_that_answers_pings_lives(quick: int) -> None:
    async with polling(quick) as session:
        for _ in range(4):
            await session.gets.request("GET", session.target)
            assert await session.post("3") == (200, b"ok")
        await session.post("4alive")
        assert await session.take(1) == ["4alive"]


async def seconds_without_pong(port: int, way: str) -> float:
    """How long after its ping the server closes a client that does everything but answer it."""
    async with websocket(port, way) as socket:
        await assert_alive(socket)
        assert await socket.frame() == (TEXT, b"2")
        pinged = time.monotonic()
        socket.say("4busy")
        assert await socket.frame() == (TEXT, b"4busy")
        socket.send(PING)
        assert await socket.frame() == (PONG, b"")
        assert (await socket.frame())[0] == CLOSE
        return time.monotonic() - pinged


@both_ways
async def test_without_a_pong_the_session_is_closed_after_the_ping_timeout(quick: int, way: str) -> None:
    delays = await asyncio.gather(*(seconds_without_pong(quick, way) for _ in range(5)))
    assert min(delays) > 0.15
    # A sweep at each interval would need up to 0.5 s; the machine may be slow, but not for all of them.
    assert min(delays) < 0.3


async def test_without_a_pong_the_get_that_is_held_is_answered_by_close(quick: int) -> None:
    async with polling(quick) as session:
        assert (await session.gets.request("GET", session.target)).body == b"2"
        assert (await session.gets.request("GET", session.target)).body == b"1"
        assert (await session.gets.request("GET", session.target)).status == 400


# ---- Socket.IO


@both_ways
async def test_the_answer_to_connect_has_the_sid_alone(calm: int, way: str) -> None:
    async with websocket(calm, way, SOCKETIO) as socket:
        socket.say("40")
        answer = str(await socket.packet())
        assert answer.startswith('40{"sid":"')
        assert list(json.loads(answer[2:])) == ["sid"]


async def connected(socket: RawWebSocket) -> None:
    socket.say("40")
    assert str(await socket.packet()).startswith("40")
    assert await socket.packet() == '42["auth",{}]'


async def test_an_unknown_namespace_is_refused_and_others_are_not(calm: int) -> None:
    async with websocket(calm, path=SOCKETIO) as socket:
        socket.say("40/random")
        assert await socket.packet() == '44/random,{"message":"Invalid namespace"}'
        await connected(socket)
        socket.say("40/random,{}", '420["message-with-ack",1]')
        assert await socket.packet() == '44/random,{"message":"Invalid namespace"}'
        assert await socket.packet() == "430[1]"


async def test_a_second_connect_is_ignored(calm: int) -> None:
    async with websocket(calm, path=SOCKETIO) as socket:
        await connected(socket)
        socket.say("40", '40{"token":1}', '421["message-with-ack","still here"]')
        assert await socket.packet() == '431["still here"]'


@pytest.mark.parametrize(
    "packet", ["4", "49", "4abc", "42", "42{}", '42["unfinished', "451-abc", "40{bad", "b"]
)
async def test_a_bad_socketio_packet_closes_at_once(calm: int, packet: str) -> None:
    async with websocket(calm, path=SOCKETIO) as socket:
        await connected(socket)
        if packet == "b":
            socket.send(BINARY, b"an attachment of nothing")
        else:
            socket.say(packet)
        assert await socket.close_code() == 1000


# ---- the framing, through both ways in


@both_ways
async def test_a_handshake_on_a_used_connection_works_and_first_frames_may_come_with_it(
    calm: int, way: str
) -> None:
    hasty = client_frame(TEXT, b"4first") + client_frame(TEXT, b"4second")
    async with handshaken(calm, way, first=hasty) as socket:
        assert str(await socket.packet())[0] == "0"
        assert await socket.packets(2) == ["4first", "4second"]
        await assert_alive(socket)


async def test_a_handshake_after_a_whole_polling_session_on_the_same_connection(calm: int) -> None:
    async with await RawHttp.open(calm) as http:
        session = Polling(calm, http, http, ENGINE)
        await session.begin()
        await session.post("4a", "4b")
        assert await session.take(2) == ["4a", "4b"]
        assert (await http.handshake(f"{ENGINE}?{WEBSOCKET}&sid={session.sid}")).status == 101
        socket = RawWebSocket(http)
        socket.say("2probe")
        assert await socket.packet() == "3probe"
        socket.say("5")
        await assert_alive(socket)


@both_ways
async def test_control_frames_may_come_between_fragments(calm: int, way: str) -> None:
    async with websocket(calm, way) as socket:
        socket.send(TEXT, b"4one ", fin=False)
        socket.send(PING, b"p1")
        socket.send(CONTINUATION, "gr\u00fc".encode()[:3], fin=False)
        socket.send(PONG, b"nobody asked")
        socket.send(CONTINUATION, "gr\u00fc".encode()[3:], fin=False)
        socket.send(PING, b"p2")
        socket.send(CONTINUATION, b"", fin=True)
        assert await socket.frame() == (PONG, b"p1")
        assert await socket.frame() == (PONG, b"p2")
        assert await socket.packet() == "4one grü"
        socket.send(BINARY, b"\x00", fin=False)
        socket.send(CONTINUATION, b"\xff")
        assert await socket.packet() == b"\x00\xff"


@both_ways
@pytest.mark.parametrize("size", [125, 126, 65535, 65536, MAX_PAYLOAD])
async def test_messages_of_any_size_up_to_the_announced_one_pass(calm: int, way: str, size: int) -> None:
    async with websocket(calm, way) as socket:
        packet = "4" + "x" * (size - 1)
        socket.say(packet)
        assert await socket.packet() == packet
        data = os.urandom(size)
        socket.send(BINARY, data)
        assert await socket.packet() == data


BROKEN = {
    "not masked": (1002, client_frame(TEXT, b"4a", masked=False)),
    "reserved bit": (1002, client_frame(TEXT, b"4a", reserved=0x40)),
    "reserved opcode": (1002, client_frame(3, b"4a")),
    "fragmented ping": (1002, client_frame(PING, b"", fin=False)),
    "long ping": (1002, client_frame(PING, b"x" * 126)),
    "nothing to continue": (1002, client_frame(CONTINUATION, b"4a")),
    "two messages at once": (1002, client_frame(TEXT, b"4a", fin=False) + client_frame(TEXT, b"4b")),
    "half a close code": (1002, client_frame(CLOSE, b"\x03")),
    "a close code of nobody": (1002, client_frame(CLOSE, b"\x03\xec")),
    "not UTF-8": (1007, client_frame(TEXT, b"4\xff\xfe")),
    "not UTF-8 over two": (1007, client_frame(TEXT, b"4\xc3", fin=False) + client_frame(CONTINUATION, b"(")),
    "a reason that is not UTF-8": (1007, client_frame(CLOSE, b"\x03\xe8\xff")),
    "too large": (1009, client_frame(TEXT, b"4" + b"x" * MAX_PAYLOAD)),
    "too large in two": (
        1009,
        client_frame(BINARY, b"x" * MAX_PAYLOAD, fin=False) + client_frame(CONTINUATION, b"x"),
    ),
}


@both_ways
@pytest.mark.parametrize("broken", BROKEN)
async def test_what_breaks_the_framing_is_closed_with_the_code_for_it(
    calm: int, way: str, broken: str
) -> None:
    code, data = BROKEN[broken]
    async with websocket(calm, way) as socket:
        socket.http.send(client_frame(TEXT, b"4before") + data)
        assert await socket.packet() == "4before"
        assert await socket.close_code() == code


@both_ways
@pytest.mark.parametrize("code", [None, 1000, 1001, 3000, 4999])
async def test_a_close_frame_is_answered_by_one_with_its_code(calm: int, way: str, code: int | None) -> None:
    async with websocket(calm, way) as socket:
        socket.say("4before")
        socket.send(CLOSE, b"" if code is None else code.to_bytes(2, "big") + b"bye")
        assert await socket.packet() == "4before"
        opcode, payload = await socket.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code or 1000)
        assert await socket.http.ended() == b"", "nothing comes behind a close frame"


@both_ways
async def test_the_session_ends_with_its_websocket(calm: int, way: str) -> None:
    async with polling(calm) as session:
        async with handshaken(calm, way, sid=session.sid) as socket:
            await move(session, socket)
            await assert_alive(socket)

        async def unknown() -> bool:
            async with await RawHttp.open(calm) as http:
                return (await http.handshake(f"{ENGINE}?{WEBSOCKET}&sid={session.sid}")).status == 400

        await eventually(unknown, within=DEADLINE / 2, otherwise=lambda: "the session outlives its WebSocket")
