"""The front door: looks at the first request of each connection.

A WebSocket handshake is answered here and the connection given to its slim protocol; everything else goes,
bytes and all, to aiohttp. What a whole HTTP server does for a handshake costs more CPU and memory than the rest
of a WebSocket client's life.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

import httptools

from ditochat.engine.deadlines import DeadlineWheel

__all__ = ["Door", "Handshake", "Opener", "Porter"]

# A head takes 10 s or its connection is closed; aiohttp's own limits hold from there on.
HEAD_SECONDS: Final = 10.0
MAX_HEAD_BYTES: Final = 32 * 1024
_END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass(slots=True)
class Handshake:
    """A request's head; header names are in lower case, of a repeated header the values are joined."""

    method: str = ""
    target: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def on_url(self, target: bytes) -> None:
        """Take a part of the target, as httptools calls it."""
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, as httptools calls it."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text


class Opener(Protocol):
    """Decides on handshakes."""

    def __call__(self, handshake: Handshake) -> tuple[asyncio.Protocol, bytes] | None:
        """Return the protocol that takes the connection and what is written first; ``None``: not for us."""


class Porter:
    """What all doors share: who opens, who gets the rest, who is let in at all, and the deadlines."""

    def __init__(
        self,
        opener: Opener,
        rest: Callable[[], asyncio.Protocol],
        admits: Callable[[asyncio.Transport], bool] = lambda _: True,
    ) -> None:
        self.opener = opener
        self.rest = rest
        self.admits = admits
        self._deadlines: DeadlineWheel[Door] = DeadlineWheel(0.5)
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> "Door":
        """Make the protocol of a new connection."""
        return Door(self)

    def expect_head(self, door: "Door") -> None:
        """Give a connection its time for a complete head."""
        loop = asyncio.get_running_loop()
        self._deadlines.set(door, loop.time() + HEAD_SECONDS)
        if self._timer is None:
            self._timer = loop.call_later(HEAD_SECONDS, self._expire)

    def head_arrived(self, door: "Door") -> None:
        """Forget a connection's deadline."""
        self._deadlines.drop(door)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        for door in self._deadlines.expire(loop.time()):
            door.expired()
        due = self._deadlines.next_due()
        self._timer = None if due is None else loop.call_at(due, self._expire)


class Door(asyncio.Protocol):
    """One connection, until its first head is complete."""

    __slots__ = ("_head", "_porter", "_transport")

    def __init__(self, porter: Porter) -> None:
        self._porter = porter
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the head."""
        # (asyncio declares it wider; uvloop's transports are no subclass.)
        self._transport = cast(asyncio.Transport, transport)
        if self._porter.admits(self._transport):
            self._porter.expect_head(self)
        else:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went before it said anything."""
        self._transport = None
        self._porter.head_arrived(self)

    def expired(self) -> None:
        """Close: the head did not come in time."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Collect the head; then give the connection away."""
        self._head += data
        if _END_OF_HEAD not in self._head and len(self._head) < MAX_HEAD_BYTES:
            return
        transport = self._transport
        if transport is None:
            return
        self._porter.head_arrived(self)
        self._transport = None
        opened = self._open()
        if opened is None:
            protocol, first, rest = self._porter.rest(), b"", self._head
        else:
            (protocol, first), rest = opened, self._head.partition(_END_OF_HEAD)[2]
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if first:
            transport.write(first)
        if rest:
            protocol.data_received(rest)

    def _open(self) -> tuple[asyncio.Protocol, bytes] | None:
        if b"upgrade" not in self._head.lower():
            return None
        handshake = Handshake()
        parser = httptools.HttpRequestParser(handshake)
        try:
            parser.feed_data(self._head)
        except httptools.HttpParserUpgrade:
            handshake.method = parser.get_method().decode("latin-1")
            return self._porter.opener(handshake)
        except httptools.HttpParserError:
            return None  # aiohttp says what is wrong with it
        return None
