"""python-socketio's server on our Engine.IO server, with its gaps closed.

What it leaves open, and what the protocol page (https://socket.io/docs/v4/socket-io-protocol) and the
reference server ask for: a packet that cannot be read closes the connection; an unknown namespace is refused
in the words that socket.io-client's users know; a second CONNECT to a namespace is ignored, and so is an event
before CONNECT; a client that never sends CONNECT is closed.

All private names of python-socketio that we lean on are in :data:`PRIVATE_NAMES`.
"""

import logging
from typing import Any, Final

import socketio
from socketio import packet
from socketio.packet import Packet

from ditochat.engine.server import EngineServer

__all__ = ["CONNECT_SECONDS", "PRIVATE_NAMES", "StrictServer", "ack_arguments", "check_event"]

logger = logging.getLogger(__name__)

# socket.io's own server waits as long for the first CONNECT.
CONNECT_SECONDS: Final = 45.0
# As socket.io's own parser; what a packet announces is kept until all of it is there.
MAX_ATTACHMENTS: Final = 10
_BINARY_TYPES: Final = (packet.BINARY_EVENT, packet.BINARY_ACK)
# What python-socketio raises where a packet has not the form that it expects.
_BAD_PACKET: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)

PRIVATE_NAMES: Final = {
    socketio.AsyncServer: (
        "_engineio_server_class",
        "_handle_ack",
        "_handle_connect",
        "_handle_disconnect",
        "_handle_eio_disconnect",
        "_handle_event",
        "_send_packet",
    ),
    socketio.AsyncManager: ("_generate_ack_id",),
    socketio.AsyncRedisManager: ("_listen", "_publish", "_thread"),
}


class StrictServer(socketio.AsyncServer):  # type: ignore[misc]  # python-socketio has no type information
    """An ``AsyncServer`` that keeps to the protocol; options as there, handlers in order of arrival."""

    def __init__(self, **options: Any) -> None:
        super().__init__(logger=logging.getLogger("socketio"), **options)
        self._begun: dict[str, Packet] = {}
        """Packets whose attachments are still to come."""
        self.eio.on("connect", self.transport_opened)
        self.eio.on("message", self._received)
        self.eio.on("disconnect", self.transport_closed)

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    def transport_opened(self, eio_sid: str) -> None:
        """Begin with a new Engine.IO session."""
        self.environ[eio_sid] = {}
        self.eio.set_deadline(eio_sid, CONNECT_SECONDS)

    def transport_closed(self, eio_sid: str, reason: str) -> None:
        """An Engine.IO session has ended."""
        self._begun.pop(eio_sid, None)
        self.eio.start_background_task(self._handle_eio_disconnect, eio_sid, reason)

    def packet_received(self, eio_sid: str, received: Packet) -> None:
        """Take one whole packet. Tasks run in the order in which they are made, so packets stay in theirs."""
        self.eio.start_background_task(self._handle_packet, eio_sid, received)

    def has_joined(self, eio_sid: str, namespace: str) -> bool:
        """Tell whether a client's CONNECT to the namespace was accepted."""
        return self.manager.sid_from_eio_sid(eio_sid, namespace) is not None

    def undecodable(self, eio_sid: str, data: str | bytes, error: Exception) -> None:
        """Close the transport of a client that does not keep to the protocol."""
        logger.info("closing a client that sent a bad packet: %.200s", error)
        self._begun.pop(eio_sid, None)
        self.eio.close(eio_sid)

    def _received(self, eio_sid: str, data: str | bytes) -> None:
        try:
            received = self._decode(eio_sid, data)
            if received is not None:
                self.packet_received(eio_sid, received)
        except _BAD_PACKET as error:
            self.undecodable(eio_sid, data, error)

    def _decode(self, eio_sid: str, data: str | bytes) -> Packet | None:
        """Return a packet once all of it is there."""
        begun = self._begun.get(eio_sid)
        if begun is not None:
            if isinstance(data, str):
                raise ValueError("expected an attachment, got text")
            if not begun.add_attachment(data):
                return None
            del self._begun[eio_sid]
            return begun
        if not isinstance(data, str):
            raise TypeError("an attachment without its packet")
        received = Packet(encoded_packet=data)
        if received.packet_type not in _BINARY_TYPES:
            return received
        if not 1 <= received.attachment_count <= MAX_ATTACHMENTS:
            raise ValueError(f"expected 1 to {MAX_ATTACHMENTS} attachments")
        if not self.has_joined(eio_sid, received.namespace or "/"):
            raise ValueError("attachments before CONNECT")
        self._begun[eio_sid] = received
        return None

    async def _handle_packet(self, eio_sid: str, received: Packet) -> None:
        namespace = received.namespace or "/"
        try:
            if received.packet_type == packet.CONNECT:
                await self._connect_strictly(eio_sid, namespace, received.data)
            elif not self.has_joined(eio_sid, namespace):
                logger.info("passed over: a packet for %.80s before CONNECT", namespace)
            elif received.packet_type == packet.DISCONNECT:
                await self._handle_disconnect(eio_sid, namespace, self.reason.CLIENT_DISCONNECT)
            elif received.packet_type in (packet.EVENT, packet.BINARY_EVENT):
                check_event(received.data)
                await self._handle_event(eio_sid, namespace, received.id, received.data)
            elif received.packet_type in (packet.ACK, packet.BINARY_ACK):
                data = ack_arguments(received.data)
                if received.id:  # python-socketio keeps its counter under the id 0
                    await self._handle_ack(eio_sid, namespace, received.id, data)
            else:
                raise ValueError(f"a client does not send packets of type {received.packet_type}")
        except _BAD_PACKET as error:
            self.undecodable(eio_sid, "", error)

    async def _connect_strictly(self, eio_sid: str, namespace: str, data: Any) -> None:
        if namespace not in self.namespaces and namespace not in self.handlers:
            await self.refuse(eio_sid, namespace, {"message": "Invalid namespace"})
        elif self.manager.sid_from_eio_sid(eio_sid, namespace) is None:
            self.eio.drop_deadline(eio_sid)
            await self._handle_connect(eio_sid, namespace, data)

    async def refuse(self, eio_sid: str, namespace: str, reason: dict[str, Any]) -> None:
        """Answer a CONNECT by CONNECT_ERROR."""
        await self._send_packet(eio_sid, Packet(packet.CONNECT_ERROR, data=reason, namespace=namespace))


def check_event(data: object) -> None:
    """Check that an event has a name.

    Raises:
        ValueError: it has none. (python-socketio would take a string's first letter for it.)
    """
    if not (isinstance(data, list) and data and isinstance(data[0], (str, int, float))):
        raise ValueError("expected an array that begins with the event's name")


def ack_arguments(data: object) -> list[Any]:
    """Return what is acknowledged; where a packet ends with its id, that is nothing.

    Raises:
        ValueError: it is no array. (python-socketio would unpack an object or a string, too.)
    """
    if isinstance(data, list):
        return data
    if data is None:
        return []
    raise ValueError("expected an array of what is acknowledged")
