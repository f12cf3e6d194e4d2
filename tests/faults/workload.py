"""Everybody who uses a cluster during a run: more than a hundred clients, over every transport."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import aiohttp

from tests.faults.http_client import HttpPublisher, HttpReader
from tests.faults.plain_client import PlainClient
from tests.faults.site import Site
from tests.faults.socketio_clients import SocketIoClients

__all__ = ["Crowd", "Workload"]

TRANSPORTS = (["websocket"], ["polling"], ["polling", "websocket"])
SECONDS_A_MESSAGE = 1.0  # of each publisher, in the mean
DROPS_SECONDS = 1.0  # from one client that loses its network to the next, in the mean
BURST_AT_ONCE = 20


@dataclass(frozen=True)
class Crowd:
    """How many there are of each kind; of the plain ones, `slow` stop reading now and then."""

    socketio: int = 72
    socketio_publishers: int = 12
    plain: int = 36
    slow: int = 12
    plain_publishers: int = 6
    http_publishers: int = 6
    http_readers: int = 4

    @property
    def readers(self) -> int:
        """How many are sent what is published."""
        return self.socketio + self.plain


class Workload:
    """Use it by `async with`: inside, it runs; at the end nobody is connected."""

    def __init__(self, site: Site, crowd: Crowd, seed: int) -> None:
        recorder, urls = site.recorder, site.urls
        self.crowd = crowd
        self._recorder = recorder
        self._chance = random.Random(f"{seed}/workload")  # noqa: S311 - the same choices for the same seed
        self._seed = seed
        self._urls = urls
        self._socketio = SocketIoClients(recorder, urls, seed)
        self._plain = [
            PlainClient(
                f"ws-{number}",
                recorder,
                site.ports,
                seed=seed,
                slow=number < crowd.slow,
                publishes=SECONDS_A_MESSAGE if number >= crowd.plain - crowd.plain_publishers else None,
            )
            for number in range(crowd.plain)
        ]
        self._publishers = [
            HttpPublisher(f"post-{number}", recorder, urls, seed=seed, publishes=SECONDS_A_MESSAGE)
            for number in range(crowd.http_publishers)
        ]
        self._readers = [
            HttpReader(f"get-{number}", recorder, urls, seed=seed) for number in range(crowd.http_readers)
        ]
        self._bursts = itertools.count(1)
        self._drops = False
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._socketio)
        for number in range(self.crowd.socketio):
            self._socketio.open(
                f"io-{number}",
                transports=TRANSPORTS[number % 3],
                recovery=number % 2 == 1,
                publishes=SECONDS_A_MESSAGE if number < self.crowd.socketio_publishers else None,
            )
        for run in (
            *(client.run for client in self._plain),
            *(client.run for client in self._publishers),
            *(client.run for client in self._readers),
        ):
            self._start(run)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    def begin_drops(self) -> None:
        """Have clients lose their network from now on, one now and one then."""
        self._drops = True
        self._start(self._drop_now_and_then)

    def end_drops(self) -> None:
        """Have the network hold."""
        self._drops = False

    def set_quiet(self, *, quiet: bool) -> None:
        """Have nobody publish anything new, or go on."""
        self._socketio.set_quiet(quiet=quiet)
        for plain in self._plain:
            plain.quiet = quiet
        for publisher in self._publishers:
            publisher.quiet = quiet

    async def burst(self, count: int, size: int) -> None:
        """Publish `count` messages of `size` characters, as fast as it goes."""
        name = f"burst-{next(self._bursts)}"
        publisher = HttpPublisher(name, self._recorder, self._urls, seed=self._seed, publishes=0)
        numbers = iter(range(count))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(3.5)) as http:

            async def publish() -> None:
                for number in numbers:
                    await publisher.publish(http, f"{name}-{number}", "x" * size)

            await asyncio.gather(*(publish() for _ in range(BURST_AT_ONCE)))

    async def leave(self) -> None:
        """Have everybody disconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._socketio.close_all()

    def _start(self, run: Callable[[], Awaitable[None]]) -> None:
        async def running() -> None:
            await run()

        self._tasks.append(asyncio.create_task(running()))

    def failed(self) -> list[BaseException]:
        """Return what ended a client of the harness itself; there must be nothing."""
        return [
            error
            for task in self._tasks
            if task.done() and not task.cancelled() and (error := task.exception()) is not None
        ]

    async def _drop_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / DROPS_SECONDS))
            if not self._drops:
                return
            if self._chance.random() < self.crowd.socketio / self.crowd.readers:
                name = self._chance.choice(self._socketio.names)
                self._socketio.drop(name, reset=self._chance.random() < 0.5)
            else:
                self._chance.choice(self._plain).drop()
