"""A WebSocket connection on asyncio: RFC 6455 frames on one side, a handler's methods on the other.

One slim object per connection, and no task, queue or stream: what arrives is handed on within
``data_received``, what is sent is written to the transport at once.
"""

import asyncio
import base64
import hashlib
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, cast

from ditochat.engine.frames import FrameParser, Opcode, encode_close, encode_frame

__all__ = ["WebSocketProtocol", "accept_key", "accept_response", "handshake_key", "join_frames"]

# RFC 6455, section 1.3
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
# How long a peer may take to answer a close frame.
CLOSE_SECONDS: Final = 5.0
# What one system call is given at most.
PIECE_BYTES: Final = 64 * 1024
# In place of a descriptor: write by the transport.
_BY_TRANSPORT: Final = -1
_HEAD: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


def handshake_key(method: str, headers: Mapping[str, str]) -> str | None:
    """Return the key of a valid opening handshake (RFC 6455, section 4.2.1), else ``None``.

    ``headers`` has lower-case names, or finds them in any case.
    """
    connection = {token.strip() for token in headers.get("connection", "").lower().split(",")}
    key = headers.get("sec-websocket-key", "").strip()
    try:
        valid_key = len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except ValueError:
        return None
    valid = (
        method == "GET"
        and headers.get("upgrade", "").strip().lower() == "websocket"
        and "upgrade" in connection
        and headers.get("sec-websocket-version", "").strip() == "13"
        and valid_key
    )
    return key if valid else None


def accept_key(key: str) -> str:
    """Return what proves that the handshake was understood (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def accept_response(key: str) -> bytes:
    """Return the server's half of the handshake (RFC 6455, section 4.2.2); no extension is accepted."""
    return _HEAD + accept_key(key).encode() + b"\r\n\r\n"


def join_frames(frames: Sequence[bytes]) -> Sequence[bytes]:
    """Join frames into pieces of at most :data:`PIECE_BYTES`, or of one frame: each is one system call."""
    if len(frames) == 1:
        return frames
    joined = b"".join(frames)
    if len(joined) <= PIECE_BYTES:
        return (joined,)
    pieces: list[list[bytes]] = [[]]
    size = 0
    for frame in frames:
        if pieces[-1] and size + len(frame) > PIECE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(frame)
        size += len(frame)
    return [b"".join(piece) for piece in pieces]


