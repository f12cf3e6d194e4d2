"""The WebSocket protocol on a real socket: what goes out when, and in which order."""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from ditochat.engine.frames import Opcode, encode_close, encode_frame
from ditochat.engine.websocket import WebSocketProtocol
from tests.harness.ports import HOST
from tests.harness.raw_client import client_frame
from tests.harness.waiting import until

# More than loopback's buffers hold for a peer that does not read.
LARGE = 16 * 1024 * 1024


class Echoless(WebSocketProtocol):
    """Keeps what arrives, and whether the connection has ended."""

    def __init__(self) -> None:
        super().__init__(LARGE)
        self.messages: list[str | bytes] = []
        self.ended = 0

    def message_received(self, message: str | bytes) -> None:
        self.messages.append(message)

    def closed(self) -> None:
        self.ended += 1


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Echoless, asyncio.StreamReader, asyncio.StreamWriter]]:
    ends: list[Echoless] = []

    def accept() -> Echoless:
        ends.append(Echoless())
        return ends[-1]

    server = await asyncio.get_running_loop().create_server(accept, HOST, 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not ends or ends[0].transport is None:  # noqa: ASYNC110 - the loop accepts at once
            await asyncio.sleep(0)
        yield ends[0], reader, writer
    finally:
        server.close()
        writer.transport.abort()


def text(data: str) -> bytes:
    return encode_frame(Opcode.TEXT, data.encode())


async def test_what_is_written_after_what_goes_soon_stays_behind_it() -> None:
    async with connected() as (end, reader, _):
        end.write([text("0")])
        end.write_soon(text("1"))
        end.write([text("2")])
        end.write_soon(text("3"))
        expected = b"".join(text(str(number)) for number in range(4))
        assert await reader.readexactly(len(expected)) == expected
        end.write([text("4")])
        assert await reader.readexactly(len(text("4"))) == text("4")


async def test_what_goes_soon_goes_before_a_close_frame() -> None:
    async with connected() as (end, reader, _):
        end.write_soon(text("acknowledged"))
        end.send_close(1001, "bye")
        end.write_soon(text("too late"))
        end.write([text("too late")])
        expected = text("acknowledged") + encode_close(1001, "bye")
        assert await reader.readexactly(len(expected)) == expected


async def test_a_peer_that_reads_slowly_gets_everything_in_order() -> None:
    async with connected() as (end, reader, _):
        frames = [text(f"{number:>100000}") for number in range(LARGE // 100_000)]
        waiting = [end.write([frame]) for frame in frames]
        assert waiting[0] == 0
        assert waiting[-1] > 0
        end.write_soon(text("soon"))
        expected = b"".join(frames) + text("soon")
        assert await reader.readexactly(len(expected)) == expected
        while end.backlog is not None:  # noqa: ASYNC110 - the loop is about to resume writing
            await asyncio.sleep(0)
        assert end.write([text("again")]) == 0
        assert await reader.readexactly(len(text("again"))) == text("again")


async def test_a_ping_overtakes_what_a_slow_peer_has_not_been_sent_yet() -> None:
    async with connected() as (end, reader, _):
        frame = text("x" * 100_000)
        count = LARGE // len(frame)
        for _ in range(count):
            end.write([frame])
        end.ping()
        ping = encode_frame(Opcode.PING, b"")
        received = await reader.readexactly(count * len(frame) + len(ping))
        position = received.index(ping + frame[:4])
        assert position < count * len(frame)
        assert received[:position] + received[position + len(ping) :] == frame * count


async def test_a_peer_that_pings_and_does_not_read_is_owed_the_newest_pong_only() -> None:
    async with connected() as (end, reader, _):
        end.write([text("x" * LARGE)])
        waiting = end.waiting_bytes()
        assert waiting > 0
        for number in range(1000):
            end.data_received(client_frame(Opcode.PING, str(number).encode()))
        assert end.waiting_bytes() == waiting
        end.write([text("after")])
        expected = text("x" * LARGE) + encode_frame(Opcode.PONG, b"999") + text("after")
        assert await reader.readexactly(len(expected)) == expected


class Unlucky(Echoless):
    """Its peer resets the connection just when it has read on."""

    peer: socket.socket

    def resume_writing(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        super().resume_writing()


async def test_a_peer_that_resets_the_connection_when_it_has_read_on_ends_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    end, loop = Unlucky(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: end, HOST, 0)
    end.peer = socket.socket()
    end.peer.setblocking(False)
    await loop.sock_connect(end.peer, server.sockets[0].getsockname())
    await until(lambda: end.transport is not None)
    end.write([text("x" * LARGE)])
    end.write([text("kept back")])
    while end.peer.fileno() >= 0:
        with suppress(BlockingIOError):
            end.peer.recv(LARGE)
        await asyncio.sleep(0)
    await until(lambda: end.ended > 0)
    await asyncio.sleep(0)  # what else asyncio has to say comes in the next turn of the loop
    server.close()
    assert end.ended == 1
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("soon", [False, True])
async def test_a_peer_that_resets_the_connection_ends_it_once(*, soon: bool) -> None:
    async with connected() as (end, _, writer):
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

        while not end.ended:
            if soon:
                end.write_soon(text("to nobody"))
            else:
                end.write([text("to nobody")])
            await asyncio.sleep(0)
        assert end.write([text("to nobody")]) == 0
        end.write_soon(text("to nobody"))
        await asyncio.sleep(0)
        assert end.ended == 1
