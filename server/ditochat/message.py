"""A message: what a client may send, checked and encoded once; and what the log has stored.

Pure. A :class:`Draft` is what a client sent, ready for the append script, which puts ``id`` and ``ts`` in
front; a :class:`StoredMessage` is what came back from the log.
"""

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, NoReturn

import msgspec

from ditochat.errors import Invalid, TooLarge
from ditochat.validation import convert

__all__ = ["Draft", "StoredMessage", "draft_from_frame", "draft_from_json", "draft_from_value", "encode_json"]

MAX_NAME_CHARACTERS: Final = 128
MAX_NONCE_CHARACTERS: Final = 64
# What other people's parsers bear without a thought; deeper is an attack or a mistake.
MAX_DEPTH: Final = 32
# `"id":1,"ts":1700000000000,`: the least that the log puts in front.
MIN_PREFIX_BYTES: Final = 26

_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]
_Nonce = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NONCE_CHARACTERS)]


class _Fields(msgspec.Struct):
    """The fields that have rules; any other is kept as given."""

    text: str
    uid: _Name | msgspec.UnsetType = msgspec.UNSET
    title: _Name | msgspec.UnsetType = msgspec.UNSET
    date: str | msgspec.UnsetType = msgspec.UNSET
    nonce: _Nonce | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Draft:
    """A checked message without ``id`` and ``ts``.

    ``body`` is its JSON object in UTF-8 without spaces; ``dated`` tells whether it has a ``date`` of its own.
    """

    body: bytes
    nonce: str | None
    dated: bool


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of the log: ``text`` is its JSON object, the bytes that every client and the history get."""

    id: int
    ts: int
    """Milliseconds since the epoch, by Redis' clock."""
    text: bytes

    _PREFIX = re.compile(rb'\{"id":([1-9][0-9]{0,15}),"ts":([0-9]{1,15})[,}]')

    @classmethod
    def parse(cls, text: bytes) -> "StoredMessage":
        """Read ``id`` and ``ts``, which stand first in every text that the log has stored.

        Raises:
            ValueError: another program wrote this text.
        """
        found = cls._PREFIX.match(text)
        if found is None:
            raise ValueError(f"not a text of the log: {text[:80]!r}")
        return cls(int(found[1]), int(found[2]), text)


def draft_from_value(value: object, *, max_bytes: int, nonce: str | None = None) -> Draft:
    """Check a decoded JSON value: an object, or a string ``s`` that stands for ``{"text": s}``.

    ``nonce``, where given, takes the place of the message's own.

    Raises:
        Invalid: names the field and what is expected of it.
        TooLarge: it could not be stored in ``max_bytes``.
    """
    if isinstance(value, str):
        value = {"text": value}
    elif not isinstance(value, dict):
        raise Invalid(f"expected a JSON object or a string, got {_type_name(value)}")
    fields = {name: given for name, given in value.items() if name not in ("id", "ts")}
    if nonce is not None:
        fields["nonce"] = nonce
    if fields.get("date") == "":
        del fields["date"]  # what a frontend of the Go backend sends that has none
    for name, given in fields.items():
        _check_string(name, "a field's name")
        _check_value(given, name, depth=1)
    known = _check_fields(fields)
    fields["text"] = known.text.strip()
    if not fields["text"]:
        raise Invalid("expected more than white space", "text")
    body = encode_json(fields)
    if len(body) + MIN_PREFIX_BYTES > max_bytes:
        raise TooLarge(max_bytes)
    return Draft(body, None if known.nonce is msgspec.UNSET else known.nonce, known.date is not msgspec.UNSET)


def draft_from_json(data: bytes, *, max_bytes: int, nonce: str | None = None) -> Draft:
    """Check a JSON text (RFC 8259); the rest as :func:`draft_from_value`."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"expected UTF-8: {error.reason} at byte {error.start}") from None
    return draft_from_value(_decode_json(text), max_bytes=max_bytes, nonce=nonce)


def draft_from_frame(frame: str, *, max_bytes: int) -> Draft:
    """Check a text frame of the Go backend's protocol: what is no JSON object or string is plain text.

    Raises as :func:`draft_from_value`.
    """
    value: object = frame
    if frame.lstrip()[:1] in ("{", '"'):
        try:
            value = _decode_json(frame)
        except _NotJson:
            value = frame
    return draft_from_value(value, max_bytes=max_bytes)


def encode_json(value: object) -> bytes:
    """Encode as UTF-8 JSON without spaces, the one form in which messages are stored and sent."""
    return _ENCODER.encode(value).encode()


class _NotJson(Invalid):
    """The text is not JSON at all, as against JSON that breaks a rule of ours."""


def _decode_json(text: str) -> object:
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _NotJson(f"expected JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise Invalid(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # an integer beyond Python's limit of digits
        raise Invalid(f"expected JSON: {error}") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    # RFC 8259, section 6: "Numeric values that cannot be represented ... (such as Infinity and NaN) are not
    # permitted"; Python's parser takes them.
    raise _NotJson(f"expected JSON: {name} is not a JSON number")


# json.dumps and json.loads make these anew for each call with such options: 3 us.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _check_fields(fields: dict[str, Any]) -> _Fields:
    known = convert(fields, _Fields)
    if known.date is not msgspec.UNSET:
        try:
            datetime.fromisoformat(known.date)
        except ValueError:
            raise Invalid("expected an ISO 8601 date, as 2026-01-31T12:00:00Z", "date") from None
    return known


def _check_value(value: object, path: str, depth: int) -> None:
    """Refuse what JSON has no word for, and what would hurt another client's parser."""
    if isinstance(value, str):
        _check_string(value, path)
    elif isinstance(value, dict):
        if depth >= MAX_DEPTH:
            raise Invalid(f"nested deeper than {MAX_DEPTH} levels", path[:80])
        for name, inner in value.items():
            _check_string(name, path)
            _check_value(inner, f"{path}.{name}", depth + 1)
    elif isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise Invalid(f"nested deeper than {MAX_DEPTH} levels", path[:80])
        for index, inner in enumerate(value):
            _check_value(inner, f"{path}[{index}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid("expected a number that a double can hold", path)
    elif value is not None and not isinstance(value, (bool, int)):
        raise Invalid(f"expected JSON, got {_type_name(value)}", path)


def _check_string(value: str, path: str) -> None:
    if "\0" in value:
        raise Invalid("expected text without NUL characters", path)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid("expected Unicode text; it has a lone surrogate", path) from None


_TYPE_NAMES: Final = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null"}


def _type_name(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return "binary data"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    return _TYPE_NAMES.get(type(value), type(value).__name__)
