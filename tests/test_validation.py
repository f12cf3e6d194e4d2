"""Errors in the words of JSON, not of Python."""

from typing import Annotated

import msgspec
import pytest

from ditochat.errors import Invalid
from ditochat.validation import convert


class Inner(msgspec.Struct):
    deep: bool


class Outer(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(max_length=3)]
    count: int | None = None
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "name: it is required"),
        ({"name": 5}, "name: expected a string, got an integer"),
        ({"name": "long"}, "name: expected a string of length <= 3"),
        ({"name": "a", "count": "1"}, "count: expected an integer or null, got a string"),
        ({"name": "a", "inner": {"deep": 1}}, "inner.deep: expected a boolean, got an integer"),
        ([], "expected an object, got an array"),
    ],
)
def test_the_field_the_expectation_and_the_fact_are_named(value: object, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        convert(value, Outer)
    assert str(refused.value) == message


def test_the_root_s_name_comes_first() -> None:
    with pytest.raises(Invalid) as refused:
        convert({"name": 5}, Outer, root="auth")
    assert refused.value.field == "auth.name"


def test_what_fits_is_converted() -> None:
    assert convert({"name": "a", "inner": {"deep": True}}, Outer) == Outer("a", None, Inner(True))
