"""Log records as text and as JSON, and who is heard at which level."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import socketio

from ditochat.logs import configure
from ditochat.settings import load

LIBRARIES = [
    "aiohttp.access",
    "asyncio",
    "engineio.server",
    "redis",
    "socketio",
    "socketio.server",
    "any.other",
]


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # so that pytest's own are not closed
    levels = {name: logging.getLogger(name).level for name in [*LIBRARIES, "ditochat"]}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def written(level: str, form: str, name: str, *args: Any, method: str = "warning", **kwargs: Any) -> str:
    """What the logger ``name`` writes for one record."""
    stream = io.StringIO()
    configure(level, form, stream)
    getattr(logging.getLogger(name), method)(*args, **kwargs)
    return stream.getvalue()


def as_json(*args: Any, **kwargs: Any) -> dict[str, Any]:
    text = written("info", "json", "ditochat.log", *args, **kwargs)
    assert text.endswith("\n")
    assert text.count("\n") == 1
    fields = json.loads(text)
    assert isinstance(fields, dict)
    return fields


def an_error() -> ValueError:
    """An error with a traceback."""
    with pytest.raises(ValueError, match="why") as caught:
        int("why")
    return caught.value


class Awkward:
    def __repr__(self) -> str:
        return "<awkward>"


# Text


def test_a_text_line_has_time_level_logger_and_message() -> None:
    time, level, rest = written("info", "text", "ditochat.log", "hello %s", "you").split(" ", 2)
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(time)) < timedelta(minutes=1)
    assert (level, rest) == ("WARNING", "ditochat.log hello you\n")


def test_a_message_cannot_forge_a_second_line() -> None:
    text = written("info", "text", "ditochat", "%s", "a\nERROR b\r\x1b[31m\x85\u2028é\t\udc80")
    assert text.endswith(r"a\nERROR b\r\x1b[31m\x85\u2028é" + "\t" + r"\udc80" + "\n")
    assert len(text.splitlines()) == 1


def test_text_shows_a_traceback_below_the_line() -> None:
    text = written("info", "text", "ditochat", "broken", exc_info=an_error())
    assert "ditochat broken\nTraceback" in text
    assert text.endswith("'why'\n")


# JSON


def test_a_json_line_has_time_level_logger_and_message() -> None:
    fields = as_json("hello %s", "you")
    assert list(fields) == ["time", "level", "logger", "message"]
    assert (fields["level"], fields["logger"], fields["message"]) == ("warning", "ditochat.log", "hello you")


def test_json_time_is_utc_with_milliseconds() -> None:
    record = logging.makeLogRecord(
        {"created": 1_700_000_000.5, "name": "ditochat", "msg": "x", "levelno": 30}
    )
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("ditochat").handle(record)
    assert json.loads(stream.getvalue())["time"] == "2023-11-14T22:13:20.500Z"


def test_json_keeps_extra_fields() -> None:
    fields = as_json("x", extra={"port": 8080, "ids": [1, 2], "who": None, "deep": {"a": 1.5}})
    assert {name: fields[name] for name in ("port", "ids", "who", "deep")} == {
        "port": 8080, "ids": [1, 2], "who": None, "deep": {"a": 1.5},
    }  # fmt: skip


def test_an_extra_field_does_not_replace_one_of_ours() -> None:
    assert as_json("x", extra={"level": "mine", "time": 0})["level"] == "warning"


def test_json_has_the_exception_as_text() -> None:
    fields = as_json("broken", exc_info=an_error())
    assert fields["exception"].startswith("Traceback")
    assert fields["exception"].endswith("'why'")


def test_json_without_a_current_exception_has_none() -> None:
    assert "exception" not in as_json("x", exc_info=True)


def test_json_has_the_stack_where_asked_for() -> None:
    assert "test_logs.py" in as_json("x", stack_info=True)["stack"]


def test_json_takes_an_exception_that_was_formatted_elsewhere() -> None:
    record = logging.makeLogRecord(
        {"name": "ditochat", "msg": "x", "levelno": 40, "exc_text": "Traceback ..."}
    )
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("ditochat").handle(record)
    assert json.loads(stream.getvalue())["exception"] == "Traceback ..."


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "value", [Awkward(), b"bytes", {1, 2}, {(1, 2): 3}, [Awkward()], 2**100, float("nan"), "\udc80", ENDLESS]
)
def test_no_extra_value_costs_a_record(value: object) -> None:
    fields = as_json("hello", extra={"value": value})
    assert fields["message"] == "hello"
    assert "value" in fields


def test_a_value_that_json_cannot_hold_is_shown() -> None:
    assert as_json("x", extra={"value": Awkward()})["value"] == "<awkward>"
    assert as_json("x", extra={"values": [Awkward()]})["values"] == ["<awkward>"]


def test_a_lone_surrogate_is_escaped_and_the_rest_is_kept() -> None:
    assert as_json("é \udc80\n")["message"] == "é \\udc80\n"


def test_settings_in_a_record_hide_their_password() -> None:
    settings = load({"REDIS_URL": "redis://:hunter2@h"}, {})
    text = written("info", "json", "ditochat", "starting", extra={"settings": settings})
    assert "redis://:***@h" in text
    assert "hunter2" not in text


# Levels


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_our_own_records_are_heard_from_the_level_on(level: str, heard: list[str]) -> None:
    methods = ["debug", "info", "warning", "error"]
    assert [m for m in methods if written(level, "text", "ditochat.log", "x", method=m)] == heard


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(
    ("level", "least"), [("debug", "debug"), ("info", "warning"), ("warning", "warning"), ("error", "error")]
)
def test_libraries_are_heard_from_warning_on_unless_debugging(name: str, level: str, least: str) -> None:
    methods = ["debug", "info", "warning", "error"]
    heard = [m for m in methods if written(level, "text", name, "x", method=m)]
    assert heard == methods[methods.index(least) :]


@pytest.mark.parametrize("level", ["debug", "info"])
def test_socketio_adds_no_handler_of_its_own(level: str) -> None:
    stream = io.StringIO()
    for name in ("socketio.server", "engineio.server"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    socketio.AsyncServer(async_mode="aiohttp")  # adds handlers
    configure(level, "text", stream)
    socketio.AsyncServer(async_mode="aiohttp", logger=True, engineio_logger=True)
    assert logging.getLogger("socketio.server").handlers == []
    assert logging.getLogger("engineio.server").handlers == []


# Where to


def test_configuring_again_replaces_the_handler() -> None:
    first = io.StringIO()
    configure("info", "text", first)
    assert written("info", "json", "ditochat", "x").count("\n") == 1
    assert first.getvalue() == ""
    assert len(logging.getLogger().handlers) == 1


def test_records_go_to_stderr_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("info", "text")
    logging.getLogger("ditochat").info("x")
    assert stream.getvalue().endswith("INFO ditochat x\n")


@pytest.mark.parametrize(("level", "form"), [("loud", "text"), ("INFO", "text"), ("info", "xml")])
def test_an_unknown_level_or_format_is_an_error(level: str, form: str) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        configure(level, form)
