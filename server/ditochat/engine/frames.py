"""The framing of a WebSocket server: bytes to messages and back (RFC 6455, section 5).

Pure: no I/O and no clock. No extension is negotiated, so a frame is never compressed. There is one
:class:`FrameParser` per client, and most of them are idle: between messages it holds no buffer at all.
"""

from enum import IntEnum
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = [
    "Close",
    "Frame",
    "FrameParser",
    "Opcode",
    "ProtocolViolation",
    "encode_close",
    "encode_frame",
]


class Opcode(IntEnum):
    """What a frame is (5.2); from 8 on they are control frames."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Close(NamedTuple):
    """What a CLOSE frame says; ``code`` is ``None`` where it says nothing (7.1.5)."""

    code: int | None
    reason: str


Frame: TypeAlias = (
    tuple[Literal[Opcode.TEXT], str]
    | tuple[Literal[Opcode.BINARY, Opcode.PING, Opcode.PONG], bytes]
    | tuple[Literal[Opcode.CLOSE], Close]
)
"""A complete message, or a control frame. (A plain tuple: a NamedTuple costs 0.3 us more to make.)"""


class ProtocolViolation(NamedTuple):
    """What a client did wrong: the ``code`` to close with (1002, 1007 or 1009), and why."""

    code: int
    reason: str


# Names of their own, because they are read for each frame.
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY

_FINAL: Final = 0x80
_RESERVED_BITS: Final = 0x70
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_KEY_BYTES: Final = 4
_SHORT_HEADER_BYTES: Final = 2 + _KEY_BYTES

_MAX_CONTROL_BYTES: Final = 125
_MAX_REASON_BYTES: Final = _MAX_CONTROL_BYTES - 2
_IN_2_BYTES: Final = 126
_IN_8_BYTES: Final = 127
_MAX_1_BYTE_LENGTH: Final = 125
_MAX_2_BYTE_LENGTH: Final = 0xFFFF
_MAX_8_BYTE_LENGTH: Final = 0x7FFF_FFFF_FFFF_FFFF

_FIRST_BYTES: Final = frozenset(
    [opcode | _FINAL for opcode in Opcode] + [Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY]
)
"""The valid ones: the other values have a reserved bit, a reserved opcode, or fragment a control frame."""

_FINAL_TEXT: Final = _FINAL | Opcode.TEXT

_PROTOCOL_ERROR: Final = 1002
_INVALID_DATA: Final = 1007
_TOO_BIG: Final = 1009

# 7.4.1 and the registry it opened (11.7), which has 1012 to 1014; 1004, 1005, 1006 and 1015 must not be
# sent, and others below 3000 are nobody's. 7.4.2: 3000 to 4999 belong to libraries and applications.
_CLOSE_CODES: Final = frozenset([*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)])


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Return an unfragmented frame, not masked, as a server sends it (5.1).

    Raises:
        ValueError: a control frame of more than 125 bytes (5.5).
    """
    length = len(payload)
    if length <= _MAX_1_BYTE_LENGTH:
        return bytes((_FINAL | opcode, length)) + payload
    if opcode & _CONTROL:
        raise ValueError(f"expected at most {_MAX_CONTROL_BYTES} bytes in a control frame, got {length}")
    if length <= _MAX_2_BYTE_LENGTH:
        return bytes((_FINAL | opcode, _IN_2_BYTES)) + length.to_bytes(2, "big") + payload
    return bytes((_FINAL | opcode, _IN_8_BYTES)) + length.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a CLOSE frame; ``reason`` is cut to the 123 bytes that fit, between two characters.

    Raises:
        ValueError: no endpoint may send this ``code`` (7.4).
    """
    if code not in _CLOSE_CODES:
        raise ValueError(f"expected a code that a CLOSE frame may carry, got {code}")
    # What is cut off in the middle of a character is ignored; a lone surrogate becomes a question mark.
    fitting = reason.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
    return encode_frame(Opcode.CLOSE, code.to_bytes(2, "big") + fitting)


class FrameParser:
    """What one client sends, as messages of at most ``max_message_bytes``, and control frames.

    Where the client breaks a rule, ``violation`` says which, once and for all: it is ``None`` until then.
    ``closed`` is true from there on, and likewise after a CLOSE frame: further bytes are ignored.
    """

    __slots__ = ("_message", "_rest", "closed", "max_message_bytes", "violation")

    def __init__(self, max_message_bytes: int) -> None:
        self.closed = False
        self.violation: ProtocolViolation | None = None
        self.max_message_bytes = max_message_bytes
        self._message: _Message | None = None
        # The start of a header or of a control frame, at most 130 bytes: it is read again with what follows.
        self._rest: bytes | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes, cut anywhere; return what is complete with them, in order.

        It never raises: look at ``violation`` once the frames, which came before it, are dealt with.
        """
        frames: list[Frame] = []
        if self.closed:
            return frames
        try:
            if self._rest is not None:
                data = self._rest + data
                self._rest = None
            elif self._message is None and (start := _start_of_lone_text(data)):
                self._check_data_frame(_TEXT, len(data) - start)
                frames.append((_TEXT, _text(_unmask(data[start:], data[start - _KEY_BYTES : start]))))
                return frames
            self._parse(data, frames)
        except _Violated as violated:
            self.violation = violated.violation
            self._close()
        return frames

    def _close(self) -> None:
        self.closed = True
        self._message = None

    def _parse(self, data: bytes, frames: list[Frame]) -> None:
        position = 0
        size = len(data)
        while position < size:
            message = self._message
            if message is not None and message.missing:
                position = self._take_payload(message, data, position, frames)
                continue
            header = _read_header(data, position)
            if header is None:
                self._rest = data[position:]
                return
            start, length = header
            stop = start + length
            first = data[position]
            if first & _CONTROL:
                if stop > size:
                    self._rest = data[position:]
                    return
                frame = _control_frame(
                    first & _OPCODE, _unmask(data[start:stop], data[start - _KEY_BYTES : start])
                )
                frames.append(frame)
                if frame[0] is Opcode.CLOSE:  # 1.4: what follows it is not looked at
                    self._close()
                    return
                position = stop
                continue
            self._check_data_frame(first & _OPCODE, length)
            if message is None:
                if stop <= size and first & _FINAL:
                    # Nearly every message: in one frame, and in one piece.
                    payload = _unmask(data[start:stop], data[start - _KEY_BYTES : start])
                    frames.append((_TEXT, _text(payload)) if first == _FINAL_TEXT else (_BINARY, payload))
                    position = stop
                    continue
                message = self._message = _Message(first & _OPCODE)
            message.begin_frame(length, key=data[start - _KEY_BYTES : start], final=bool(first & _FINAL))
            position = self._take_payload(message, data, start, frames)

    def _check_data_frame(self, opcode: int, length: int) -> None:
        """Check the header of a data frame against the message that is under way."""
        message = self._message
        if message is None:
            if opcode == Opcode.CONTINUATION:  # 5.4
                raise _Violated(_PROTOCOL_ERROR, "a continuation frame, but nothing to continue")
        else:
            if opcode != Opcode.CONTINUATION:  # 5.4
                raise _Violated(_PROTOCOL_ERROR, "a new message before the end of the one before it")
            length += len(message.data)
        if length > self.max_message_bytes:  # 10.4, 7.4.1
            raise _Violated(_TOO_BIG, f"a message is larger than {self.max_message_bytes} bytes")

    def _take_payload(self, message: "_Message", data: bytes, start: int, frames: list[Frame]) -> int:
        """Move what belongs to the current frame into the message; return where it ends in ``data``."""
        stop = min(start + message.missing, len(data))
        if message.take(data[start:stop]):
            self._message = None
            frames.append(message.as_frame())
        return stop


