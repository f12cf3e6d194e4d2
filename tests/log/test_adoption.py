"""A list that the Go backend left gets ids, and loses nothing."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ditochat.log.adoption import adopt
from ditochat.message import StoredMessage

NOW = 1_700_000_000_000


def test_messages_get_ids_from_the_oldest_on_and_keep_their_fields() -> None:
    newest, texts = adopt(
        [
            b'{"uid":"u2","text":"second","date":"2020-01-02T00:00:00Z"}',
            b'{"uid":"u1","text":"first","date":"2020-01-01T00:00:00Z"}',
        ],
        now=NOW,
    )
    assert newest == 2
    assert [json.loads(text) for text in texts] == [
        {"id": 2, "ts": 1577923200000, "uid": "u2", "text": "second", "date": "2020-01-02T00:00:00Z"},
        {"id": 1, "ts": 1577836800000, "uid": "u1", "text": "first", "date": "2020-01-01T00:00:00Z"},
    ]  # fmt: skip


def test_what_is_no_object_becomes_a_text() -> None:
    _, texts = adopt([b"plain", b'"quoted"', b"[1]", b"\xff"], now=NOW)
    assert [json.loads(text)["text"] for text in texts] == ["plain", "quoted", "[1]", "\ufffd"]


def test_a_message_without_a_readable_date_is_dated_now() -> None:
    _, texts = adopt([b'{"text":"a"}', b'{"text":"b","date":"3 pm"}'], now=NOW)
    first, second = (json.loads(text) for text in texts)
    assert (first["ts"], first["date"]) == (NOW, "2023-11-14T22:13:20.000+00:00")
    assert (second["ts"], second["date"]) == (NOW, "3 pm")


def test_texts_that_have_contiguous_ids_are_kept_as_they_are() -> None:
    texts = [b'{"id":8,"ts":1,"text":"b"}', b'{"id":7,"ts":1,"text":"a"}']
    assert adopt(texts, now=NOW) == (8, texts)


def test_texts_with_a_hole_in_their_ids_are_numbered_again() -> None:
    newest, texts = adopt([b'{"id":9,"ts":1,"text":"b"}', b'{"id":7,"ts":1,"text":"a"}'], now=NOW)
    assert newest == 2
    assert [json.loads(text)["id"] for text in texts] == [2, 1]


def test_a_date_that_is_in_the_year_10000_in_utc_is_kept() -> None:
    _, (text,) = adopt([b'{"text":"a","date":"9999-12-31T23:59:00-23:59"}'], now=NOW)
    assert json.loads(text)["date"] == "9999-12-31T23:59:00-23:59"
    assert StoredMessage.parse(text).ts == 253402387080000


@given(st.lists(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: json.dumps(text).encode())))
def test_any_list_becomes_a_log(raw: list[bytes]) -> None:
    newest, texts = adopt(raw, now=NOW)
    assert [StoredMessage.parse(text).id for text in texts] == list(range(newest, 0, -1))
    assert len(texts) == len(raw)


def test_what_has_no_place_in_utf8_json_is_still_kept() -> None:
    _, texts = adopt([b'{"text":"\\ud800","x":NaN}'], now=NOW)
    assert json.loads(texts[0])["text"] == "\ud800"
    assert json.loads(texts[0])["x"] is None
