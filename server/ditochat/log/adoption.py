"""Giving ids to a list that has none: what the Go backend left behind.

Pure. Nothing is lost: an object keeps all its fields, anything else becomes the ``text`` of a message.
"""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ditochat.message import StoredMessage, encode_json

__all__ = ["adopt"]


def adopt(texts: Sequence[bytes], *, now: int) -> tuple[int, list[bytes]]:
    """Turn a list's texts, newest first, into texts of the log, newest first, and the newest id.

    Texts that carry contiguous ids already (only the counter was lost) are kept as they are. ``now``, in
    milliseconds since the epoch, dates a message that has no date of its own.
    """
    kept = _newest_id_of_contiguous(texts)
    if kept is not None:
        return kept, list(texts)
    newest = len(texts)
    return newest, [_with_id(text, newest - index, now) for index, text in enumerate(texts)]


def _newest_id_of_contiguous(texts: Sequence[bytes]) -> int | None:
    newest: int | None = None
    for index, text in enumerate(texts):
        try:
            message_id = StoredMessage.parse(text).id
        except ValueError:
            return None
        if newest is None:
            newest = message_id
        if message_id != newest - index:
            return None
    return newest


def _with_id(text: bytes, message_id: int, now: int) -> bytes:
    fields = _fields(text)
    ts = _timestamp(fields.get("date"), now)
    if "date" not in fields:  # one of its own may be of a year that no datetime in UTC has
        fields["date"] = datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="milliseconds")
    numbered = {"id": message_id, "ts": ts, **fields}
    try:
        return encode_json(numbered)
    except (UnicodeEncodeError, ValueError):
        # A lone surrogate, or NaN: as escapes and null they can be stored, if not in our one form.
        return json.dumps(_finite(numbered), separators=(",", ":")).encode()


def _fields(text: bytes) -> dict[str, Any]:
    plain = text.decode(errors="replace")
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        return {"text": plain}
    if isinstance(value, dict):
        return {name: given for name, given in value.items() if name not in ("id", "ts")}
    return {"text": value if isinstance(value, str) else plain}


def _timestamp(date: object, now: int) -> int:
    if isinstance(date, str):
        try:
            parsed = datetime.fromisoformat(date)
        except ValueError:
            return now
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        return max(0, int(parsed.timestamp() * 1000))
    return now


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