class WebSocketProtocol(asyncio.Protocol):
    """The server's end of one connection; subclasses say what messages mean.

    ``max_message_bytes`` bounds what one message may take up.
    """

    __slots__ = (
        "_descriptor",
        "_pong",
        "_soon",
        "_writable",
        "backlog",
        "backlog_bytes",
        "close_sent",
        "farewell",
        "parser",
        "paused",
        "transport",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self.parser = FrameParser(max_message_bytes)
        self.transport: asyncio.Transport | None = None
        self.close_sent = False
        self.farewell: asyncio.TimerHandle | None = None
        self.paused = False
        self.backlog: deque[bytes] | None = None
        self.backlog_bytes = 0
        self._pong: bytes | None = None
        # The socket's descriptor, where we may write to it ourselves ...
        self._descriptor = _BY_TRANSPORT
        # ... and while we may: nothing waits here or in the transport, and no close frame is sent.
        self._writable = _BY_TRANSPORT
        self._soon: list[bytes] | None = None

    def message_received(self, message: str | bytes) -> None:
        """Take one message."""
        raise NotImplementedError

    def pinged(self, payload: bytes) -> None:
        """Answer a ping, at once if the peer reads; else only the newest one, as section 5.5.3 allows."""
        if self.paused:
            self._pong = payload
        else:
            self.write_now(encode_frame(Opcode.PONG, payload))

    def pong_received(self) -> None:
        """Take the answer to a ping of ours."""

    def closed(self) -> None:
        """The connection is gone."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection whose handshake is done."""
        # (asyncio declares it wider; uvloop's transports are no subclass.)
        self.transport = taken = cast(asyncio.Transport, transport)
        # A transport of asyncio's own asks for a pause as soon as anything waits in it. So as long as it has
        # not, we write to the socket ourselves: a delivery costs 1.2 us less than by way of it.
        taken.set_write_buffer_limits(0)
        self.paused = taken.get_write_buffer_size() > 0
        socket = taken.get_extra_info("socket")
        if (
            isinstance(transport, asyncio.Transport)
            and socket is not None
            and taken.get_extra_info("sslcontext") is None
        ):
            self._descriptor = socket.fileno()
            self._write_directly()

    def data_received(self, data: bytes) -> None:
        """Hand on the messages in ``data``, answer its control frames."""
        for frame in self.parser.feed(data):
            if self.close_sent:
                if frame[0] is Opcode.CLOSE and self.transport is not None:
                    self.transport.close()
            elif frame[0] is Opcode.TEXT or frame[0] is Opcode.BINARY:
                self.message_received(frame[1])
            elif frame[0] is Opcode.PING:
                self.pinged(frame[1])
            elif frame[0] is Opcode.PONG:
                self.pong_received()
            elif frame[0] is Opcode.CLOSE:
                # Section 5.5.1: a close frame is answered by one, with the code that it had.
                self.send_close(frame[1].code or 1000)
                if self.transport is not None:
                    self.transport.close()
        if self.parser.violation is not None:
            self.send_close(self.parser.violation.code, self.parser.violation.reason)
            # Its close frame cannot be found in what it sends now, but the end of its stream can.
            if self.transport is not None and not self.backlog and self.transport.can_write_eof():
                self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed, by whomever."""
        self.close_sent = True
        self.transport = None
        self._descriptor = self._writable = _BY_TRANSPORT
        self._soon = None
        self.backlog = None
        self.backlog_bytes = 0
        if self.farewell is not None:
            self.farewell.cancel()
        self.closed()

    def pause_writing(self) -> None:
        """The peer reads more slowly than we write: keep what follows back."""
        self.paused = True
        self._writable = _BY_TRANSPORT

    def resume_writing(self) -> None:
        """The peer has read on; send what was kept back, in a turn of its own.

        Written from within this call, it would meet an end of the connection that asyncio (3.11 to 3.13, in
        ``_SelectorSocketTransport._write_ready``) then reports twice, the second time as an error.
        """
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport is None or self.transport.get_write_buffer_size() > 0:
            return  # what was written meanwhile filled it again: the transport will say so
        self.paused = False
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.write_now(encode_frame(Opcode.PONG, pong))
        while self.backlog and not self.paused and self.transport is not None:
            self.transport.write(self._take_kept_back(self.backlog))
        if not self.backlog:
            self.backlog = None
            self._write_directly()

    def write(self, pieces: Sequence[bytes]) -> int:
        """Send whole frames; return how many bytes wait for the peer now.

        What is not taken at once is kept back, so that a ping, or a close frame, can still overtake it.
        """
        waiting = 0
        for frames in pieces:
            rest = frames
            if self._writable != _BY_TRANSPORT:
                try:
                    sent = os.write(self._writable, frames)
                except OSError:
                    sent = 0  # it would block; or the transport meets the same error, and knows what to do
                if sent == len(frames):
                    continue
                rest = frames[sent:]
            waiting = self._write_by_transport(rest)
        return waiting

    def write_soon(self, frame: bytes) -> None:
        """Send a frame with all that goes to this peer in this turn of the loop: one system call for all.

        What is written meanwhile stays behind it.
        """
        if self.transport is None or self.close_sent:
            return
        if self._soon is None:
            self._soon = []
            self._writable = _BY_TRANSPORT
            asyncio.get_running_loop().call_soon(self._write_what_is_due)
        self._soon.append(frame)

    def write_now(self, frame: bytes) -> None:
        """Send a control frame, ahead of what is kept back."""
        if self.transport is not None and not self.close_sent:
            self.transport.write(frame)

    def _write_by_transport(self, frames: bytes) -> int:
        """Send some frames, or keep them back; return how many bytes wait."""
        transport = self.transport
        if transport is None or self.close_sent:
            return 0
        if self._soon is not None:
            self._soon.append(frames)
        elif self.paused:
            self._keep_back(frames)
        else:
            transport.write(frames)
        return self.waiting_bytes()

    def waiting_bytes(self) -> int:
        """Return how many bytes wait for the peer."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size() + self.backlog_bytes

    def _write_what_is_due(self) -> None:
        frames, self._soon = self._soon, None
        if frames is not None:
            self._write_directly()
            self.write(join_frames(frames))

    def _write_directly(self) -> None:
        """Write to the socket from now on, if nothing speaks against it."""
        if not self.paused and not self.close_sent and self._soon is None:
            self._writable = self._descriptor

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self.write_now(encode_frame(Opcode.PING, b""))

    def send_close(self, code: int = 1000, reason: str = "", *, drop: bool = False) -> None:
        """Send a close frame behind what waits, or in its place; the connection ends with the peer's answer.

        To close the socket at once would make the kernel drop what the peer has not read yet, if the peer is
        sending (RFC 6455, section 7.1.1, and RFC 1122, section 4.2.2.13). A peer that does not answer is cut
        off after :meth:`farewell_seconds`.
        """
        if self.transport is None or self.close_sent:
            return
        if drop:
            self.backlog = self._soon = None
            self.backlog_bytes = 0
        self._write_what_is_due()
        if self.backlog:
            self._keep_back(encode_close(code, reason))
        else:
            self.transport.write(encode_close(code, reason))
        self.close_sent = True
        self._writable = _BY_TRANSPORT
        loop = asyncio.get_running_loop()
        self.farewell = loop.call_later(self.farewell_seconds(), self.abort)

    def farewell_seconds(self) -> float:
        """Return how long the peer may take to read what waits and to answer a close frame."""
        return CLOSE_SECONDS

    def abort(self) -> None:
        """Close at once; what is buffered is lost."""
        if self.transport is not None:
            self.close_sent = True
            self._writable = _BY_TRANSPORT
            self.transport.abort()

    def _keep_back(self, frames: bytes) -> None:
        if self.backlog is None:
            self.backlog = deque()
        self.backlog.append(frames)
        self.backlog_bytes += len(frames)

    def _take_kept_back(self, backlog: deque[bytes]) -> bytes:
        """Take out as much as one system call is given."""
        taken = [backlog.popleft()]
        size = len(taken[0])
        while backlog and size + len(backlog[0]) <= PIECE_BYTES:
            taken.append(backlog.popleft())
            size += len(taken[-1])
        self.backlog_bytes -= size
        return b"".join(taken)
