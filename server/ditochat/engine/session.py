"""One Engine.IO session as a machine: packets and times in, answers out, no I/O.

A session is carried by long polling or by a WebSocket, and may move from the first to the second. What it has
to say while it polls waits in :attr:`Session.queue`; over a WebSocket whoever owns the session writes at once.
The shells do what the answers say and nothing else, so every rule of the protocol is here.
https://socket.io/docs/v4/engine-io-protocol
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ditochat.engine.packets import BadPacket, Packet, PacketType, encode_payload

__all__ = ["CloseReason", "Config", "Poll", "Session"]

NOOP: Final = b"6"
CLOSE: Final = b"1"
PING: Final = "2"
PROBE: Final = "probe"
# python-engineio's client refuses a payload with more.
MAX_PACKETS_IN_A_POLL: Final = 16


class CloseReason(Enum):
    """Why a session ended; the words are python-socketio's."""

    CLIENT = "client disconnect"
    SERVER = "server disconnect"
    PING_TIMEOUT = "ping timeout"
    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"


class Poll(Enum):
    """The answer to a GET."""

    REFUSED = auto()
    """400: there is no session to poll (any more), or it is on a WebSocket."""
    CONFLICT = auto()
    """400, and the GET that was held already gets CLOSE: the session has ended."""
    CLOSE = auto()
    """200 with CLOSE: the session has ended, and all that waited has been fetched."""
    NOOP = auto()
    """200 with NOOP: the client is moving to a WebSocket."""
    DATA = auto()
    """200 with what :meth:`Session.take_payload` returns."""
    WAIT = auto()
    """Hold it until there is something to say."""


@dataclass(frozen=True, slots=True)
class Config:
    """What is announced in the handshake; times in seconds, ``max_payload`` in bytes."""

    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    max_payload: int = 1_000_000
    transports: tuple[str, ...] = ("polling", "websocket")

    def handshake(self, sid: str, *, polling: bool) -> str:
        """Return the OPEN packet, with milliseconds that are true below a second, too."""
        upgrades = '["websocket"]' if polling and "websocket" in self.transports else "[]"
        # A session id has no character that JSON would escape.
        return (
            f'0{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":{round(self.ping_interval * 1000)},'
            f'"pingTimeout":{round(self.ping_timeout * 1000)},"maxPayload":{self.max_payload}}}'
        )


class Session:
    """The state of one client.

    ``probing`` is true between the probe on a new WebSocket and the UPGRADE that follows: nothing but NOOP is
    sent meanwhile, so that nothing can overtake.
    """

    __slots__ = (
        "awaiting_pong",
        "closed",
        "on_websocket",
        "polling",
        "probing",
        "queue",
        "queued_bytes",
        "sid",
    )

    def __init__(self, sid: str, *, on_websocket: bool) -> None:
        self.sid = sid
        self.on_websocket = on_websocket
        self.closed: CloseReason | None = None
        self.awaiting_pong = False
        self.probing = False
        self.polling = False
        """Whether a GET is held."""
        # A deque takes 600 bytes even empty; most clients are on a WebSocket and never need one.
        self.queue: deque[tuple[str, int]] | None = None if on_websocket else deque()
        self.queued_bytes = 0

    def say(self, packet: str, size: int) -> None:
        """Queue a written packet of ``size`` bytes, for a client that polls or is just moving."""
        if self.queue is not None and self.closed is None:
            self.queue.append((packet, size))
            self.queued_bytes += size

    def poll(self) -> Poll:
        """Take a GET."""
        if self.closed is not None or self.on_websocket:
            return Poll.REFUSED
        if self.polling:
            self.close(CloseReason.TRANSPORT_ERROR)
            return Poll.CONFLICT
        if self.probing:
            return Poll.NOOP
        if self.queue:
            return Poll.DATA
        self.polling = True
        return Poll.WAIT

    def take_payload(self) -> bytes:
        """Take out what the next poll gets."""
        queue = self.queue or deque()
        taken = [queue.popleft() for _ in range(min(len(queue), MAX_PACKETS_IN_A_POLL))]
        self.queued_bytes -= sum(size for _, size in taken)
        self.polling = False
        return encode_payload([packet for packet, _ in taken])

    def take_all(self) -> list[str]:
        """Take out all that waits: the client is on a WebSocket now."""
        packets = [packet for packet, _ in self.queue or ()]
        self.queue = None
        self.queued_bytes = 0
        return packets

    def receive(self, packet: Packet) -> str | bytes | None:
        """Take a packet of the transport in use; return a message's data.

        Raises:
            BadPacket: a client does not send this; the session has to be closed.
        """
        kind, data = packet
        if kind is PacketType.MESSAGE:
            return data
        if kind is PacketType.PONG:
            self.awaiting_pong = False
        elif kind is PacketType.CLOSE:
            self.close(CloseReason.CLIENT)
        elif kind in (PacketType.OPEN, PacketType.PING):
            raise BadPacket(f"{kind.name} is the server's to send")
        return None  # UPGRADE and NOOP mean nothing here

    def probe(self, packet: Packet) -> bool:
        """Take a packet of a WebSocket that the client may move to; ``True`` when it has moved.

        Raises:
            BadPacket: neither a probe nor, after one, UPGRADE: close the WebSocket; the session lives.
        """
        if not self.probing and packet == (PacketType.PING, PROBE) and self.closed is None:
            self.probing = True
            return False
        if self.probing and packet[0] is PacketType.UPGRADE and self.closed is None:
            self.probing = False
            self.on_websocket = True
            return True
        raise BadPacket("expected the probe, then UPGRADE")

    def close(self, reason: CloseReason) -> bool:
        """End the session; ``False`` where it had ended already."""
        if self.closed is not None:
            return False
        self.closed = reason
        self.probing = False
        return True
