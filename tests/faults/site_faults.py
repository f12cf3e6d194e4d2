"""What can be broken on any site, and what all faults share.

Each fault says in the record whom it keeps from Redis (`away`) and who cannot answer at all (`halted`): whatever
clients see elsewhere has no excuse.
"""

import asyncio
import itertools
import os
import random
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final, Generic, TypeVar

from ditochat.listening import SPARE_FILES
from tests.faults.malformed import malformed
from tests.faults.plan import Kind, Planned
from tests.faults.record import Ended, Fault, Lost, Over
from tests.faults.site import DRAIN_SECONDS, Site, now
from tests.faults.workload import Workload
from tests.harness.raw_client import RawHttp, client_frame, narrow_socket
from tests.harness.waiting import eventually

__all__ = ["SITE_KINDS", "Busy", "Injection", "SiteFaults"]

SITE_KINDS: Final[Mapping[str, Kind]] = {
    "instance killed": Kind(0.0, 4.0, "an instance"),
    "instance drained": Kind(0.0, 4.0, "an instance"),
    "instance stopped": Kind(1.0, 20.0, "an instance too"),
    "instance out of files": Kind(2.0, 8.0, "an instance too"),
    "slow clients": Kind(4.0, 8.0, "clients"),
    "malformed input": Kind(2.0, 8.0, "input"),
}
"""All faults of every site, by name; the methods below say what each is."""

SLOW_CLIENTS: Final = 1000
SLOW_AT_ONCE: Final = 50
BURST: Final = (300, 3000)  # messages, and characters in each
MALFORMED_AT_ONCE: Final = 4
# DRAIN_SECONDS, twice SETTLE_SECONDS, the embedded Valkey's end, and what this machine may add.
DRAINED_WITHIN: Final = DRAIN_SECONDS + 3 + 3 + 5 + 5
BACK_WITHIN: Final = 60.0

S = TypeVar("S", bound=Site)
Injection = Callable[[Planned, random.Random], Awaitable[None]]


class Busy(Exception):
    """Something else has what this fault would break; it does not happen."""


class SiteFaults(Generic[S]):
    """Breaks a site; `counts` says how often each kind was injected."""

    def __init__(self, site: S, workload: Workload) -> None:
        self.site = site
        self.workload = workload
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._taken: set[str] = set()

    def injections(self) -> dict[str, Injection]:
        """Return what to do for each kind."""
        return {
            "instance killed": self._instance_killed,
            "instance drained": self._instance_drained,
            "instance stopped": self._instance_stopped,
            "instance out of files": self._instance_out_of_files,
            "slow clients": self._slow_clients,
            "malformed input": self._malformed_input,
        }

    async def inject(self, planned: Planned) -> None:
        """Break it, and mend it; where something else is at it already, do nothing."""
        chance = random.Random(planned.seed)  # noqa: S311 - the same run for the same seed
        try:
            await self.injections()[planned.kind](planned, chance)
        except Busy:
            self.skipped[planned.kind] += 1
        else:
            self.counts[planned.kind] += 1

    # ---- instances

    async def _instance_killed(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        async with self.taking(f"instance {name}"), self.broken(planned, halted=[name]):
            self.site.expect_end(name)
            await self.site.instances[name].kill()
            await asyncio.sleep(planned.seconds)
            await self.site.start_instance(name)

    async def _instance_drained(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        async with self.taking(f"instance {name}"), self.broken(planned, halted=[name]):
            self.site.expect_end(name)
            status = await self.site.instances[name].terminate(DRAINED_WITHIN)
            if status != 0:
                self.site.recorder.add(Ended(at=now(), instance=name, status=status))
            await asyncio.sleep(planned.seconds)
            await self.site.start_instance(name)

    async def _instance_stopped(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        async with self.taking(f"instance {name}"), self.broken(planned, halted=[name]):
            self.site.instances[name].pause()
            await asyncio.sleep(planned.seconds)
            self.site.instances[name].resume()

    async def _instance_out_of_files(self, planned: Planned, chance: random.Random) -> None:
        """New clients are sent away, or cannot even be accepted; who is there is served as before."""
        name = self._some_instance(chance)
        pid = self.site.instances[name].pid
        more = chance.choice((2, SPARE_FILES))
        halted = [name] if more < SPARE_FILES else []
        async with self.taking(f"instance {name}"), self.broken(planned, halted=halted):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count of names
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + more, hard))
            try:
                await asyncio.sleep(planned.seconds)
            finally:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    # ---- clients

    async def _slow_clients(self, planned: Planned, chance: random.Random) -> None:
        """A thousand clients connect, stop reading, and are sent more than they may have waiting."""
        ports = [instance.port for instance in self.site.instances.values()]
        async with self.taking("slow clients"), self.broken(planned):
            with ExitStack() as sockets:

                async def connect(port: int) -> None:
                    with suppress(OSError, TimeoutError):
                        async with asyncio.timeout(3):
                            await _let_in(sockets.enter_context(await narrow_socket(port)))

                for _ in range(SLOW_CLIENTS // SLOW_AT_ONCE):
                    await asyncio.gather(*(connect(chance.choice(ports)) for _ in range(SLOW_AT_ONCE)))
                with suppress(TimeoutError):
                    async with asyncio.timeout(planned.seconds):
                        await self.workload.burst(*BURST)

    async def _malformed_input(self, planned: Planned, chance: random.Random) -> None:
        port = self.site.instances[self._some_instance(chance)].port

        async def send() -> None:
            while True:
                with suppress(OSError, asyncio.IncompleteReadError):
                    async with await RawHttp.open(port) as http:
                        http.send(malformed(chance))
                        await asyncio.sleep(chance.random() / 50)
                await asyncio.sleep(0.02)

        async with self.taking("malformed input"), self.broken(planned):
            with suppress(TimeoutError):
                async with asyncio.timeout(planned.seconds):
                    await asyncio.gather(*(send() for _ in range(MALFORMED_AT_ONCE)))

    # ---- what they share

    @property
    def everybody(self) -> list[str]:
        return list(self.site.instances)

    def _some_instance(self, chance: random.Random) -> str:
        return chance.choice(self.everybody)

    @asynccontextmanager
    async def taking(self, *what: str) -> AsyncIterator[None]:
        """Have something for oneself."""
        if self._taken & set(what):
            raise Busy
        self._taken |= set(what)
        try:
            yield
        finally:
            self._taken -= set(what)

    @asynccontextmanager
    async def broken(
        self, planned: Planned, *, away: Iterable[str] = (), halted: Iterable[str] = ()
    ) -> AsyncIterator[None]:
        number = next(self._numbers)
        add = self.site.recorder.add
        add(Fault(at=now(), number=number, kind=planned.kind, away=list(away), halted=list(halted)))
        yield
        add(Over(at=now(), number=number))

    @asynccontextmanager
    async def losing(self, how: str, *, certain: bool = False) -> AsyncIterator[None]:
        since = now()
        yield
        self.site.recorder.add(Lost(at=now(), how=how, since=since, certain=certain))

    async def store_is_back(self) -> None:
        """Return when what keeps the log takes writes."""
        await eventually(
            self.site.store_answers,
            within=BACK_WITHIN,
            otherwise=lambda: "what keeps the log takes no writes",
        )


async def _let_in(client: socket.socket) -> None:
    """Connect by Socket.IO over a WebSocket, and read nothing, not even the answers."""
    request = (
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await asyncio.get_running_loop().sock_sendall(client, request.encode() + client_frame(1, b"40"))
