"""Bytes that no client should send, for a server that must bear them. Pure."""

import random
from collections.abc import Callable
from typing import Final

from tests.harness.raw_client import client_frame

__all__ = ["malformed"]

_HANDSHAKE: Final = (
    b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_TARGETS: Final = (b"/ws", b"/ws?after=0", b"/socket.io/?EIO=4&transport=websocket")
_TEXTS: Final = (
    b"",
    b"4",
    b"40" + b"[" * 500,
    b"42" + b"[" * 5000,
    b'42["message"',
    b'42["message",{"text":""}]',
    b'421["message",{"text":1}]',
    b"451-[]",
    b'459["message",{"_placeholder":true,"num":7}]',
    b'40{"after":-1}',
    b"7",
    b"1",
    b"\xff\xfe",
    b'{"text":"\\ud800"}',
    b'{"text":' + b"x" * 5000,
    b"x" * 70_000,
)


def malformed(chance: random.Random) -> bytes:
    """Return what one connection sends."""
    return chance.choice(_KINDS)(chance)


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 300))


def _head(chance: random.Random) -> bytes:
    method = chance.choice((b"GET", b"POST", b"BREW", b"", b"GET\0", b"OPTIONS"))
    target = chance.choice(
        (*_TARGETS, b"/messages", b"*", b"http://[", b"/" + b"a" * 9000, b"/%zz", b"/\xff")
    )
    headers = chance.choice(
        (
            b"",
            b"Content-Length: -1\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Host\r\n",
            b": \r\n",
            b"X: " + b"y" * 40_000 + b"\r\n",
        )
    )
    return method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n" + _noise(chance)


def _post(chance: random.Random) -> bytes:
    target = chance.choice((b"/messages", b"/socket.io/?EIO=4&transport=polling&sid=nobody"))
    body = chance.choice(_TEXTS)
    head = b"POST " + target + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _frames(chance: random.Random) -> bytes:
    frames = [
        client_frame(
            chance.choice((0, 1, 1, 1, 2, 3, 8, 9, 15)),
            chance.choice(_TEXTS),
            fin=chance.random() < 0.9,
            masked=chance.random() < 0.95,
            reserved=chance.choice((0, 0, 0, 0x40)),
        )
        for _ in range(chance.randrange(1, 5))
    ]
    whole = b"".join((b"GET ", chance.choice(_TARGETS), b" HTTP/1.1\r\n", _HANDSHAKE, *frames))
    return whole[: -chance.randrange(1, 20)] if chance.random() < 0.2 else whole


_KINDS: Final[tuple[Callable[[random.Random], bytes], ...]] = (_noise, _head, _post, _frames, _frames)
