"""The framing against wsproto, which is somebody else's reading of RFC 6455, and against the RFC's own words.

Where the two readings differ:

- wsproto finds a text not to be UTF-8 as soon as it is; we at the end of the message (both are allowed).
- wsproto reads all of a header's length before it complains of the bits in front; we do not wait for it.
- wsproto does not know the close code 1014, which was registered later.
- wsproto has no limit for a message.
"""

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from ditochat.engine.frames import (
    Close,
    Frame,
    FrameParser,
    Opcode,
    ProtocolViolation,
    encode_close,
    encode_frame,
)

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG
CONTROL = {CLOSE, PING, PONG}
UNLIMITED = 2**64
KEY = bytes.fromhex("37fa213d")
LONGEST_HEADER = 14

Frames = list[tuple[int, Any]]


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, key: bytes = KEY, width: int | None = None
) -> bytes:
    """A client's frame; ``width`` is the number of bytes for the length where it is not to be the least."""
    length = len(payload)
    if width is None:
        width = 0 if length < 126 else 2 if length < 2**16 else 8
    short = {0: length, 2: 126, 8: 127}[width]
    header = bytes([0x80 * fin | opcode, 0x80 | short]) + (length.to_bytes(width, "big") if width else b"")
    return header + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[start:stop] for start, stop in pairwise([0, *sorted(cuts), len(data)])]


def parse(*data: bytes, limit: int = UNLIMITED) -> tuple[list[Frame], ProtocolViolation | None]:
    parser = FrameParser(limit)
    frames = [frame for piece in data for frame in parser.feed(piece)]
    return frames, parser.violation


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def reference(*data: bytes, client: bool = False) -> tuple[Frames, int | None]:
    """What wsproto makes of it: whole messages, and the code where it fails."""
    protocol = FrameProtocol(client=client, extensions=[])
    frames: Frames = []
    message: Any = None
    for piece in data:
        protocol.receive_bytes(piece)
        try:
            for frame in protocol.received_frames():
                if isinstance(frame.payload, tuple):
                    code, reason = frame.payload
                    frames.append((CLOSE, (None if code == 1005 else int(code), reason)))
                elif frame.opcode.iscontrol():
                    frames.append((int(frame.opcode), frame.payload))
                else:
                    message = frame.payload if message is None else message + frame.payload
                    if frame.message_finished:
                        frames.append((int(frame.opcode), message))
                        message = None
        except ParseFailed as failed:
            return frames, int(failed.code)
    return frames, None


keys = st.binary(min_size=4, max_size=4)
# Around each change of the header's form; the content is a pattern, so that hypothesis has little to draw.
sizes = st.sampled_from([0, 1, 5, 124, 125, 126, 127, 300, 65_535, 65_536])
texts = st.text(max_size=20) | st.builds(
    lambda size, end: "x" * size + end, sizes, st.sampled_from(["", "é"])
)
binaries = st.binary(max_size=20) | st.builds(
    lambda size, pattern: (pattern * size)[:size], sizes, st.binary(min_size=1, max_size=7)
)
sendable_codes = st.sampled_from([*range(1000, 1004), *range(1007, 1014), 3000, 3999, 4000, 4999])
pings = st.builds(client_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), key=keys)
short_reasons = st.text(max_size=60).map(
    lambda reason: reason.encode()[:123].decode(errors="ignore").encode()
)
closes = st.builds(
    lambda code, reason, key: client_frame(CLOSE, code.to_bytes(2, "big") + reason, key=key),
    sendable_codes,
    short_reasons,
    keys,
) | st.just(client_frame(CLOSE))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """The frames of one message: in any fragments, with control frames between them."""
    content = draw(texts | binaries)
    opcode, payload = (TEXT, content.encode()) if isinstance(content, str) else (BINARY, content)
    parts = pieces(payload, draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    sent = b""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        sent += client_frame(CONTINUATION if number else opcode, part, fin=last, key=draw(keys))
        if not last:
            sent += b"".join(draw(st.lists(pings, max_size=2)))
    return sent


streams = st.builds(
    lambda frames, close: b"".join(frames) + close,
    st.lists(messages() | pings, max_size=5),
    st.just(b"") | closes | st.builds(lambda close, more: close + more, closes, st.binary(max_size=20)),
)


def cut(data: st.DataObject, stream: bytes) -> list[bytes]:
    return pieces(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=8), label="cuts"))


