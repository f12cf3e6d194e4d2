"""The command line: flags and environment to settings, and exit statuses back."""

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final, Never

from ditochat import __version__, logs
from ditochat.settings import DESCRIPTIONS, BadSetting, Settings, load, masked

__all__ = ["main"]

PROGRAM: Final = "ditochat"
CLEAN_STOP: Final = 0
FAILURE: Final = 1
BAD_USAGE: Final = 2
COMMANDS: Final = ("serve", "healthcheck")

_EPILOG: Final = (
    "Each setting is an environment variable too, named in brackets; the flag wins. "
    "-addr is accepted for --addr, as by the Go backend."
)

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status.

    0 after a clean stop, 2 for a setting or an argument that cannot be, with one line on stderr; 1 otherwise.
    ``healthcheck`` asks the server at ``ADDR`` instead: 0 if it is alive; 1, and a line that says why, if not.

    Args:
        argv: the arguments after the program's name; None takes the process' own.
    """
    parser = _parser()
    try:
        command, arguments, rest = _parse(parser, sys.argv[1:] if argv is None else argv)
        if arguments.pop("help"):
            sys.stdout.write(parser.format_help())
            return CLEAN_STOP
        if rest:
            return _fail(_unrecognized(rest[0]), BAD_USAGE)
        if arguments.pop("version"):
            sys.stdout.write(f"{PROGRAM} {__version__}\n")
            return CLEAN_STOP
        flags = {name: value for name, value in arguments.items() if isinstance(value, str)}
        settings = load(os.environ, flags)
    except (_UsageError, BadSetting) as error:
        return _fail(str(error), BAD_USAGE)
    if command == "healthcheck":
        return _healthcheck(settings)
    try:
        return _serve(settings)
    except KeyboardInterrupt:
        # Before or after the application listens to signals: nothing to say, and nothing clean about it.
        return FAILURE


class _UsageError(Exception):
    """The arguments make no sense; the text is one line."""


class _Parser(argparse.ArgumentParser):
    """argparse, saying what is wrong in one line and leaving the exit to :func:`main`."""

    def error(self, message: str) -> Never:
        raise _UsageError(f"{_one_line(message)}; see {PROGRAM} --help")


def _parser() -> _Parser:
    # No abbreviations: one that is unique today would be ambiguous with the next setting.
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [serve | healthcheck] [--flag VALUE ...]",
        description="Serve the chat, or tell by the exit status whether the server at ADDR is alive.",
        epilog=_EPILOG,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--help", "-h", action="store_true", help="show this and exit")
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    for setting in DESCRIPTIONS:
        parser.add_argument(
            setting.flag,
            dest=setting.name,
            metavar="VALUE",
            help=f"{setting.meaning} (default: {setting.shown_default}) [{setting.name}]",
        )
    return parser


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[str, dict[str, object], list[str]]:
    """Return the command, the flags, and what is neither."""
    arguments, rest = parser.parse_known_args([_without_go_spelling(argument) for argument in argv])
    command, rest = (rest[0], rest[1:]) if rest and rest[0] in COMMANDS else (COMMANDS[0], rest)
    return command, vars(arguments), rest


def _without_go_spelling(argument: str) -> str:
    # Not an option of the parser: it would take "-ad" and "-a" for abbreviations of it, whatever it is told.
    return f"-{argument}" if argument == "-addr" or argument.startswith("-addr=") else argument


def _unrecognized(argument: str) -> str:
    # What follows "=" is nobody's business: it may be a URL with a password.
    name = argument.partition("=")[0] if argument.startswith("-") else masked(argument)
    known = [*COMMANDS, "--help", "--version", *(setting.flag for setting in DESCRIPTIONS)]
    close = [] if name in known else difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {close[0]}?" if close else ";"
    return f"unrecognized argument {_one_line(name)}{hint} see {PROGRAM} --help"


def _healthcheck(settings: Settings) -> int:
    # Only who asks pays for http.client: 30 ms of importing.
    from ditochat.healthcheck import Unhealthy, check  # noqa: PLC0415

    try:
        check(settings.addr)
    except Unhealthy as error:
        return _fail(_one_line(str(error)), FAILURE)
    return CLEAN_STOP


def _serve(settings: Settings) -> int:
    # Only who serves pays for asyncio, aiohttp and redis: --version and --help answer at once.
    import asyncio  # noqa: PLC0415

    from ditochat.application import StartupError, run  # noqa: PLC0415

    logs.configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(run(settings))
    except StartupError as error:
        return _fail(_one_line(str(error)), error.status)
    except Exception:
        logger.exception("stopped by an unexpected error")
        return FAILURE
    return CLEAN_STOP


def _fail(line: str, status: int) -> int:
    sys.stderr.write(f"{PROGRAM}: {line}\n")
    return status


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
