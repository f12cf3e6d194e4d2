"""Messages: ChatError and nothing else, and what is accepted can be stored, read, adopted and sent."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final, NoReturn

from ditochat.errors import ChatError
from ditochat.gateways.handshake import parse_auth
from ditochat.log.adoption import adopt
from ditochat.log.envelope import AFTER, BEFORE, open_envelope
from ditochat.message import (
    MIN_PREFIX_BYTES,
    Draft,
    StoredMessage,
    draft_from_frame,
    draft_from_json,
    draft_from_value,
    encode_json,
)
from tests.fuzz.mutation import JSON_TOKENS, Mutator
from tests.fuzz.target import Check, Target

__all__ = ["TARGET"]

LIMIT: Final = 512
NOW: Final = 1_700_000_000_000


def check_messages(data: bytes) -> None:
    """Take the input for each thing that comes from outside as JSON, or as a text of the log."""
    text = data.decode(errors="surrogateescape")
    drafts = (
        _draft(lambda: draft_from_json(data, max_bytes=LIMIT)),
        _draft(lambda: draft_from_json(data, max_bytes=LIMIT, nonce=text[:64] or None)),
        _draft(lambda: draft_from_frame(text, max_bytes=LIMIT)),
        _draft(lambda: draft_from_value(_value(text), max_bytes=LIMIT)),
    )
    for draft in drafts:
        if draft is not None:
            _check_draft(draft)
    _check_auth(_value(text))
    _check_log(data)


def _draft(read: Callable[[], Draft]) -> Draft | None:
    try:
        return read()
    except ChatError as error:
        # It goes out in an acknowledgement, a problem document and a close frame.
        assert error.message
        json.loads(encode_json(error.as_json()))
        return None


def _value(text: str) -> object:
    """Decode as python-socketio does: NaN and lone surrogates come through."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check_draft(draft: Draft) -> None:
    assert len(draft.body) + MIN_PREFIX_BYTES <= LIMIT
    fields = _strict(draft.body)
    assert isinstance(fields, dict)
    assert fields["text"] == fields["text"].strip() != ""
    assert "id" not in fields
    assert "ts" not in fields
    assert ("date" in fields) == draft.dated
    assert fields.get("nonce") == draft.nonce
    assert b"\0" not in draft.body
    assert encode_json(fields) == draft.body
    again = draft_from_json(draft.body, max_bytes=LIMIT)
    assert again == draft, (again, draft)
    stored = b'{"id":7,"ts":%d,' % NOW + draft.body[1:]
    assert StoredMessage.parse(stored) == StoredMessage(7, NOW, stored)
    assert _strict(stored) == {"id": 7, "ts": NOW, **fields}
    assert open_envelope(BEFORE + stored + AFTER + b'epoch"}') == ("epoch", stored)
    assert adopt([stored], now=NOW) == (7, [stored])


def _check_auth(auth: object) -> None:
    try:
        handshake = parse_auth(auth)
    except ChatError as error:
        json.loads(encode_json(error.as_json()))
        return
    assert handshake.after is None or 0 <= handshake.after < 2**53
    encode_json(handshake.answer_pid(recovered=True))


def _check_log(data: bytes) -> None:
    opened = open_envelope(data)
    if opened is not None:
        assert data.startswith(BEFORE + opened[1] + AFTER)
    try:
        parsed = StoredMessage.parse(data)
    except ValueError:
        parsed = None
    if parsed is not None:
        assert 0 < parsed.id < 10**16
    texts = data.split(b"\n")
    newest, adopted = adopt(texts, now=NOW)
    assert len(adopted) == len(texts)
    kept = adopted == texts
    for index, text in enumerate(adopted):
        assert StoredMessage.parse(text).id == newest - index
        if not kept:
            _strict(text)
    assert adopt(adopted, now=NOW) == (newest, adopted), "what is adopted is adopted once"


def _strict(text: bytes) -> Any:
    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is not JSON: {text!r}")

    return json.loads(text.decode(), parse_constant=refuse)


def _draws(random: Random) -> Callable[[], bytes]:
    seeds = [
        b'{"text":"hello","uid":"u","title":"T","date":"2026-01-31T12:00:00Z","nonce":"n1"}',
        b'{"id":3,"ts":4,"text":" a ","extra":[1,2.5,{"deep":[null,true]}]}',
        b'"a plain string"', b"plain text", b'{"text":"\\ud83d\\ude00\\u00e9"}', b'{"text":"x"}', b"[1,2]",
        b'{"after":3,"epoch":"abc"}', b'{"recovery":true,"pid":"p_1","offset":"abc:12"}', b'{"after":null}',
        BEFORE + b'{"id":5,"ts":1700000000000,"text":"a"}' + AFTER + b'epoch"}',
        b'{"id":2,"ts":17,"text":"b"}\n{"id":1,"ts":16,"text":"a"}',
        b'{"text":"go","date":"2020-01-02T00:00:00Z","uid":"u"}\n"two"\nthree\n[4]',
        b'{"text":"t","date":"2026-W01-1"}', b'{"text":"t","date":"9999-12-31T23:59:59.999999-23:59"}',
    ]  # fmt: skip
    tokens = [
        *JSON_TOKENS,
        BEFORE,
        AFTER,
        b"\n",
        b'{"id":1,"ts":1}',
        b'{"id":9999999999999999,"ts":1,',
        b"\xff",
    ]
    return Mutator(random, seeds, tokens, separator=b",").draw


@contextmanager
def _opened() -> Iterator[Check]:
    yield check_messages


TARGET: Final = Target("messages", 250, _opened, _draws)