@given(streams, st.data())
def test_any_valid_stream_cut_anywhere_gives_what_the_reference_gives(
    stream: bytes, data: st.DataObject
) -> None:
    expected = reference(stream)
    assert expected[1] is None
    assert parse(stream) == expected
    assert parse(*cut(data, stream)) == expected
    if len(stream) < 2000:
        assert parse(*bytewise(stream)) == expected


@st.composite
def damaged_streams(draw: st.DrawFn) -> bytes:
    """Valid frames with some bytes changed, lost or added, mostly where headers are."""
    stream = bytearray(draw(streams.filter(lambda stream: 0 < len(stream) < 1000)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(stream)))
        new = draw(st.binary(max_size=2) | st.sampled_from(HEADER_BYTES).map(lambda byte: bytes([byte])))
        stream[at : at + draw(st.integers(0, 2))] = new
    return bytes(stream)


HEADER_BYTES = [
    0x00,
    0x01,
    0x02,
    0x08,
    0x80,
    0x81,
    0x82,
    0x83,
    0x85,
    0x88,
    0x89,
    0x8A,
    0xC1,
    0xFD,
    0xFE,
    0xFF,
]
noise = st.binary(max_size=60) | st.lists(st.sampled_from(HEADER_BYTES), max_size=40).map(bytes)
# Behind the damage, so that a header which it left half finished is finished by something.
FILLER = 6 * client_frame(PONG, key=bytes(4))


@given(noise | damaged_streams(), st.data())
def test_whatever_is_sent_is_judged_as_the_reference_judges_it(damaged: bytes, data: st.DataObject) -> None:
    stream = damaged + FILLER
    frames, violation = parse(stream)
    assert parse(*cut(data, stream)) == (frames, violation)
    assume(frames[-1:] != [(CLOSE, (1014, ""))])
    their_frames, their_code = reference(stream)

    if their_code == 1007:
        # We find it at the end of the message, if that ever comes: nothing but control frames until then.
        assert frames[: len(their_frames)] == their_frames
        assert all(frame[0] in CONTROL for frame in frames[len(their_frames) :])
        return
    assert frames == their_frames
    if their_code is not None:
        assert violation is not None
        assert violation.code == their_code
    # The reference may still wait for the rest of a header of which we know enough.
    early = parse(stream[:-LONGEST_HEADER])[1]
    assert early is None or early.code == their_code


@given(noise | damaged_streams(), st.integers(0, 200))
def test_a_limit_only_ever_cuts_short_what_would_be_delivered(damaged: bytes, limit: int) -> None:
    unlimited, _ = parse(damaged)
    frames, violation = parse(damaged, limit=limit)
    assert frames == unlimited[: len(frames)]
    assert frames == unlimited or (violation is not None and violation.code == 1009)
    for frame in frames:
        if frame[0] is Opcode.TEXT:
            assert len(frame[1].encode()) <= limit
        elif frame[0] is Opcode.BINARY:
            assert len(frame[1]) <= limit


