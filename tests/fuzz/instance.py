"""An instance without sockets: all its parts as the program wires them, a log in memory in place of Redis."""

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from ditochat.application import _Server
from ditochat.listening import FileLimit
from ditochat.log.connections import Connections
from ditochat.log.scripts import APPEND
from ditochat.message import StoredMessage
from ditochat.settings import load
from ditochat.timeline import Timeline
from tests.fuzz.virtual_time import VirtualTimeLoop

__all__ = ["LIMIT", "SEND_BUFFER_BYTES", "Errors", "FuzzedInstance", "instance"]

LIMIT: Final = 1024
SEND_BUFFER_BYTES: Final = 8 * 1024
HISTORY: Final = 20
EPOCH: Final = "epoch"
# Less than the program can be told to allow, so that short inputs reach it.
_SETTINGS: Final = replace(
    load({"MAX_MESSAGE_BYTES": str(LIMIT), "HISTORY_LIMIT": str(HISTORY)}, {}),
    send_buffer_bytes=SEND_BUFFER_BYTES,
)
# Of the append script's arguments, those before the first message.
_FIRST_DRAFT: Final = 9


class _Log(Redis):
    """Answers the append script, and delivers what it stored; nothing else can be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.server: _Server | None = None

    async def execute_command(self, *args: Any, **_options: Any) -> Any:
        if self.away or args[:2] != ("EVALSHA", APPEND.sha1):
            raise RedisConnectionError("nobody is there")
        assert self.server is not None
        timeline: Timeline = self.server._follower.timeline  # noqa: SLF001 - the program has no other way in
        rows: list[Any] = []
        arguments = args[3 + args[2] :]
        for body in arguments[_FIRST_DRAFT::3]:
            text = b'{"id":%d,"ts":1700000000000,' % (timeline.last_id + 1) + body[1:]
            message = StoredMessage.parse(text)
            timeline.append(message)
            self.server._room.appended(message)  # noqa: SLF001
            rows += [message.id, 0, text]
        return [b"OK", EPOCH.encode(), *rows]

    async def publish(self, *_: Any, **__: Any) -> int:
        return 0


class Errors(logging.Handler):
    """Keeps what is logged at ERROR: no client may cause it. All records are formatted, as they would be."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self.records.append(text)

    def raise_logged(self) -> None:
        """Raise what was logged as an error since the last time."""
        if self.records:
            text = self.records[0]
            self.records.clear()
            raise AssertionError(f"logged as an error: {text}")

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to all loggers, as the only one: who keeps a million records is no leak of the server's."""
        root = logging.getLogger()
        level, handlers = root.level, root.handlers
        root.handlers = [self]
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.setLevel(level)
            root.handlers = handlers


class FuzzedInstance:
    """The parts of an instance that targets feed."""

    def __init__(self, loop: VirtualTimeLoop, errors: Errors) -> None:
        self._loop = loop
        self._errors = errors
        self.log = _Log()
        self.server = _Server(_SETTINGS, Connections(self.log, self.log, self.log), FileLimit())
        self.log.server = self.server
        self.chat = self.server._chat  # noqa: SLF001 - the program has no other way in
        self.room = self.server._room  # noqa: SLF001
        self.manager = self.server._manager  # noqa: SLF001
        messages = [
            StoredMessage.parse(b'{"id":%d,"ts":1700000000000,"text":"m"}' % number) for number in range(1, 6)
        ]
        self.server._follower.timeline.replace(EPOCH, 5, messages)  # noqa: SLF001
        self._tasks = [
            loop.create_task(self.server._appender.run()),  # noqa: SLF001
            loop.create_task(self.manager.run()),
        ]

    def raise_escaped(self) -> None:
        """Raise what escaped, or what was logged as an error, since the last time."""
        self._loop.raise_escaped()
        self._errors.raise_logged()
        for task in self._tasks:
            assert not task.done(), "a part of the server has ended"

    async def end(self) -> None:
        """Stop what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextmanager
def instance() -> Iterator[tuple[VirtualTimeLoop, FuzzedInstance]]:
    """Run an instance on a loop of virtual time."""
    loop = VirtualTimeLoop()
    errors = Errors()
    try:
        with errors.heard():
            run = FuzzedInstance(loop, errors)
            try:
                yield loop, run
                gc.collect()  # a task that nobody asked for its error says so when it goes
                run.raise_escaped()
            finally:
                loop.run_until_complete(run.end())
    finally:
        loop.close()
