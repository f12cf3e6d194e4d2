"""Where log records go: one handler, text or JSON, for everything in the process."""

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

__all__ = ["JsonFormatter", "TextFormatter", "configure"]

# Their INFO is for their own authors: a line for each request, and the payload of each packet.
# Each is named, and not left to the root logger, because python-socketio and python-engineio add a
# handler of their own to a logger without a level.
THIRD_PARTY: Final = (
    "aiohttp",
    "aiohttp.access",
    "asyncio",
    "engineio",
    "engineio.client",
    "engineio.server",
    "redis",
    "socketio",
    "socketio.client",
    "socketio.server",
)

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# What a record has without ``extra``; the two names are set by formatters, taskName comes with Python 3.12.
_RECORD_ATTRIBUTES: Final = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "asctime", "message", "taskName"}
)
_PLAIN: Final = (str, int, float, list, tuple, dict, type(None))
_CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def configure(level: str, format: str, stream: TextIO | None = None) -> None:  # noqa: A002  # the setting's name
    """Send every record of the process to ``stream``; once more replaces what was configured before.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``. Libraries are heard from ``warning`` on,
            and from ``debug`` on with ``debug``.
        format: ``text``, or ``json`` for one JSON object a line.
        stream: None is what ``sys.stderr`` is now.

    Raises:
        ValueError: an unknown level or format.
    """
    if level not in _LEVELS:
        raise ValueError(f"level={level!r}: expected one of {', '.join(_LEVELS)}")
    formatters = {"text": TextFormatter, "json": JsonFormatter}
    if format not in formatters:
        raise ValueError(f"format={format!r}: expected one of {', '.join(formatters)}")
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(formatters[format]())
    own = _LEVELS[level]
    others = own if own == logging.DEBUG else max(own, logging.WARNING)
    logging.basicConfig(handlers=[handler], level=others, force=True)
    logging.getLogger("ditochat").setLevel(own)
    for name in THIRD_PARTY:
        logger = logging.getLogger(name)
        logger.setLevel(others)
        for stray in list(logger.handlers):
            logger.removeHandler(stray)


class TextFormatter(logging.Formatter):
    """``time level logger message``, and below it the traceback, if there is one.

    Control characters of the message are escaped: what clients send must not look like another line.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Build the line."""
        message = _CONTROL_CHARACTERS.sub(_escaped, record.message)
        return f"{_time(record)} {record.levelname} {record.name} {message}"


class JsonFormatter(logging.Formatter):
    """A JSON object: ``time``, ``level``, ``logger``, ``message``, what ``extra`` brought, ``exception``.

    An extra field with the name of one of the others gives way. A value of another type than JSON's is
    written as ``repr`` shows it: objects that hide passwords there (the settings) hide them here.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Build the line."""
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _RECORD_ATTRIBUTES:
                fields.setdefault(name, value if isinstance(value, _PLAIN) else repr(value))
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            fields["exception"] = record.exc_text
        if record.stack_info:
            fields["stack"] = record.stack_info
        return _json(fields)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


def _json(fields: Mapping[str, object]) -> str:
    try:
        return msgspec.json.encode(fields, enc_hook=repr).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Lone surrogates, keys that are no strings, endless structures: show them, and lose no record.
        return msgspec.json.encode({ascii(k)[1:-1]: _shown(v) for k, v in fields.items()}).decode()


def _shown(value: object) -> str:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else ascii(value)
