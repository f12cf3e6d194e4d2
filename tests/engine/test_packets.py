"""The packets against python-engineio's codec, which is somebody else's reading of the protocol page.

Where the two differ: python-engineio reads JSON out of a packet's data (we leave that to Socket.IO), takes
base64 with foreign characters in it, and refuses a payload of more than 16 packets.
"""

import base64
import json

import engineio.packet
import engineio.payload
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ditochat.engine.packets import (
    SEPARATOR,
    BadPacket,
    Packet,
    PacketType,
    decode_frame,
    decode_payload,
    encode_payload,
    encode_text,
)

MAX_IN_REFERENCE = engineio.payload.Payload.max_decode_packets

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SEPARATOR))
text_packets = st.tuples(st.sampled_from(PacketType), texts)
binary_packets = st.tuples(st.just(PacketType.MESSAGE), st.binary())
packets: st.SearchStrategy[Packet] = text_packets | binary_packets


def reference(packet: Packet) -> engineio.packet.Packet:
    return engineio.packet.Packet(int(packet[0]), data=packet[1])


def data_of(read: engineio.packet.Packet, text: str) -> str | bytes:
    """What python-engineio read; where it made JSON of it, the text that it was made of."""
    if isinstance(read.data, (str, bytes)):
        return read.data
    assert read.data == json.loads(text)
    return text


@given(packets)
def test_a_packet_is_written_as_the_reference_writes_it(packet: Packet) -> None:
    assert encode_text(packet) == reference(packet).encode(b64=True)


@given(st.lists(packets, min_size=1, max_size=MAX_IN_REFERENCE))
def test_a_payload_is_written_as_the_reference_writes_it(many: list[Packet]) -> None:
    payload = engineio.payload.Payload(packets=[reference(packet) for packet in many])
    assert encode_payload([encode_text(packet) for packet in many]) == payload.encode().encode()


@given(st.lists(packets, min_size=1))
def test_what_was_written_is_read_back(many: list[Packet]) -> None:
    assert decode_payload(encode_payload([encode_text(packet) for packet in many])) == many


@given(text_packets)
def test_a_text_frame_is_a_packet(packet: Packet) -> None:
    assert decode_frame(encode_text(packet)) == packet


@given(st.binary())
def test_a_binary_frame_is_a_message_always(data: bytes) -> None:
    assert decode_frame(data) == (PacketType.MESSAGE, data)


parts = st.one_of(
    texts,
    packets.map(encode_text),
    st.text("0123456789b=+/-_ \n", max_size=12),
    st.binary(max_size=9).map(lambda data: "b" + base64.b64encode(data).decode()[:-1]),
)
bodies = st.binary() | st.lists(parts).map(lambda each: SEPARATOR.join(each).encode())


@given(bodies)
def test_any_body_is_read_or_refused_and_the_reference_reads_the_same(body: bytes) -> None:
    try:
        many = decode_payload(body)
    except BadPacket as refused:
        assert str(refused)
        return
    texts_of = body.decode().split(SEPARATOR)
    assert len(many) == len(texts_of)
    if len(many) <= MAX_IN_REFERENCE:
        read = engineio.payload.Payload(encoded_payload=body.decode()).packets
        assert [
            (one.packet_type, data_of(one, text[1:])) for one, text in zip(read, texts_of, strict=True)
        ] == many


@given(st.text() | st.binary())
def test_any_frame_is_read_or_refused(frame: str | bytes) -> None:
    try:
        kind, _ = decode_frame(frame)
    except BadPacket:
        assert isinstance(frame, str)
        assert frame[:1] not in list("0123456")
    else:
        assert isinstance(frame, bytes) or frame[0] == str(int(kind))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "type from 0 to 6, got ''"),
        (b"7", "got '7'"),
        ("\u0664".encode(), "type from 0 to 6"),  # a digit, but an Arabic one
        (b"4a\x1e", "got ''"),
        (b"\x1e4a", "got ''"),
        (b"4a\x1e\x1e4b", "got ''"),
        (b"bAAE", "base64"),
        (b"bAA E=", "base64"),
        (b"bAA-_", "base64"),
        ("b\u00e9".encode(), "base64"),
        (b"4\xff", "UTF-8: invalid start byte at byte 1"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, problem: str) -> None:
    with pytest.raises(BadPacket, match=problem):
        decode_payload(body)


def test_the_digits_are_the_protocol_s() -> None:
    names = ["OPEN", "CLOSE", "PING", "PONG", "MESSAGE", "UPGRADE", "NOOP"]
    assert [PacketType(number).name for number in range(7)] == names
