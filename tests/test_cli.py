"""The program as its user meets it: arguments in, lines and an exit status out."""

import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ditochat import __version__, cli, logs
from ditochat.settings import DESCRIPTIONS, Settings

Serve = Callable[[Settings], Coroutine[Any, Any, None]]


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ditochat", *arguments],
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def complaint(*arguments: str, **environment: str) -> str:
    """The one line on stderr of a program that refused to start."""
    ended = program(*arguments, **environment)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith("\n")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("ditochat: ")
    return ended.stderr.removeprefix("ditochat: ").removesuffix("\n")


class StartupError(Exception):
    status = 1


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Callable[[Serve], None]:
    """Put a function where the application is, and leave pytest's logging alone."""

    def install(run: Serve) -> None:
        module = types.ModuleType("ditochat.application")
        vars(module).update(run=run, StartupError=StartupError)
        monkeypatch.setitem(sys.modules, "ditochat.application", module)

    for description in DESCRIPTIONS:
        monkeypatch.delenv(description.name, raising=False)
    monkeypatch.setattr(logs, "configure", lambda level, form: None)
    return install


# What it says of itself


def test_version() -> None:
    ended = program("--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"ditochat {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["serve", "--help"], ["--help", "--nonsense"]])
def test_help_shows_every_setting(arguments: list[str]) -> None:
    ended = program(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    text = re.sub(r"\s+", " ", ended.stdout)
    for setting in DESCRIPTIONS:
        assert f"{setting.flag} VALUE" in text
        assert f"{setting.meaning} (default: {setting.shown_default}) [{setting.name}]" in text


def test_version_and_help_need_neither_good_settings_nor_the_server() -> None:
    code = (
        "import sys; from ditochat.cli import main; main(['--version']); main(['--help']); "
        "assert not {'asyncio', 'aiohttp', 'redis', 'socketio'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HISTORY_LIMIT": "abc"},
        check=True,
        timeout=30,
        stdout=subprocess.DEVNULL,
    )


# Arguments that make no sense


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--foo"], "unrecognized argument --foo;"),
        (["--log-levle", "info"], "unrecognized argument --log-levle, did you mean --log-level?"),
        (["--log-levle=info"], "unrecognized argument --log-levle, did you mean --log-level?"),
        (["-redis-url=x"], "unrecognized argument -redis-url, did you mean --redis-url?"),
        (["sevre"], "unrecognized argument sevre, did you mean serve?"),
        (["serve", "serve"], "unrecognized argument serve;"),
        (["healthchek"], "unrecognized argument healthchek, did you mean healthcheck?"),
        (["healthcheck", "serve"], "unrecognized argument serve;"),
        (["stop"], "unrecognized argument stop;"),
        (["--addr", ":0", "serve", "more"], "unrecognized argument more;"),
        (["a\nb"], r"unrecognized argument a\nb;"),
        ([""], "unrecognized argument ;"),
        (["--history-limit"], "argument --history-limit: expected one argument;"),
        (["--addr", "--redis-url", "x"], "argument --addr: expected one argument;"),
    ],
)  # fmt: skip
def test_an_argument_that_makes_no_sense_is_one_line_and_status_2(arguments: list[str], line: str) -> None:
    assert complaint(*arguments) == f"{line} see ditochat --help"


@pytest.mark.parametrize(
    "abbreviation", ["--history", "--hist=5", "--vers", "-ad", "-a", "-add=:1", "--address"]
)
def test_abbreviations_are_refused(abbreviation: str) -> None:
    assert "unrecognized argument" in complaint(abbreviation)


@pytest.mark.parametrize("argument", ["--redis-ulr=redis://:hunter2@h", "redis://:hunter2@h"])
def test_a_misplaced_password_is_not_repeated(argument: str) -> None:
    assert "hunter2" not in complaint(argument)


# Settings that cannot be


