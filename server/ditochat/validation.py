"""Checking decoded JSON against a type, with errors in the words of JSON.

Pure. msgspec does the checking; this turns what it finds into :class:`~ditochat.errors.Invalid`.
"""

import re
from typing import Final, TypeVar

import msgspec

from ditochat.errors import Invalid

__all__ = ["convert"]

_T = TypeVar("_T")
_JSON_NAMES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
    "bytes": "binary data",
}
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def convert(value: object, to: type[_T], *, root: str | None = None) -> _T:
    """Return ``value`` as a ``to``; ``root`` is the name of the whole, for errors.

    Raises:
        Invalid: names the field, what is expected of it, and what it is.
    """
    try:
        return msgspec.convert(value, to)
    except UnicodeEncodeError:
        raise Invalid("expected Unicode text; it has a lone surrogate", root) from None
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        names = [name for name in (root, path.strip(".`")) if name]
        if missing := _MISSING.match(problem):
            raise Invalid("it is required", ".".join([*names, missing[1]])) from None
        raise Invalid(_in_json_terms(problem), ".".join(names) or None) from None


def _in_json_terms(problem: str) -> str:
    """Turn "Expected `int | null`, got `str`" into "expected an integer or null, got a string"."""

    def name(found: re.Match[str]) -> str:
        return " or ".join(_JSON_NAMES.get(part, part) for part in found[1].split(" | "))

    return re.sub("`([^`]*)`", name, problem[:1].lower() + problem[1:])
