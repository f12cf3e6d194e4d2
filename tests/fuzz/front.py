"""The front door and the HTTP application behind it, without sockets: each request is answered."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final
from unittest.mock import patch

from aiohttp import web, web_fileresponse

from ditochat.engine.door import HEAD_SECONDS, MAX_HEAD_BYTES, Porter
from tests.fuzz.engine import left_in
from tests.fuzz.instance import FuzzedInstance, instance
from tests.fuzz.requests import SID, complete_requests, draws, statuses, websocket_bytes
from tests.fuzz.sessions import frames_of_server
from tests.fuzz.target import Check, Target
from tests.fuzz.wire import Wire

__all__ = ["TARGET"]

# Longer than anything is waited for: a GET that is held, until the next ping.
PATIENCE_SECONDS: Final = 50
# A session that polls ends by its heartbeat, a /ws client by its last pong.
FORGET_SECONDS: Final = 100


class _Front:
    """One connection after another, to the same door."""

    def __init__(self, run: FuzzedInstance, runner: web.AppRunner) -> None:
        assert runner.server is not None
        self._run = run
        self._http = runner.server
        self._porter = Porter(run.server._door, runner.server)  # noqa: SLF001 - the program has no other way in

    async def play(self, data: bytes) -> None:
        if SID in data:
            connection, _ = self._run.chat.eio.open(on_websocket=False)
            data = data.replace(SID, connection.sid.encode())
        door = self._porter()
        wire = Wire(door)
        door.connection_made(wire)
        for segment in segments(data):
            wire.feed(segment)
            await asyncio.sleep(0)
        if b"\r\n\r\n" not in data and len(data) < MAX_HEAD_BYTES:
            await asyncio.sleep(HEAD_SECONDS + 1)
            assert wire.lost, "a head that does not end is waited for"
        await asyncio.sleep(3)
        due = complete_requests(data)
        if len(statuses(bytes(wire.received))) < due:
            await asyncio.sleep(PATIENCE_SECONDS)
        check_answers(bytes(wire.received), due, ended=wire.is_closing())
        self._run.raise_escaped()
        wire.hang_up()
        await asyncio.sleep(FORGET_SECONDS)
        self._run.raise_escaped()
        assert wire.lost
        assert self._left() == []

    def _left(self) -> list[str]:
        tables = {
            "heads": len(self._porter._deadlines),  # noqa: SLF001 - there is no other way to see what is left
            "requests": len(self._http.connections),
            "clients of /ws": self._run.server._websocket.count,  # noqa: SLF001
            "room": len(self._run.room.members()),
            "chat": len(self._run.chat._clients) + len(self._run.chat._connecting),  # noqa: SLF001
        }
        return [
            *left_in(self._run.chat.eio),
            *(f"{name}: {count}" for name, count in tables.items() if count),
        ]


def check_answers(received: bytes, due: int, *, ended: bool) -> None:
    """Hold what came against the number of complete requests; a connection that has ended owes but one answer."""
    found = statuses(received)
    assert len(found) >= due or (ended and found), f"{len(found)} answers to {due} requests: {found}"
    frames = websocket_bytes(received)
    if frames is not None:
        frames_of_server(frames)


def segments(data: bytes) -> Iterator[bytes]:
    """Cut the input as a network may, the same each time."""
    random = Random(zlib.crc32(data))  # noqa: S311 - to be drawn again, not to be secret
    widest = max(random.choice((5, 100, 100_000, 100_000)), len(data) // 40)
    start = 0
    while start < len(data):
        stop = start + random.randint(1, widest)
        yield data[start:stop]
        start = stop


@contextmanager
def _opened() -> Iterator[Check]:
    # There is no descriptor to send a file to.
    with instance() as (loop, run), patch.object(web_fileresponse, "NOSENDFILE", new=True):
        runner = run.server._runner()  # noqa: SLF001
        loop.run_until_complete(runner.setup())
        front = _Front(run, runner)
        try:
            yield lambda data: loop.run_until_complete(front.play(data))
        finally:
            loop.run_until_complete(runner.cleanup())


TARGET: Final = Target("front", 40, _opened, draws)
