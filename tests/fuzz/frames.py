"""The frame parser against RFC 6455, read a second time and as plainly as can be."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from operator import xor
from random import Random
from typing import Final, NoReturn

from ditochat.engine.frames import Frame, FrameParser, Opcode, encode_close, encode_frame
from tests.fuzz.mutation import Mutator
from tests.fuzz.target import Check, Target
from tests.harness.raw_client import client_frame

__all__ = ["TARGET", "frames"]

LIMIT: Final = 300
# A header has at most 14 bytes; a control frame, which waits whole, 131 with its own.
MAX_REST_BYTES: Final = 131
_MORE: Final = client_frame(Opcode.TEXT, b"more")
_SENDABLE: Final = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
_OPCODES: Final = frozenset(Opcode)


class _Broken(Exception):
    """The stream breaks a rule; the argument is the code to close with."""


def check_frames(data: bytes, parser: Callable[[int], FrameParser] = FrameParser) -> None:
    """Hold the parser against the reading below, and against itself, cut anywhere."""
    whole = parser(LIMIT)
    found = whole.feed(data)
    expected, code, complete = _read(data)
    assert found == expected, (found, expected)
    assert (whole.violation and whole.violation.code) == code, (whole.violation, code)
    _check_state(whole, complete=complete)
    if whole.violation is not None:
        assert whole.closed
        encode_close(whole.violation.code, whole.violation.reason)
    if whole.closed:
        assert whole.feed(_MORE) == []

    cut = parser(LIMIT)
    pieces: list[Frame] = []
    for piece in _cut(data):
        pieces += cut.feed(piece)
        _check_state(cut, complete=False)
    assert pieces == found, (pieces, found)
    assert cut.violation == whole.violation, (cut.violation, whole.violation)
    _check_state(cut, complete=complete)


def _check_state(parser: FrameParser, *, complete: bool) -> None:
    rest, message = parser._rest, parser._message  # noqa: SLF001 - what it holds is the question
    assert len(rest or b"") <= MAX_REST_BYTES
    assert message is None or len(message.data) <= LIMIT
    if complete:
        assert rest is None
        assert message is None
    assert not parser.closed or message is None


def _cut(data: bytes) -> Iterator[bytes]:
    """Cut the input into pieces, the same each time; some are empty."""
    random = Random(zlib.crc32(data))  # noqa: S311 - to be drawn again, not to be secret
    # Byte by byte only what is short: a million inputs have to be affordable.
    widest = max(random.choice((1, 3, 20, 200)), len(data) // 40)
    start = 0
    while start < len(data):
        stop = start + random.randint(0 if random.random() < 0.1 else 1, widest)
        yield data[start:stop]
        start = stop


def _read(data: bytes) -> tuple[list[Frame], int | None, bool]:  # noqa: PLR0912 - as the RFC has it, top to bottom
    """Return the frames, the code of a violation, and whether nothing is begun at the end."""
    frames: list[Frame] = []
    message: list[bytes] = []
    kind = 0
    position = 0
    try:
        while position + 2 <= len(data):
            first, second = data[position], data[position + 1]
            opcode, final = first & 0x0F, bool(first & 0x80)
            control = opcode >= 8
            if first & 0x70 or opcode not in _OPCODES or (control and not final) or not second & 0x80:
                _break(1002)
            length, start = second & 0x7F, position + 2
            if length >= 126:
                if control:
                    _break(1002)
                width = 2 if length == 126 else 8
                if start + width > len(data):
                    return frames, None, False
                length = int.from_bytes(data[start : start + width], "big")
                if length < (126 if width == 2 else 65536) or length >= 2**63:
                    _break(1002)
                start += width
            if start + 4 > len(data):
                return frames, None, False
            if not control:
                if (opcode == 0) != bool(kind):
                    _break(1002)
                if sum(map(len, message)) + length > LIMIT:
                    _break(1009)
            key, payload = data[start : start + 4], data[start + 4 : start + 4 + length]
            position = start + 4 + length
            if position > len(data):
                return frames, None, False
            payload = bytes(map(xor, payload, cycle(key)))
            if opcode == Opcode.CLOSE:
                frames.append((Opcode.CLOSE, _close(payload)))  # type: ignore[arg-type]  # a tuple, to compare
                return frames, None, False
            if opcode == Opcode.PING:
                frames.append((Opcode.PING, payload))
            elif opcode == Opcode.PONG:
                frames.append((Opcode.PONG, payload))
            else:
                kind = kind or opcode
                message.append(payload)
                if final:
                    joined, message = b"".join(message), []
                    frames.append(
                        (Opcode.TEXT, _text(joined)) if kind == Opcode.TEXT else (Opcode.BINARY, joined)
                    )
                    kind = 0
    except _Broken as broken:
        return frames, broken.args[0], False
    return frames, None, position == len(data) and not kind


def _break(code: int) -> NoReturn:
    raise _Broken(code)


def _close(payload: bytes) -> tuple[int | None, str]:
    if not payload:
        return None, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in _SENDABLE:
        raise _Broken(1002)
    return code, _text(payload[2:])


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _Broken(1007) from None


def _stream(random: Random) -> bytes:
    """Some frames of a client that knows the rules, mostly."""
    frames: list[bytes] = []
    open_message = False
    for _ in range(random.randint(1, 5)):
        if random.random() < 0.3:
            opcode, final = random.choice((Opcode.PING, Opcode.PONG, Opcode.CLOSE)), True
            payload = random.randbytes(random.choice((0, 1, 2, 5, 125)))
            if opcode == Opcode.CLOSE and random.random() < 0.8:
                payload = random.choice((b"", b"\x03\xe8", b"\x03\xe8bye", b"\x0f\xa0" + "é".encode()))
        else:
            opcode = Opcode.CONTINUATION if open_message else random.choice((Opcode.TEXT, Opcode.BINARY))
            final = random.random() < 0.6
            open_message = not final
            length = random.choice((0, 1, 5, 60, 125, 126, 127, LIMIT, LIMIT + 1))
            payload = random.choice((b"x", "é".encode(), "\U0001f600".encode())) * length
            payload = payload[:length]
        frames.append(_masked(random, opcode, payload, final=final))
    return b"".join(frames)


def _masked(random: Random, opcode: int, payload: bytes, *, final: bool) -> bytes:
    frame = bytearray(encode_frame(opcode, payload))
    head = len(frame) - len(payload)
    key = random.choice((b"\0\0\0\0", random.randbytes(4)))
    frame[0] = opcode | 0x80 * final
    frame[1] |= 0x80
    masked = bytes(map(xor, payload, cycle(key)))
    return bytes(frame[:head]) + key + masked


def _draws(random: Random) -> Callable[[], bytes]:
    seeds = [_stream(random) for _ in range(2000)]
    tokens = [
        b"\x81\xfe\x00\x7d", b"\x81\xff" + bytes(8), b"\x81\xff\x80" + bytes(7), b"\x82\xff\x7f" + b"\xff" * 7,
        b"\x88\x80", b"\x89\x80", b"\x8a\xfe", b"\x08\x80", b"\x00\x80", b"\x80\x80\0\0\0\0", b"\xc1\x80",
        b"\x83\x80", b"\x8b\x80", b"\x81\x00", b"\x01\x80\0\0\0\0", b"\x88\x81\0\0\0\0\x03",
        b"\x88\x82\0\0\0\0\x03\xed", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80",
    ]  # fmt: skip
    return Mutator(random, seeds, tokens, separator=b"\0\0\0\0").draw


@contextmanager
def frames(parser: Callable[[int], FrameParser] = FrameParser) -> Iterator[Check]:
    """Fuzz a parser; the tests of the fuzzer bring one with a fault."""
    yield lambda data: check_frames(data, parser)


TARGET: Final = Target("frames", 300, frames, _draws)
