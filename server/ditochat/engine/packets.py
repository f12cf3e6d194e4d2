"""Engine.IO 4 packets and long-polling payloads, as the protocol page has them.

Pure. https://socket.io/docs/v4/engine-io-protocol: a packet is a type and its data; over WebSocket a packet
is a frame, over long polling packets are joined by the record separator, binary data is base64 behind a `b`.
"""

import base64
import binascii
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

__all__ = ["SEPARATOR", "BadPacket", "Packet", "PacketType", "decode_frame", "decode_payload", "encode_text"]

SEPARATOR: Final = "\x1e"


class PacketType(IntEnum):
    """What a packet is for; the digit that it begins with."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


_TYPES: Final = {str(int(kind)): kind for kind in PacketType}
Packet = tuple[PacketType, str | bytes]


class BadPacket(ValueError):
    """What arrived is not a packet; the text says why."""


def decode_frame(frame: str | bytes) -> Packet:
    """Read one packet: a text, or binary data, which is a message always.

    Raises:
        BadPacket: it is empty, of an unknown type, or not base64.
    """
    if isinstance(frame, bytes):
        return PacketType.MESSAGE, frame
    kind = _TYPES.get(frame[:1])
    if kind is None:
        raise BadPacket(f"expected a packet type from 0 to 6, got {frame[:1]!r}")
    return kind, frame[1:]


def decode_payload(body: bytes) -> list[Packet]:
    """Read the body of a POST: one or more packets.

    Raises:
        BadPacket: as :func:`decode_frame`, or the body is not UTF-8.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadPacket(f"expected UTF-8: {error.reason} at byte {error.start}") from None
    return [_decode_part(part) for part in text.split(SEPARATOR)]


def _decode_part(part: str) -> Packet:
    if not part.startswith("b"):
        return decode_frame(part)
    try:
        return PacketType.MESSAGE, base64.b64decode(part[1:], validate=True)
    except (binascii.Error, ValueError):
        raise BadPacket("expected base64 after b") from None


def encode_text(packet: Packet) -> str:
    """Write a packet for a long-polling payload."""
    kind, data = packet
    if isinstance(data, bytes):
        return "b" + base64.b64encode(data).decode()
    return f"{int(kind)}{data}"


def encode_payload(packets: Iterable[str]) -> bytes:
    """Join packets that are written already."""
    return SEPARATOR.join(packets).encode()
