"""Engine.IO's packets and payloads: BadPacket and nothing else, and what was read is written the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

from ditochat.engine.packets import (
    BadPacket,
    Packet,
    PacketType,
    decode_frame,
    decode_payload,
    encode_payload,
    encode_text,
)
from tests.fuzz.mutation import JSON_TOKENS, Mutator
from tests.fuzz.target import Check, Target

__all__ = ["TARGET"]


def check_packets(data: bytes) -> None:
    """Decode the input as a body, as a binary frame and as a text frame."""
    payload = _decoded(lambda: decode_payload(data))
    if payload is not None:
        _check_payload(payload)
    assert decode_frame(data) == (PacketType.MESSAGE, data)
    text = data.decode(errors="surrogateescape")
    packet = _decoded(lambda: [decode_frame(text)])
    if packet is not None:
        assert encode_text(packet[0]) == text


def _check_payload(packets: list[Packet]) -> None:
    assert packets, "a body that is accepted has a packet"
    for kind, data in packets:
        assert isinstance(kind, PacketType)
        assert kind is PacketType.MESSAGE or isinstance(data, str), "binary data is a message always"
    assert decode_payload(encode_payload([encode_text(packet) for packet in packets])) == packets


def _decoded(decode: Callable[[], list[Packet]]) -> list[Packet] | None:
    try:
        return decode()
    except BadPacket as error:
        assert str(error)
        return None


def _draws(random: Random) -> Callable[[], bytes]:
    seeds = [
        b"0{}", b"1", b"2probe", b"3", b"4hello", b"5", b"6", b"bAQIDBA==", b"4a\x1e4b\x1e4c", b"4\x1ebAA==\x1e2",
        "4é\x1e4\U0001f600".encode(), b'420["message",{"text":"a"}]', b"451-[{\"_placeholder\":true}]\x1ebAAAA",
    ]  # fmt: skip
    tokens = [
        b"\x1e",
        b"b",
        b"bAA",
        b"b====",
        b"b" + b"A" * 5,
        b"b\xc3\xa9",
        b"7",
        b"\xed\xa0\x80",
        *JSON_TOKENS,
    ]
    return Mutator(random, seeds, tokens, separator=b"\x1e").draw


@contextmanager
def _opened() -> Iterator[Check]:
    yield check_packets


TARGET: Final = Target("packets", 250, _opened, _draws)