def test_a_bad_variable_is_one_line_and_status_2() -> None:
    assert complaint(HISTORY_LIMIT="abc") == "HISTORY_LIMIT='abc': expected an integer from 1 to 100000"


def test_replicas_of_the_embedded_valkey_are_one_line_and_status_2() -> None:
    assert "needs REDIS_URL or REDIS_ADDR" in complaint(REDIS_WAIT_REPLICAS="1")


def test_a_bad_flag_is_one_line_and_status_2() -> None:
    line = "--history-limit='0': expected an integer from 1 to 100000"
    assert complaint("serve", "--history-limit", "0", HISTORY_LIMIT="5") == line


@pytest.mark.parametrize(
    "arguments", [["-addr", "8080"], ["-addr=8080"], ["--addr", "8080"], ["--addr=8080"]]
)
def test_addr_may_be_spelt_as_for_the_go_backend(arguments: list[str]) -> None:
    assert complaint(*arguments).startswith("--addr='8080': expected host:port")


def test_a_bad_value_with_line_breaks_is_still_one_line() -> None:
    assert complaint(ADDR="a\nb\x1b[0m\u2028").startswith(r"ADDR='a\nb\x1b[0m\u2028': expected")


def test_a_negative_number_is_a_value_and_no_flag() -> None:
    assert complaint("--drain-seconds", "-1").startswith("--drain-seconds='-1': expected seconds")


def test_a_password_in_a_bad_url_is_masked() -> None:
    assert complaint(REDIS_URL="redis://u:hunter2@h:x").startswith("REDIS_URL='redis://u:***@h:x': expected")


# Serving


@pytest.mark.parametrize(
    "arguments",
    [
        ["--history-limit", "7"], ["serve", "--history-limit", "7"], ["--history-limit", "7", "serve"],
        ["--history-limit=7", "-addr", ":8080"],
    ],
)  # fmt: skip
def test_it_serves_with_the_settings_and_a_clean_stop_is_status_0(
    application: Callable[[Serve], None], arguments: list[str]
) -> None:
    served: list[int] = []

    async def run(settings: Settings) -> None:
        served.append(settings.history_limit)

    application(run)
    assert cli.main(arguments) == 0
    assert served == [7]


def test_the_process_own_arguments_and_environment_are_the_default(
    application: Callable[[Serve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[int, float]] = []

    async def run(settings: Settings) -> None:
        served.append((settings.history_limit, settings.drain_seconds))

    application(run)
    monkeypatch.setattr(sys, "argv", ["ditochat", "--history-limit", "7"])
    monkeypatch.setenv("DRAIN_SECONDS", "3")
    assert cli.main() == 0
    assert served == [(7, 3.0)]


def test_logs_are_configured_before_serving(
    application: Callable[[Serve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    async def run(settings: Settings) -> None:
        seen.append("run")

    application(run)
    monkeypatch.setattr(logs, "configure", lambda level, form: seen.append((level, form)))
    assert cli.main(["--log-level", "DEBUG", "--log-format", "json"]) == 0
    assert seen == [("debug", "json"), "run"]


def test_a_startup_error_is_one_line_and_its_status(
    application: Callable[[Serve], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(settings: Settings) -> None:
        raise StartupError("cannot listen on :80:\nin use")

    application(run)
    assert cli.main([]) == 1
    assert capsys.readouterr() == ("", "ditochat: cannot listen on :80:\\nin use\n")


def test_an_interrupt_is_quiet_and_no_clean_stop(
    application: Callable[[Serve], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(settings: Settings) -> None:
        raise KeyboardInterrupt

    application(run)
    assert cli.main([]) == 1
    assert capsys.readouterr() == ("", "")


def test_an_unexpected_error_is_logged_and_status_1(
    application: Callable[[Serve], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def run(settings: Settings) -> None:
        raise RuntimeError("bug")

    application(run)
    assert cli.main([]) == 1
    assert [record.exc_info is not None for record in caplog.records] == [True]
