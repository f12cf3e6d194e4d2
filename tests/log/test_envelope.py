"""The form in which messages travel between instances, pinned: other programs read and write it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ditochat.log.envelope import AFTER, BEFORE, open_envelope

TEXT = b'{"id":1,"ts":2,"text":"a"}'


def sealed(text: bytes, epoch: str = "e1") -> bytes:
    """Put together what append.lua does."""
    return BEFORE + text + AFTER + epoch.encode() + b'"}'


def test_it_is_an_emit_of_python_socketio_s_manager() -> None:
    assert json.loads(sealed(TEXT)) == {
        "method": "emit",
        "event": "message",
        "data": [{"id": 1, "ts": 2, "text": "a"}],
        "binary": False,
        "namespace": "/",
        "room": "chat",
        "skip_sid": None,
        "callback": None,
        "host_id": "log:e1",
    }


def test_it_is_opened_again() -> None:
    assert open_envelope(sealed(TEXT)) == ("e1", TEXT)


def test_an_envelope_inside_a_message_stays_inside() -> None:
    inner = b'{"id":1,"ts":2,"x":[' + AFTER[1:] + b'evil"}}'
    assert open_envelope(sealed(inner)) == ("e1", inner)


def test_an_emit_of_another_process_is_not_the_log_s() -> None:
    foreign = {**json.loads(sealed(TEXT)), "host_id": "0123456789abcdef"}
    assert open_envelope(json.dumps(foreign).encode()) is None
    assert open_envelope(json.dumps(foreign, separators=(",", ":")).encode()) is None


@given(st.binary(max_size=200))
def test_no_payload_raises(payload: bytes) -> None:
    open_envelope(payload)
    open_envelope(BEFORE + payload + b'"}')
