"""The door on real sockets: what it keeps, what it gives to aiohttp, and that nothing gets lost there."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from ditochat.engine import door
from ditochat.engine.door import Handshake, Porter
from ditochat.engine.websocket import WebSocketProtocol, accept_response, handshake_key
from tests.engine.front import serve_front
from tests.harness.raw_client import RawHttp, RawWebSocket, client_frame
from tests.harness.waiting import until

TEXT = 1
HANDSHAKE = (
    b"GET /ws?a=b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3, has this pair


class Echo(WebSocketProtocol):
    """Says what is said to it."""

    def __init__(self) -> None:
        super().__init__(1_000_000)

    def message_received(self, message: str | bytes) -> None:
        assert isinstance(message, str)
        self.write([client_frame(TEXT, message.encode(), masked=False)])

    def closed(self) -> None:
        pass


class House:
    """A door, what it let in, and aiohttp behind it."""

    def __init__(self) -> None:
        self.port = 0
        self.opened: list[Handshake] = []
        self.porter: Porter | None = None

    def open(self, handshake: Handshake) -> tuple[asyncio.Protocol, bytes] | None:
        self.opened.append(handshake)
        key = handshake_key(handshake.method, handshake.headers)
        if key is None or not handshake.target.startswith(b"/ws"):
            return None
        return Echo(), accept_response(key)

    def awaiting_head(self) -> int:
        assert self.porter is not None
        return len(self.porter._deadlines)  # noqa: SLF001 - there is no other way to see what is left behind


@asynccontextmanager
async def house(tls: ssl.SSLContext | None = None) -> AsyncIterator[House]:
    async def say_what_came(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.path_qs} {(await request.read()).decode()}")

    built = House()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", say_what_came)
    async with serve_front(app, built.open, tls=tls) as (built.port, built.porter):
        yield built


async def served_meanwhile(at: House) -> None:
    """Return when the server has had its turn: what was sent before this has been read."""
    async with await RawHttp.open(at.port) as other:
        assert (await other.request("GET", "/meanwhile")).status == 200


async def assert_echoes(http: RawHttp) -> None:
    answer = await http.answer()
    assert (answer.status, answer.headers["sec-websocket-accept"]) == (101, ACCEPT.decode())
    socket = RawWebSocket(http)
    socket.say("hello")
    assert await socket.frame() == (TEXT, b"hello")


async def test_a_handshake_is_opened_with_its_target_and_headers() -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        http.send(HANDSHAKE.replace(b"Host:", b"X-Two: 1\r\nx-two: 2\r\nHost:"))
        await assert_echoes(http)
        assert at.opened[0].target == b"/ws?a=b"
        assert at.opened[0].headers["x-two"] == "1,2"
        assert at.opened[0].headers["upgrade"] == "websocket"


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_head_may_come_in_many_segments(size: int) -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        for start in range(0, len(HANDSHAKE), size):
            http.send(HANDSHAKE[start : start + size])
            await http.writer.drain()
            await asyncio.sleep(0)
        await assert_echoes(http)


@pytest.mark.parametrize("cut", [1, 60, len(HANDSHAKE) - 3, len(HANDSHAKE) - 1])
async def test_a_head_in_two_segments_with_a_pause_is_one(cut: int) -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        http.send(HANDSHAKE[:cut])
        await served_meanwhile(at)
        http.send(HANDSHAKE[cut:])
        await assert_echoes(http)


async def test_frames_right_behind_the_head_are_not_lost() -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        frames = client_frame(TEXT, b"one") + client_frame(TEXT, b"two")
        http.send(HANDSHAKE + frames[:9])
        await served_meanwhile(at)
        http.send(frames[9:])
        assert (await http.answer()).status == 101
        socket = RawWebSocket(http)
        assert [await socket.frame(), await socket.frame()] == [(TEXT, b"one"), (TEXT, b"two")]


async def test_a_handshake_that_nobody_wants_goes_to_aiohttp() -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        http.send(HANDSHAKE.replace(b"/ws?a=b", b"/elsewhere"))
        answer = await http.answer()
        assert (answer.status, answer.body) == (200, b"GET /elsewhere ")


async def test_pipelined_requests_go_to_aiohttp_intact() -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        http.send_request("GET", "/one?x=1")
        http.send_request("POST", "/two", b"the body of two")
        http.send_request("GET", "/three")
        bodies = [(await http.answer()).body for _ in range(3)]
        assert bodies == [b"GET /one?x=1 ", b"POST /two the body of two", b"GET /three "]
        assert (await http.request("GET", "/four")).body == b"GET /four "
        assert at.opened == []


@pytest.mark.parametrize("cut", [10, 70, 200])
async def test_a_body_that_is_cut_anywhere_goes_to_aiohttp_intact(cut: int) -> None:
    body = b"upgrade, upgrade: " + bytes(range(65, 91)) * 20
    request = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with house() as at, await RawHttp.open(at.port) as http:
        http.send(request[:cut])
        await served_meanwhile(at)
        http.send(request[cut:])
        assert (await http.answer()).body == b"POST /a " + body


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\nUpgrade: websocket\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nUpgrade websocket\r\n\r\n",
        b"\r\n\r\n\x00\x00upgrade\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_aiohttp_s_400(garbage: bytes) -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        http.send(garbage)
        assert (await http.answer()).status == 400
        await http.ended()
        assert at.opened == []


@pytest.mark.parametrize("ended", [True, False])
async def test_an_oversized_head_goes_to_aiohttp(ended: bool) -> None:
    async with house() as at, await RawHttp.open(at.port) as http:
        http.send(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nX-Long: " + b"x" * door.MAX_HEAD_BYTES)
        if ended:
            http.send(b"\r\n\r\n")
        assert (await http.answer()).status == 400
        assert at.opened == []


async def test_a_head_that_is_never_complete_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_SECONDS", 0.2)
    async with house() as at, await RawHttp.open(at.port) as silent, await RawHttp.open(at.port) as slow:
        slow.send(HANDSHAKE[:50])
        await served_meanwhile(at)
        slow.send(HANDSHAKE[50:60])
        assert await silent.ended() == b""
        assert await slow.ended() == b""
        assert at.awaiting_head() == 0


async def test_who_has_sent_a_head_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HEAD_SECONDS", 0.2)
    async with house() as at, await RawHttp.open(at.port) as http, await RawHttp.open(at.port) as plain:
        http.send(HANDSHAKE)
        await assert_echoes(http)
        assert (await plain.request("GET", "/a")).status == 200
        async with await RawHttp.open(at.port) as silent:
            assert await silent.ended() == b""  # opened last, so the others' time is up, too
        socket = RawWebSocket(http)
        socket.say("still here")
        assert await socket.frame() == (TEXT, b"still here")
        assert (await plain.request("GET", "/b")).status == 200


@pytest.mark.parametrize("said", [b"", b"GET / HT", HANDSHAKE[:-2]])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_connection_that_ends_before_its_head_leaves_nothing(said: bytes, reset: bool) -> None:
    async with house() as at:
        async with await RawHttp.open(at.port) as http:
            http.send(said)
            await until(lambda: at.awaiting_head() == 1)
            if reset:
                http.reset()
        await until(lambda: at.awaiting_head() == 0)
        assert at.opened == []
        await served_meanwhile(at)


def self_signed(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for a server and for a client that trusts it."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost",
        ],
        check=True,
        capture_output=True,
        timeout=20,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


async def test_behind_tls_all_is_the_same(tmp_path: Path) -> None:
    server, client = await asyncio.to_thread(self_signed, tmp_path)

    def connect(at: House) -> Awaitable[RawHttp]:
        return RawHttp.open(at.port, ssl=client, server_hostname="localhost")

    async with house(server) as at:
        async with await connect(at) as http:
            http.send(HANDSHAKE[:40])
            async with await connect(at) as plain:
                assert (await plain.request("POST", "/a", b"body")).body == b"POST /a body"
                assert (await plain.request("GET", "/b")).body == b"GET /b "
            http.send(HANDSHAKE[40:])
            await assert_echoes(http)
            socket = RawWebSocket(http)
            socket.say("x" * 300_000)
            assert await socket.frame() == (TEXT, b"x" * 300_000)
            socket.send(8, b"\x03\xe8")
            assert await socket.frame() == (8, b"\x03\xe8")
            assert await http.ended() == b""
        async with await RawHttp.open(at.port) as insecure:
            insecure.send(HANDSHAKE)
            await insecure.ended()
        assert len(at.opened) == 1
