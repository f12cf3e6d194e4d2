"""HTTP and WebSocket as bytes on a TCP connection: a client that can do what real ones never would."""

import asyncio
import base64
import hashlib
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from tests.harness.ports import HOST

__all__ = ["Answer", "RawHttp", "RawWebSocket", "client_frame", "narrow_socket"]

WITHIN = 8.0  # seconds for any answer: far below the heartbeat of 25 and 20 s
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _CLOSE = 0, 1, 8


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """One frame of a client."""
    length = len(payload)
    if length < 126:
        size = bytes([length | 0x80 * masked])
    elif length < 2**16:
        size = bytes([126 | 0x80 * masked]) + length.to_bytes(2, "big")
    else:
        size = bytes([127 | 0x80 * masked]) + length.to_bytes(8, "big")
    head = bytes([0x80 * fin | reserved | opcode]) + size
    if not masked:
        return head + payload
    key = os.urandom(4)
    keys = (key * (length // 4 + 1))[:length]
    xored = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return head + key + xored.to_bytes(length, "big")


async def narrow_socket(port: int) -> socket.socket:
    """Connect a socket whose peer notices before a megabyte or so that nobody reads from it."""
    narrow = socket.socket()
    narrow.setblocking(False)
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    # As on a real network: for the loopback's large segments Linux would buffer 4 MB.
    narrow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    try:
        await asyncio.get_running_loop().sock_connect(narrow, (HOST, port))
    except BaseException:
        narrow.close()
        raise
    return narrow


class RawHttp:
    """One kept-alive connection; use it by `async with`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, *, narrow: bool = False, **options: object) -> Self:
        """Connect; `options` are those of `asyncio.open_connection`.

        When nobody reads from a `narrow` one, the server notices before a megabyte or so.
        """
        async with asyncio.timeout(WITHIN):
            where = {"sock": await narrow_socket(port)} if narrow else {"host": HOST, "port": port}
            return cls(*await asyncio.open_connection(limit=2**22, **where, **options))  # type: ignore[arg-type]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):
            async with asyncio.timeout(WITHIN):
                await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)

    def send_request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        """Write a request."""
        lines = {"Host": "localhost"} | ({"Content-Length": str(len(body))} if body else {}) | (headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def answer(self, *, bodiless: bool = False, within: float | None = WITHIN) -> Answer:
        """Read an answer."""
        async with asyncio.timeout(within):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            body = b""
            if not bodiless and first.split()[1] != "101":
                body = await self.reader.readexactly(int(headers["content-length"]))
            return Answer(int(first.split()[1]), headers, body)

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Ask, and read the answer."""
        self.send_request(method, target, body, headers)
        return await self.answer()

    async def handshake(self, target: str, first: bytes = b"") -> Answer:
        """Ask for a WebSocket, with `first` in the same segment, and check the answer if it is 101."""
        key = base64.b64encode(os.urandom(16)).decode()
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + first)
        answer = await self.answer()
        if answer.status == 101:
            digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
            assert answer.headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
            assert answer.headers["upgrade"].lower() == "websocket"
            assert "sec-websocket-extensions" not in answer.headers
        return answer

    async def ended(self) -> bytes:
        """Read up to the end of the connection; return what came before it."""
        async with asyncio.timeout(WITHIN):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def reset(self) -> None:
        """End the connection by RST."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.writer.transport.abort()


class RawWebSocket:
    """The frames on a connection whose handshake is done; Engine.IO's pings are answered."""

    def __init__(self, http: RawHttp) -> None:
        self.http = http

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> None:
        """Write one frame."""
        self.http.send(client_frame(opcode, payload, fin=fin, reserved=reserved))

    def say(self, *packets: str) -> None:
        """Write each packet as a text, all in one segment."""
        self.http.send(b"".join(client_frame(_TEXT, packet.encode()) for packet in packets))

    async def frame(self, within: float | None = WITHIN) -> tuple[int, bytes]:
        """Read one frame."""
        async with asyncio.timeout(within):
            first, second = await self.http.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "a server's frame is final here, and has no reserved bit"
            assert second < 0x80, "a server does not mask"
            width = {126: 2, 127: 8}.get(second, 0)
            length = int.from_bytes(await self.http.reader.readexactly(width), "big") if width else second
            return first & 0x0F, await self.http.reader.readexactly(length)

    async def packet(self) -> str | bytes:
        """Read the next packet that is not a ping; CLOSE frames are not expected."""
        while True:
            opcode, payload = await self.frame()
            assert opcode != _CLOSE, f"closed: {payload!r}"
            if opcode == _TEXT and payload == b"2":
                self.say("3")
            else:
                return payload.decode() if opcode == _TEXT else payload

    async def packets(self, count: int) -> list[str | bytes]:
        """Read so many packets."""
        return [await self.packet() for _ in range(count)]

    async def close_code(self) -> int | None:
        """Read up to a CLOSE frame, answer it, and check that it is the last thing; return its code.

        Pings are passed over: whoever is being closed need not answer.
        """
        while True:
            opcode, payload = await self.frame()
            if opcode == _CLOSE:
                break
        self.send(_CLOSE, payload[:2])
        assert await self.http.ended() == b""
        return int.from_bytes(payload[:2], "big") if payload else None