def test_the_examples_of_the_rfc() -> None:  # 5.7
    assert encode_frame(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert parse(bytes.fromhex("818537fa213d7f9f4d5158")) == ([(TEXT, "Hello")], None)
    assert parse(bytes.fromhex("8a8537fa213d7f9f4d5158")) == ([(PONG, b"Hello")], None)
    assert encode_frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")
    assert encode_frame(BINARY, bytes(256)) == bytes.fromhex("827e0100") + bytes(256)
    assert encode_frame(BINARY, bytes(65_536)) == bytes.fromhex("827f0000000000010000") + bytes(65_536)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 124, 125, 126, 127, 128, 254, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_lone_frame_of_any_size_is_read_as_it_is_in_company(opcode: Opcode, size: int) -> None:
    frame = client_frame(opcode, b"x" * size)
    message = (opcode, "x" * size if opcode is TEXT else b"x" * size)
    assert parse(frame) == ([message], None)
    assert parse(frame + frame) == ([message, message], None)
    assert parse(frame[:-1], frame[-1:] + frame) == ([message, message], None)
    assert parse(frame[:-1]) == ([], None)


@pytest.mark.parametrize("size", [3, 125, 126, 127, 300])
def test_a_frame_may_be_cut_at_any_byte(size: int) -> None:
    frame = client_frame(TEXT, b"x" * size)
    for at in range(len(frame)):
        assert parse(frame[:at], frame[at:]) == ([(TEXT, "x" * size)], None)


@pytest.mark.parametrize("size", [3, 300])
def test_a_payload_that_looks_like_a_frame_is_a_payload(size: int) -> None:
    inner = client_frame(TEXT, b"x" * size)
    frame = client_frame(BINARY, inner * 3, key=bytes(4))
    header = len(frame) - 3 * len(inner)
    assert parse(*pieces(frame, [header, header + len(inner)])) == ([(BINARY, inner * 3)], None)
    assert parse(frame[:header], inner, inner, inner) == ([(BINARY, inner * 3)], None)


def test_control_frames_come_before_the_message_in_whose_middle_they_are() -> None:  # 5.4
    sent = client_frame(TEXT, b"a", fin=False) + client_frame(PING, b"p") + client_frame(CONTINUATION, b"b")
    assert parse(sent) == ([(PING, b"p"), (TEXT, "ab")], None)


def test_a_character_may_be_split_over_fragments() -> None:  # 8.1
    fragments = [client_frame(TEXT, b"\xe2", fin=False), client_frame(CONTINUATION, b"\x82", fin=False)]
    assert parse(b"".join(fragments) + client_frame(CONTINUATION, b"\xac")) == ([(TEXT, "€")], None)


def test_frames_are_named_by_the_enumeration() -> None:
    sent = [client_frame(opcode) for opcode in (TEXT, BINARY, PING, PONG, CLOSE)]
    frames, _ = parse(b"".join(sent))
    assert [frame[0].name for frame in frames] == ["TEXT", "BINARY", "PING", "PONG", "CLOSE"]
    assert frames[-1][1] == Close(None, "")


UNFINISHED = client_frame(TEXT, b"a", fin=False)


def unmasked(frame: bytes) -> bytes:
    return bytes([frame[0], frame[1] & 0x7F]) + frame[2:]


def close_with(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, code.to_bytes(2, "big") + reason)


NOT_UTF8 = {
    "a byte that is never in UTF-8": b"\xff",
    "a character cut off": "€".encode()[:2],
    "an overlong form": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
}

VIOLATIONS: dict[str, tuple[bytes, int]] = {
    # 5.2
    **{f"reserved bit {bit:#x}": (client_frame(bit | TEXT, b"a"), 1002) for bit in (0x40, 0x20, 0x10)},
    **{f"opcode {opcode}": (client_frame(opcode), 1002) for opcode in (*range(3, 8), *range(11, 16))},
    "5 bytes, length in 2": (client_frame(TEXT, b"a" * 5, width=2), 1002),
    "125 bytes, length in 2": (client_frame(TEXT, b"a" * 125, width=2), 1002),
    "5 bytes, length in 8": (client_frame(TEXT, b"a" * 5, width=8), 1002),
    "65535 bytes, length in 8": (client_frame(TEXT, b"a" * 65_535, width=8), 1002),
    "top bit of a length": (b"\x81\xff" + b"\x80" + bytes(7) + KEY, 1002),
    # 5.1
    "text not masked": (unmasked(client_frame(TEXT, b"a")), 1002),
    "empty text not masked": (encode_frame(TEXT, b""), 1002),
    "ping not masked": (encode_frame(PING, b""), 1002),
    # 5.5
    **{
        f"{opcode.name} fragmented": (client_frame(opcode, fin=False), 1002) for opcode in (CLOSE, PING, PONG)
    },
    **{
        f"{opcode.name} of 126 bytes": (client_frame(opcode, bytes(126)), 1002)
        for opcode in (CLOSE, PING, PONG)
    },
    "PING of 65536 bytes": (client_frame(PING, bytes(65_536)), 1002),
    "PING, length in 2": (client_frame(PING, b"a", width=2), 1002),
    # 5.4
    "continuation of nothing": (client_frame(CONTINUATION, b"a"), 1002),
    "unfinished continuation of nothing": (client_frame(CONTINUATION, b"a", fin=False), 1002),
    "text inside a message": (UNFINISHED + client_frame(TEXT, b"b"), 1002),
    "binary inside a message": (UNFINISHED + client_frame(BINARY, b"b"), 1002),
    # 5.5.1, 7.4
    "half a close code": (client_frame(CLOSE, b"\x03"), 1002),
    **{
        f"close code {code}": (close_with(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
    },
    # 8.1
    **{f"text with {what}": (client_frame(TEXT, b"a" + bad), 1007) for what, bad in NOT_UTF8.items()},
    **{f"reason with {what}": (close_with(1000, b"a" + bad), 1007) for what, bad in NOT_UTF8.items()},
    **{
        f"fragments with {what}": (
            client_frame(TEXT, bad[:1], fin=False) + client_frame(CONTINUATION, bad[1:]),
            1007,
        )
        for what, bad in NOT_UTF8.items()
    },
}


@pytest.mark.parametrize(("bad", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_breaks_a_rule_gets_its_code_and_what_came_before_is_delivered(bad: bytes, code: int) -> None:
    before = client_frame(TEXT, b"one") + client_frame(PING, b"two")
    delivered = [(TEXT, "one"), (PING, b"two")]
    after = client_frame(TEXT, b"never")
    for data in ([before + bad + after], [before, bad, after], bytewise((before + bad + after)[:1000])):
        parser = FrameParser(UNLIMITED)
        assert [frame for piece in data for frame in parser.feed(piece)] == delivered
        assert parser.closed
        assert parser.violation is not None
        assert parser.violation.code == code
        assert parser.violation.reason
        assert held_by(parser) == {}
        first = parser.violation
        assert parser.feed(bad) == []
        assert parser.violation is first


def test_which_close_codes_may_be_sent() -> None:  # 7.4.1, 7.4.2, and the registry
    accepted = {code for code in range(2**16) if parse(close_with(code)) == ([(CLOSE, (code, ""))], None)}
    assert accepted == {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    theirs = {code for code in range(1100) if reference(close_with(code))[1] is None}
    assert accepted & set(range(1100)) == theirs | {1014}


def test_nothing_is_read_after_a_close() -> None:
    parser = FrameParser(UNLIMITED)
    assert parser.feed(close_with(1001, b"bye") + b"\xff\xff") == [(CLOSE, (1001, "bye"))]
    assert parser.closed
    assert parser.feed(client_frame(TEXT, b"never")) == []
    assert parser.violation is None


def test_a_close_inside_a_message_leaves_nothing_of_it() -> None:
    parser = FrameParser(UNLIMITED)
    assert parser.feed(UNFINISHED + close_with(1000)) == [(CLOSE, (1000, ""))]
    assert held_by(parser) == {}


LIMIT = 1000


@pytest.mark.parametrize("cuts", [[], [500], [0, 0, 1000], [1, 2, 999]])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger(
    opcode: Opcode, cuts: list[int]
) -> None:
    def sent(size: int) -> bytes:
        parts = pieces(b"x" * size, cuts)
        return b"".join(
            client_frame(CONTINUATION if at else opcode, part, fin=at == len(parts) - 1)
            for at, part in enumerate(parts)
        )

    frames, violation = parse(sent(LIMIT), limit=LIMIT)
    assert [len(frame[1]) for frame in frames] == [LIMIT]
    assert violation is None
    for data in ([sent(LIMIT + 1)], bytewise(sent(LIMIT + 1))):
        frames, violation = parse(*data, limit=LIMIT)
        assert frames == []
        assert violation is not None
        assert violation.code == 1009
        assert str(LIMIT) in violation.reason


def test_the_limit_is_in_bytes_and_of_each_message() -> None:
    assert parse(client_frame(TEXT, "é".encode()) * 3, limit=2) == ([(TEXT, "é")] * 3, None)
    _, violation = parse(client_frame(TEXT, "aé".encode()), limit=2)
    assert violation is not None
    assert violation.code == 1009


@pytest.mark.parametrize("announced", [LIMIT + 1, 65_536, 2**40, 2**63 - 1])
def test_the_header_is_enough_to_refuse_a_message(announced: int) -> None:
    width = 2 if announced < 2**16 else 8
    header = bytes([0x82, 0x80 | (126 if width == 2 else 127)]) + announced.to_bytes(width, "big") + KEY
    assert parse(header[:-1], limit=LIMIT) == ([], None)
    assert parse(header, limit=LIMIT) == (
        [],
        ProtocolViolation(1009, "a message is larger than 1000 bytes"),
    )


def test_a_control_frame_does_not_count_towards_the_limit() -> None:
    assert parse(client_frame(PING, bytes(125)), limit=0) == ([(PING, bytes(125))], None)


@given(st.sampled_from([TEXT, BINARY]), texts)
def test_the_reference_reads_our_frames(opcode: Opcode, content: str) -> None:
    expected = (opcode, content if opcode is TEXT else content.encode())
    assert reference(encode_frame(opcode, content.encode()), client=True) == ([expected], None)


@given(st.sampled_from([PING, PONG]), st.binary(max_size=125))
def test_the_reference_reads_our_control_frames(opcode: Opcode, payload: bytes) -> None:
    assert reference(encode_frame(opcode, payload), client=True) == ([(opcode, payload)], None)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_that_is_too_large_is_not_made(opcode: Opcode) -> None:
    with pytest.raises(ValueError, match="125 bytes in a control frame, got 126"):
        encode_frame(opcode, bytes(126))


@given(sendable_codes, st.text(max_size=80) | st.text(min_size=25, max_size=60).map(lambda text: text * 3))
def test_the_reason_of_a_close_is_cut_to_what_fits(code: int, reason: str) -> None:
    [(opcode, payload)], failed = reference(encode_close(code, reason), client=True)
    assert (opcode, payload[0], failed) == (CLOSE, code, None)
    kept = payload[1]
    assert reason.startswith(kept)
    assert len(kept.encode()) <= 123
    assert kept == reason or len(reason[: len(kept) + 1].encode()) > 123


def test_a_reason_that_is_no_text_still_closes() -> None:
    assert encode_close(1008, "a\ud800") == b"\x88\x04\x03\xf0a?"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_536])
def test_a_code_that_may_not_be_sent_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"got {code}"):
        encode_close(code)


def held_by(parser: FrameParser) -> dict[str, object]:
    """What a parser keeps of what it was fed: everything but its setting and its verdict."""
    names = set(FrameParser.__slots__) - {"max_message_bytes", "closed", "violation"}
    return {name: getattr(parser, name) for name in names if getattr(parser, name) is not None}


@given(st.lists(messages() | pings, max_size=4).map(b"".join), st.data())
def test_between_messages_a_parser_holds_nothing(stream: bytes, data: st.DataObject) -> None:
    parser = FrameParser(UNLIMITED)
    for piece in cut(data, stream):
        parser.feed(piece)
    assert held_by(parser) == {}
    assert not parser.closed
    assert not hasattr(parser, "__dict__")
    # Everything else that it refers to is shared: the limit, None and False.
    assert sys.getsizeof(parser) < 200


class Piece(bytes):
    """One byte of a stream; ``rejoined`` counts what is copied to put it behind a rest."""

    rejoined = 0

    def __radd__(self, rest: bytes) -> bytes:
        Piece.rejoined += len(rest)
        return rest + bytes(self)


@pytest.fixture
def unmasked_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each payload that is unmasked from here on."""
    from ditochat.engine import frames  # noqa: PLC0415  # the module, to watch it at work

    sizes: list[int] = []
    original = frames.__dict__["_unmask"]

    def watched(payload: bytes, key: bytes) -> bytes:
        sizes.append(len(payload))
        result: bytes = original(payload, key)
        return result

    monkeypatch.setattr(frames, "_unmask", watched)
    return sizes


def test_a_large_message_byte_by_byte_is_copied_a_fixed_number_of_times(unmasked_sizes: list[int]) -> None:
    size = 1_000_000
    sent = client_frame(TEXT, b"x" * size, key=bytes(4))
    header = len(sent) - size
    parser = FrameParser(size)
    Piece.rejoined = 0
    delivered: list[Frame] = []
    buffer: object = None
    for at in range(len(sent)):
        assert not delivered
        delivered += parser.feed(Piece(sent[at : at + 1]))
        if header <= at + 1 < len(sent) and at % 1000 == 0:
            held = held_by(parser)
            assert held.keys() == {"_message"}, "payload is never put back to be read again"
            grown = getattr(held["_message"], "data")  # noqa: B009  # held_by knows no types
            assert buffer is None or buffer is grown, "one buffer grows; it is not made anew"
            buffer = grown
    assert delivered == [(TEXT, "x" * size)]
    assert buffer is not None
    assert unmasked_sizes == [size]
    assert Piece.rejoined <= LONGEST_HEADER**2


def test_small_fragments_are_unmasked_once_each(unmasked_sizes: list[int]) -> None:
    count = 20_000
    parser = FrameParser(count)
    parser.feed(client_frame(BINARY, fin=False))
    for _ in range(count):
        assert parser.feed(client_frame(CONTINUATION, b"x", fin=False)) == []
    assert parser.feed(client_frame(CONTINUATION)) == [(BINARY, b"x" * count)]
    assert sum(unmasked_sizes) == count


def test_empty_fragments_do_not_pile_up() -> None:
    parser = FrameParser(LIMIT)
    parser.feed(UNFINISHED)
    message = held_by(parser)["_message"]
    before = sys.getsizeof(getattr(message, "data"))  # noqa: B009  # held_by knows no types
    parser.feed(client_frame(CONTINUATION, fin=False) * 10_000)
    assert held_by(parser) == {"_message": message}
    assert sys.getsizeof(getattr(message, "data")) <= before + 64  # noqa: B009
    assert parser.feed(client_frame(CONTINUATION)) == [(TEXT, "a")]