class _Violated(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.violation = ProtocolViolation(code, reason)


class _Message:
    """A message that is under way: in several frames, or in one that is not all there yet.

    What came of it is appended to one buffer, however small the pieces, and a frame is unmasked when it is
    complete: each byte is touched a fixed number of times, and an empty fragment leaves nothing behind.
    """

    __slots__ = ("_final", "_frame_start", "_key", "_opcode", "data", "missing")

    def __init__(self, opcode: int) -> None:
        self.data = bytearray()
        self.missing = 0
        self._opcode = opcode

    def begin_frame(self, length: int, *, key: bytes, final: bool) -> None:
        self.missing = length
        self._frame_start = len(self.data)
        self._key = key
        self._final = final

    def take(self, payload: bytes) -> bool:
        """Append the next bytes of the current frame; tell whether the message is complete with them."""
        self.data += payload
        self.missing -= len(payload)
        if self.missing:
            return False
        self.data[self._frame_start :] = _unmask(self.data[self._frame_start :], self._key)
        return self._final

    def as_frame(self) -> Frame:
        return (_TEXT, _text(self.data)) if self._opcode == _TEXT else (_BINARY, bytes(self.data))


def _start_of_lone_text(data: bytes) -> int:
    """Return where the payload starts if ``data`` is one whole, valid text of at most 64 KB; 0 if not.

    A short cut for what clients usually send: 1.2 us instead of 1.9 for a text of 150 bytes, all in all.
    """
    size = len(data)
    if size < _SHORT_HEADER_BYTES or data[0] != _FINAL_TEXT:
        return 0
    length = size - _SHORT_HEADER_BYTES
    if length <= _MAX_1_BYTE_LENGTH:
        return _SHORT_HEADER_BYTES if data[1] == _MASKED | length else 0
    length -= 2
    if data[1] == _MASKED | _IN_2_BYTES and _MAX_1_BYTE_LENGTH < length == data[2] << 8 | data[3]:
        return _SHORT_HEADER_BYTES + 2
    return 0


def _read_header(data: bytes, position: int) -> tuple[int, int] | None:
    """Return where the payload starts and its length; ``None`` where the header is not all there."""
    size = len(data)
    start = position + _SHORT_HEADER_BYTES
    if size < position + 2:
        return None
    first = data[position]
    second = data[position + 1]
    if first not in _FIRST_BYTES:
        raise _first_byte_violated(first)
    if not second & _MASKED:  # 5.1
        raise _Violated(_PROTOCOL_ERROR, "a frame is not masked")
    length = second & _LENGTH
    if length > _MAX_1_BYTE_LENGTH:
        if first & _CONTROL:  # 5.5
            raise _Violated(_PROTOCOL_ERROR, f"a control frame is larger than {_MAX_CONTROL_BYTES} bytes")
        width, shortest, longest = (
            (2, _MAX_1_BYTE_LENGTH + 1, _MAX_2_BYTE_LENGTH)
            if length == _IN_2_BYTES
            else (8, _MAX_2_BYTE_LENGTH + 1, _MAX_8_BYTE_LENGTH)
        )
        start += width
        if size < position + 2 + width:
            return None
        length = int.from_bytes(data[position + 2 : position + 2 + width], "big")
        if length < shortest:  # 5.2
            raise _Violated(_PROTOCOL_ERROR, "a length is not in its shortest form")
        if length > longest:  # 5.2
            raise _Violated(_PROTOCOL_ERROR, "the top bit of a length is set")
    return (start, length) if start <= size else None


def _first_byte_violated(first: int) -> _Violated:
    if first & _RESERVED_BITS:  # 5.2
        return _Violated(_PROTOCOL_ERROR, "a reserved bit is set, but no extension was negotiated")
    if first | _FINAL in _FIRST_BYTES:  # 5.5
        return _Violated(_PROTOCOL_ERROR, "a control frame is fragmented")
    return _Violated(_PROTOCOL_ERROR, f"the opcode {first & _OPCODE} is reserved")  # 5.2


def _control_frame(opcode: int, payload: bytes) -> Frame:
    if opcode == Opcode.PONG:
        return (Opcode.PONG, payload)
    if opcode == Opcode.PING:
        return (Opcode.PING, payload)
    if not payload:
        return (Opcode.CLOSE, Close(None, ""))
    if len(payload) == 1:  # 5.5.1
        raise _Violated(_PROTOCOL_ERROR, "a close frame has half a code")
    code = int.from_bytes(payload[:2], "big")
    if code not in _CLOSE_CODES:  # 7.4.1, 7.4.2
        raise _Violated(_PROTOCOL_ERROR, f"a close frame has the code {code}, which may not be sent")
    return (Opcode.CLOSE, Close(code, _text(payload[2:])))


def _text(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:  # 8.1, 5.5.1
        raise _Violated(_INVALID_DATA, "a text is not UTF-8") from None


def _unmask(payload: bytes | bytearray, key: bytes) -> bytes:
    """Return ``payload`` XOR ``key``, repeated (5.3).

    As two long integers: 0.5 us for 150 bytes, where a loop in Python takes 8 us, and four strided
    ``bytes.translate`` 1.4 us (these win from 64 KB on only, and then by half).
    """
    length = len(payload)
    keys = (key * (length // _KEY_BYTES + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(length, "little")
