"""What may be sent, and the one form in which it is stored."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ditochat.errors import Invalid, TooLarge
from ditochat.message import (
    MAX_DEPTH,
    StoredMessage,
    draft_from_frame,
    draft_from_json,
    draft_from_value,
    encode_json,
)

LIMIT = 4096

json_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | json_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_text, inner, max_size=4),
    max_leaves=10,
)


def draft(value: object) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(draft_from_value(value, max_bytes=LIMIT).body)
    return body


def test_a_string_stands_for_a_message_with_this_text() -> None:
    assert draft("hello") == {"text": "hello"}


def test_text_is_stored_trimmed() -> None:
    assert draft({"text": "  a b\n"}) == {"text": "a b"}


def test_id_and_ts_of_a_client_are_dropped_and_other_fields_kept_in_order() -> None:
    sent = {"id": 7, "zeta": [1, {"a": None}], "text": "a", "ts": 0, "alpha": 1.5}
    assert list(draft(sent).items()) == [("zeta", [1, {"a": None}]), ("text", "a"), ("alpha", 1.5)]


def test_the_body_is_utf8_without_spaces() -> None:
    assert draft_from_value({"text": "é \u2028", "n": [1, 2]}, max_bytes=LIMIT).body == (
        '{"text":"é","n":[1,2]}'.encode()
    )


@pytest.mark.parametrize(
    "date", ["2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123+05:30", "20260131T120000Z"]
)
def test_an_iso_8601_date_is_kept(date: str) -> None:
    accepted = draft_from_value({"text": "a", "date": date}, max_bytes=LIMIT)
    assert accepted.dated
    assert json.loads(accepted.body)["date"] == date


def test_an_empty_date_is_none() -> None:
    accepted = draft_from_value({"text": "a", "date": ""}, max_bytes=LIMIT)
    assert not accepted.dated
    assert json.loads(accepted.body) == {"text": "a"}


def test_a_nonce_from_outside_takes_the_place_of_the_message_s_own() -> None:
    accepted = draft_from_value({"text": "a", "nonce": "mine"}, max_bytes=LIMIT, nonce="header")
    assert accepted.nonce == "header"
    assert json.loads(accepted.body)["nonce"] == "header"


def nested(levels: int) -> object:
    value: object = "leaf"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        ({}, "text", "required"),
        ({"text": 1}, "text", "a string"),
        ({"text": None}, "text", "a string"),
        ({"text": " \t\n"}, "text", "white space"),
        ({"text": "a", "uid": 5}, "uid", "a string"),
        ({"text": "a", "uid": "u" * 129}, "uid", "128"),
        ({"text": "a", "title": ["t"]}, "title", "a string"),
        ({"text": "a", "title": "t" * 129}, "title", "128"),
        ({"text": "a", "date": "yesterday"}, "date", "ISO 8601"),
        ({"text": "a", "date": 1700000000}, "date", "a string"),
        ({"text": "a", "nonce": ""}, "nonce", "1"),
        ({"text": "a", "nonce": "n" * 65}, "nonce", "64"),
        ({"text": "a", "nonce": 5}, "nonce", "a string"),
        ({"text": "a\0b"}, "text", "NUL"),
        ({"text": "\ud800"}, "text", "surrogate"),
        ({"text": "a", "x": {"y": ["\udfff"]}}, "x.y[0]", "surrogate"),
        ({"text": "a", "x": {"\0": 1}}, "x", "NUL"),
        ({"text": "a", "bad\ud800": 1}, "a field's name", "surrogate"),
        ({"text": "a", "x": float("inf")}, "x", "number"),
        ({"text": "a", "x": b"binary"}, "x", "binary data"),
        ({"text": b"binary"}, "text", "binary data"),
        ({"text": "a", "x": nested(MAX_DEPTH)}, None, "nested deeper"),
        (None, None, "got null"),
        (5, None, "got a number"),
        (True, None, "got a boolean"),
        (["a"], None, "got an array"),
        (b"binary", None, "got binary data"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_the_field_named(
    value: object, field: str | None, problem: str
) -> None:
    with pytest.raises(Invalid, match=problem) as refused:
        draft_from_value(value, max_bytes=LIMIT)
    if field is not None:
        assert refused.value.field == field
        assert refused.value.as_json()["field"] == field


def test_nesting_up_to_the_limit_is_accepted() -> None:
    assert draft({"text": "a", "x": nested(MAX_DEPTH - 1)})


def test_what_can_not_be_stored_in_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge, match="4096"):
        draft_from_value({"text": "a" * LIMIT}, max_bytes=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[1,]", b"NaN", b'{"text":"a","x":NaN}', b"\xff", b'{"text":"\xc3"}', b'{"text":"a"} x',
        b"[" * 100_000, b'{"text":"a","x":' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match=r"expected|nested"):
        draft_from_json(data, max_bytes=LIMIT)


@pytest.mark.parametrize("frame", ["hello", "42", "[1,2]", "{broken", "null", '"unfinished', "NaN"])
def test_a_frame_that_is_no_object_or_string_is_plain_text(frame: str) -> None:
    assert json.loads(draft_from_frame(frame, max_bytes=LIMIT).body) == {"text": frame}


@pytest.mark.parametrize(("frame", "text"), [('"a\\nb"', "a\nb"), (' {"text": "c"}', "c")])
def test_a_frame_with_json_is_read_as_json(frame: str, text: str) -> None:
    assert json.loads(draft_from_frame(frame, max_bytes=LIMIT).body) == {"text": text}


@given(st.dictionaries(json_text, json_values, max_size=5), json_text.filter(str.strip))
def test_everything_accepted_comes_out_as_it_went_in(others: dict[str, Any], text: str) -> None:
    ruled = {"id", "ts", "uid", "title", "date", "nonce"}
    sent = {name: given for name, given in others.items() if name not in ruled} | {"text": text}
    assert draft_from_json(json.dumps(sent).encode(), max_bytes=1_000_000).body == encode_json(
        sent | {"text": text.strip()}
    )


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_input_raises_anything_else(data: bytes) -> None:
    try:
        draft_from_json(data, max_bytes=LIMIT)
    except (Invalid, TooLarge) as refused:
        assert refused.message


def test_a_stored_text_is_read_back() -> None:
    text = b'{"id":12,"ts":1700000000000,"text":"a"}'
    assert StoredMessage.parse(text) == StoredMessage(12, 1700000000000, text)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b'{"text":"a"}', b'{"id":0,"ts":1,"text":"a"}', b'{"id":"1","ts":1}', b'{"ts":1,"id":1}'],
)
def test_another_program_s_text_is_not_taken_for_the_log_s(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a text of the log"):
        StoredMessage.parse(text)
