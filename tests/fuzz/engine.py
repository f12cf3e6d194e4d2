"""The Engine.IO server under clients that do anything: sessions begin and end once, and nothing is left of them."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

from ditochat.engine.server import Burst, EngineServer, Outgoing
from tests.fuzz.mutation import Mutator
from tests.fuzz.sessions import SEPARATOR, Player, packets_of_server
from tests.fuzz.target import Check, Target
from tests.fuzz.virtual_time import VirtualTimeLoop
from tests.harness.loop import timers

__all__ = ["TARGET", "left_in", "script"]

MAX_PAYLOAD: Final = 2000


class _Application:
    """Echoes what it hears, and holds the engine to its word."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._engine = EngineServer(max_http_buffer_size=MAX_PAYLOAD)
        self._open: set[str] = set()
        self._engine.on("connect", self._connected)
        self._engine.on("message", self._heard)
        self._engine.on("disconnect", self._ended)

    def _connected(self, sid: str) -> None:
        assert sid not in self._open
        self._open.add(sid)

    def _heard(self, sid: str, data: str | bytes) -> None:
        assert sid in self._open, "a message of a session that has ended"
        if len(data) <= MAX_PAYLOAD:
            self._engine.put(sid, Burst([Outgoing(data)]))

    def _ended(self, sid: str, reason: str) -> None:
        assert reason
        self._open.remove(sid)

    def _say(self, sid: str, data: bytes) -> None:
        packets = [Outgoing(data[:8]), Outgoing(data.decode(errors="replace"))]
        self._engine.put(sid, Burst(packets))

    async def play(self, data: bytes) -> None:
        player = Player(self._engine, self._say)
        await player.play(data, self._loop.raise_escaped)
        await player.settle()
        await player.end()
        assert not self._open, "a session has no end"
        assert left_in(self._engine) == []
        packets_of_server(player)


def left_in(engine: EngineServer) -> list[str]:
    """Say what an engine still has of sessions that are over."""
    tables = ("connections", "_leaving", "_heartbeats", "_deadlines", "_upgrades", "_tasks")
    left = [f"{name}: {len(getattr(engine, name))}" for name in tables if getattr(engine, name)]
    return [*left, *([f"timers: {timers()}"] if timers() else [])]


@contextmanager
def _opened() -> Iterator[Check]:
    loop = VirtualTimeLoop()
    application = _Application(loop)

    def check(data: bytes) -> None:
        loop.run_until_complete(application.play(data))
        loop.raise_escaped()

    try:
        yield check
        gc.collect()  # a task that nobody asked for its error says so when it goes
        loop.raise_escaped()
    finally:
        loop.close()


def script(*steps: str | bytes) -> bytes:
    """Write a script."""
    return SEPARATOR.join(step.encode() if isinstance(step, str) else step for step in steps)


def _draws(random: Random) -> Callable[[], bytes]:
    seeds = [
        script("W", "<4hello\x1e3\x1ebAQID", "sgoing out", "t30", "<3", "S"),
        script("P", "g", "<4a\x1e4b\x1ebAAAA", "g", "sx", "g", "t30", "g", "<3", "<1"),
        script("P", "g", "u", ">2probe", "g", "sduring", ">5", "<4over\x1e4there", "sback", "<1"),
        script("P", "sfirst", "ssecond", "S", "g", "g", "g"),
        script("P", "g", "g", "<4late"),
        script("P", "g", "a", "g"),
        script("P", "u", "u", ">2probe", ">5", "x"),
        script("P", "u", ">2probe", "t12", "g", "<4alive", "S"),
        script("W", "z", "s" + "x" * 500, "s" + "y" * 500, "<4echo", "y", "S"),
        script("W", "z", "sx", "S!", "y"),
        script("W", b"r\x81\x85\0\0\0\x004hey!\x89\x80\0\0\0\0", b"r\x88\x80\0\0\0\0"),
        script("W", "P", "W", "<4a", "x", "P", "t50"),
    ]
    tokens = [
        b"\x1d", b"\x1dt99", b"\x1dt1", b"\x1dg", b"\x1da", b"\x1du", b"\x1d>2probe", b"\x1d>5", b"\x1d<1",
        b"\x1d<3",
        b"\x1d<2", b"\x1d<0", b"\x1d<6", b"\x1d<5", b"\x1d<4", b"\x1ebAA", b"\x1e", b"\x1dS", b"\x1dS!",
        b"\x1dx",
        b"\x1dz", b"\x1dy", b"\x1dP", b"\x1dW", b"\x1dr\x81\xfe\xff\xff", b"\x1dr\x88\x82\0\0\0\0\x03\xe8",
        b"\x1dr\x89\x80\0\0\0\0", b"\x1dr\x01\x80\0\0\0\0", b"\xff", b"4" * 2001, b"\xed\xa0\x80", b"\x1ds",
    ]  # fmt: skip
    return Mutator(random, seeds, tokens, SEPARATOR).draw


TARGET: Final = Target("engine", 70, _opened, _draws)
