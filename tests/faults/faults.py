"""What is broken on purpose, one method each: it begins, it lasts, and it is mended.

Each says in the record whom it keeps from Redis (`away`) and who cannot answer at all (`halted`): whatever the
clients see elsewhere has no excuse.
"""

import asyncio
import itertools
import os
import random
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final

from redis.exceptions import RedisError

from tests.faults.cluster import Cluster, now
from tests.faults.malformed import malformed
from tests.faults.plan import Kind, Planned
from tests.faults.record import Ended, Fault, Lost, Over
from tests.faults.workload import Workload
from tests.harness.raw_client import RawHttp, client_frame, narrow_socket
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

__all__ = ["KINDS", "Faults"]

KINDS: Final[Mapping[str, Kind]] = {
    "instance killed": Kind(0.0, 4.0, "an instance"),
    "instance drained": Kind(0.0, 4.0, "an instance"),
    "instance stopped": Kind(1.0, 20.0, "an instance too"),
    "instance out of files": Kind(2.0, 8.0, "an instance too"),
    "instance's clock off by an hour": Kind(5.0, 20.0, "a clock"),
    "valkey killed": Kind(0.0, 6.0, "valkey"),
    "valkey stopped": Kind(1.0, 20.0, "valkey"),
    "valkey emptied": Kind(0.0, 0.0, "valkey"),
    "valkey's disk full": Kind(2.0, 8.0, "valkey"),
    "subscriptions killed": Kind(0.0, 3.0, "subscriptions"),
    "connections killed": Kind(0.0, 3.0, "connections"),
    "subscriptions overflown": Kind(1.0, 4.0, "valkey"),
    "publish refused": Kind(5.0, 8.0, "valkey"),
    "scripts forgotten": Kind(0.0, 2.0, "valkey"),
    "network slow": Kind(3.0, 15.0, "a network"),
    "network cut": Kind(0.0, 4.0, "a network"),
    "network black": Kind(1.0, 20.0, "another network"),
    "network half closed": Kind(0.0, 1.0, "another network"),
    "failover coordinated": Kind(0.0, 0.0, "valkey"),
    "failover by command": Kind(0.0, 0.0, "valkey"),
    "failover after a crash": Kind(0.0, 0.0, "valkey"),
    "failover that loses": Kind(0.5, 2.0, "valkey"),
    "slow clients": Kind(4.0, 8.0, "clients"),
    "malformed input": Kind(2.0, 8.0, "input"),
}
"""All faults, by name; the methods below say what each is."""

SLOW_CLIENTS: Final = 1000
SLOW_AT_ONCE: Final = 50
BURST: Final = (300, 3000)  # messages, and characters in each
SMALL_BURST: Final = (50, 3000)
MALFORMED_AT_ONCE: Final = 4
HOUR: Final = 3600
DRAINED_WITHIN: Final = 2 + 3 + 3 + 4  # DRAIN_SECONDS, twice SETTLE_SECONDS, and what this machine may add
BACK_WITHIN: Final = 60.0
IN_SYNC_WITHIN: Final = 20.0


class _Busy(Exception):
    """Something else has what this fault would break; it does not happen."""


class Faults:
    """Breaks a cluster; `counts` says how often each kind was injected."""

    def __init__(self, cluster: Cluster, workload: Workload) -> None:
        self.counts: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._cluster = cluster
        self._workload = workload
        self._numbers = itertools.count(1)
        self._taken: set[str] = set()
        self._methods = {
            "instance killed": self._instance_killed,
            "instance drained": self._instance_drained,
            "instance stopped": self._instance_stopped,
            "instance out of files": self._instance_out_of_files,
            "instance's clock off by an hour": self._clock_off,
            "valkey killed": self._valkey_killed,
            "valkey stopped": self._valkey_stopped,
            "valkey emptied": self._valkey_emptied,
            "valkey's disk full": self._disk_full,
            "subscriptions killed": self._subscriptions_killed,
            "connections killed": self._connections_killed,
            "subscriptions overflown": self._subscriptions_overflown,
            "publish refused": self._publish_refused,
            "scripts forgotten": self._scripts_forgotten,
            "network slow": self._network_slow,
            "network cut": self._network_cut,
            "network black": self._network_black,
            "network half closed": self._network_half_closed,
            "failover coordinated": self._failover_coordinated,
            "failover by command": self._failover_by_command,
            "failover after a crash": self._failover_after_a_crash,
            "failover that loses": self._failover_that_loses,
            "slow clients": self._slow_clients,
            "malformed input": self._malformed_input,
        }

    async def inject(self, planned: Planned) -> None:
        """Break it, and mend it; where something else is at it already, do nothing."""
        chance = random.Random(planned.seed)  # noqa: S311 - the same run for the same seed
        try:
            await self._methods[planned.kind](planned, chance)
        except _Busy:
            self.skipped[planned.kind] += 1
        else:
            self.counts[planned.kind] += 1

    # ---- instances

    async def _instance_killed(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        async with self._taking(f"instance {name}"), self._broken(planned, halted=[name]):
            self._cluster.expect_end(name)
            await self._cluster.instances[name].kill()
            await asyncio.sleep(planned.seconds)
            await self._cluster.start_instance(name)

    async def _instance_drained(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        async with self._taking(f"instance {name}"), self._broken(planned, halted=[name]):
            self._cluster.expect_end(name)
            status = await self._cluster.instances[name].terminate(DRAINED_WITHIN)
            if status != 0:
                self._cluster.recorder.add(Ended(at=now(), instance=name, status=status))
            await asyncio.sleep(planned.seconds)
            await self._cluster.start_instance(name)

    async def _instance_stopped(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        async with self._taking(f"instance {name}"), self._broken(planned, halted=[name]):
            self._cluster.instances[name].pause()
            await asyncio.sleep(planned.seconds)
            self._cluster.instances[name].resume()

    async def _instance_out_of_files(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        pid = self._cluster.instances[name].pid
        async with self._taking(f"instance {name}"), self._broken(planned, halted=[name]):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count of names
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 2, hard))
            try:
                await asyncio.sleep(planned.seconds)
            finally:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    async def _clock_off(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        if name not in self._cluster.clocks:
            raise _Busy
        async with self._taking(f"clock {name}"), self._broken(planned):
            self._cluster.clocks[name].set(chance.choice((-HOUR, HOUR)))
            await asyncio.sleep(planned.seconds)
            self._cluster.clocks[name].set(0)

    # ---- Valkey

    async def _valkey_killed(self, planned: Planned, _chance: random.Random) -> None:
        async with self._taking("valkey"), self._broken(planned, away=self._everybody):
            await self._cluster.master.kill()
            await asyncio.sleep(planned.seconds)
            await self._cluster.master.start()
            await self._master_is_back()

    async def _valkey_stopped(self, planned: Planned, _chance: random.Random) -> None:
        async with self._taking("valkey"), self._broken(planned, away=self._everybody):
            self._cluster.master.pause()
            await asyncio.sleep(planned.seconds)
            self._cluster.master.resume()
            await self._master_is_back()

    async def _valkey_emptied(self, planned: Planned, _chance: random.Random) -> None:
        async with (
            self._taking("valkey"),
            self._losing("FLUSHALL", certain=True),
            self._broken(planned, away=self._everybody),
            self._cluster.master.client() as redis,
        ):
            await redis.flushall()

    async def _disk_full(self, planned: Planned, _chance: random.Random) -> None:
        disk = self._cluster.master_disk
        if not disk.available:
            raise _Busy
        async with self._taking("valkey"), self._broken(planned, away=self._everybody):
            disk.fill()
            try:
                await asyncio.sleep(planned.seconds)
            finally:
                disk.free()
            await self._master_is_back()
            await self._rewrite_the_file()

    async def _rewrite_the_file(self) -> None:
        """Have a sound append-only file again: an operator has to, and docs/reliability.md says so.

        Where the server was a replica once, Redis 7.0 and Valkey 9.1 take the beginning of a write that did not
        fit back at the wrong place, and cannot read the file when they are started again.
        """
        async with self._cluster.master.client() as redis:
            await redis.bgrewriteaof()

            async def rewritten() -> bool:
                info = await redis.info("persistence")
                return not (info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])

            await eventually(rewritten, otherwise=lambda: "the append-only file is not rewritten")

    async def _subscriptions_killed(self, planned: Planned, chance: random.Random) -> None:
        await self._kill_connections(planned, chance, "pubsub")

    async def _connections_killed(self, planned: Planned, chance: random.Random) -> None:
        await self._kill_connections(planned, chance, "normal")

    async def _kill_connections(self, planned: Planned, chance: random.Random, kind: str) -> None:
        async with self._taking(f"kill {kind}"), self._broken(planned, away=self._everybody):
            end = now() + planned.seconds
            while True:
                with suppress(RedisError, OSError):
                    async with asyncio.timeout(1), self._cluster.master.client() as redis:
                        await redis.client_kill_filter(_type=kind, skipme=True)
                if now() >= end:
                    return
                await asyncio.sleep(chance.random() / 2)

    async def _subscriptions_overflown(self, planned: Planned, _chance: random.Random) -> None:
        """More is published at once than Valkey keeps for a subscriber: it closes the connection."""
        async with (
            self._taking("valkey"),
            self._broken(planned, away=self._everybody),
            self._cluster.master.client() as redis,
        ):
            await redis.config_set("client-output-buffer-limit", "pubsub 16384 0 0")
            try:
                async with asyncio.timeout(planned.seconds):
                    await self._workload.burst(*SMALL_BURST)
            except TimeoutError:
                pass
            finally:
                await redis.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")

    async def _publish_refused(self, planned: Planned, _chance: random.Random) -> None:
        """What is stored is not published, and nothing else is wrong: only the list tells of it."""
        async with self._taking("valkey"), self._broken(planned), self._cluster.master.client() as redis:
            await redis.execute_command("ACL", "SETUSER", "default", "-publish")
            try:
                await asyncio.sleep(planned.seconds)
            finally:
                await redis.execute_command("ACL", "SETUSER", "default", "+publish")

    async def _scripts_forgotten(self, planned: Planned, chance: random.Random) -> None:
        async with self._taking("valkey"), self._broken(planned), self._cluster.master.client() as redis:
            end = now() + planned.seconds
            while True:
                await redis.script_flush()
                if now() >= end:
                    return
                await asyncio.sleep(chance.random() / 2)

    # ---- the network between an instance and Valkey

    async def _network_slow(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self._taking(f"network {name}"), self._broken(planned, away=[name]):
            proxy.delay = chance.uniform(0.005, 0.5)
            await asyncio.sleep(planned.seconds)
            proxy.delay = 0.0

    async def _network_cut(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self._taking(f"network {name}"), self._broken(planned, away=[name]):
            proxy.refuse()
            await proxy.cut()
            await asyncio.sleep(planned.seconds)
            await proxy.accept()

    async def _network_black(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self._taking(f"network {name}"), self._broken(planned, away=[name]):
            proxy.blackhole()
            await asyncio.sleep(planned.seconds)
            if chance.random() < 0.5:
                await proxy.cut()
            proxy.resume()

    async def _network_half_closed(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self._taking(f"network {name}"), self._broken(planned, away=[name]):
            proxy.half_close()
            await asyncio.sleep(planned.seconds)

    # ---- failover

    async def _failover_coordinated(self, planned: Planned, _chance: random.Random) -> None:
        """The old master waits for its replica, and takes nothing more: nothing is lost."""
        async with self._failing_over(planned):
            await self._cluster.sentinel.fail_over(self._cluster.replica, "COORDINATED")
            await self._cluster.swap()

    async def _failover_by_command(self, planned: Planned, _chance: random.Random) -> None:
        """What the old master takes until Sentinel makes it a replica is lost."""
        async with self._losing("failover by command"), self._failing_over(planned):
            await self._cluster.sentinel.fail_over(self._cluster.replica)
            await self._cluster.swap()

    async def _failover_after_a_crash(self, planned: Planned, _chance: random.Random) -> None:
        """What had not reached the replica when the master died is lost: often nothing."""
        async with self._losing("failover after a crash"), self._failing_over(planned):
            await self._cluster.master.kill()
            await self._promote_the_replica()

    async def _failover_that_loses(self, planned: Planned, _chance: random.Random) -> None:
        """The replica lags when the master dies: what the master took meanwhile is lost for certain."""
        async with self._losing("failover that loses"), self._failing_over(planned):
            self._cluster.replica.pause()
            await asyncio.sleep(planned.seconds)
            await self._cluster.master.kill()
            # Killed as well: it would read on what waits in the kernel's buffers.
            await self._cluster.replica.kill()
            await self._cluster.replica.start()
            await self._promote_the_replica()

    async def _promote_the_replica(self) -> None:
        await self._cluster.sentinel.fail_over(self._cluster.replica)
        await self._cluster.swap()
        await self._cluster.replica.start()

    @asynccontextmanager
    async def _failing_over(self, planned: Planned) -> AsyncIterator[None]:
        cluster = self._cluster
        async with self._taking("valkey"):
            if not await cluster.synchronized():
                raise _Busy
            async with self._broken(planned, away=self._everybody):
                yield
                await self._master_is_back()
                await eventually(
                    cluster.synchronized,
                    within=IN_SYNC_WITHIN,
                    otherwise=lambda: cluster.replica.explain("does not follow the new master"),
                )

    # ---- clients

    async def _slow_clients(self, planned: Planned, chance: random.Random) -> None:
        """A thousand clients connect, stop reading, and are sent more than they may have waiting."""
        ports = [instance.port for instance in self._cluster.instances.values()]
        async with self._taking("slow clients"), self._broken(planned):
            with ExitStack() as sockets:

                async def connect(port: int) -> None:
                    with suppress(OSError, TimeoutError):
                        async with asyncio.timeout(3):
                            await _let_in(sockets.enter_context(await narrow_socket(port)))

                for _ in range(SLOW_CLIENTS // SLOW_AT_ONCE):
                    await asyncio.gather(*(connect(chance.choice(ports)) for _ in range(SLOW_AT_ONCE)))
                with suppress(TimeoutError):
                    async with asyncio.timeout(planned.seconds):
                        await self._workload.burst(*BURST)

    async def _malformed_input(self, planned: Planned, chance: random.Random) -> None:
        port = self._cluster.instances[self._some_instance(chance)].port

        async def send() -> None:
            while True:
                with suppress(OSError, asyncio.IncompleteReadError):
                    async with await RawHttp.open(port) as http:
                        http.send(malformed(chance))
                        await asyncio.sleep(chance.random() / 50)
                await asyncio.sleep(0.02)

        async with self._taking("malformed input"), self._broken(planned):
            with suppress(TimeoutError):
                async with asyncio.timeout(planned.seconds):
                    await asyncio.gather(*(send() for _ in range(MALFORMED_AT_ONCE)))

    # ---- what they share

    @property
    def _everybody(self) -> list[str]:
        return list(self._cluster.instances)

    def _some_instance(self, chance: random.Random) -> str:
        return chance.choice(self._everybody)

    def _some_proxy(self, chance: random.Random) -> tuple[str, TcpProxy]:
        return chance.choice(list(self._cluster.proxies.items()))

    @asynccontextmanager
    async def _taking(self, *what: str) -> AsyncIterator[None]:
        """Have something for oneself."""
        if self._taken & set(what):
            raise _Busy
        self._taken |= set(what)
        try:
            yield
        finally:
            self._taken -= set(what)

    @asynccontextmanager
    async def _broken(
        self, planned: Planned, *, away: Iterable[str] = (), halted: Iterable[str] = ()
    ) -> AsyncIterator[None]:
        number = next(self._numbers)
        add = self._cluster.recorder.add
        add(Fault(at=now(), number=number, kind=planned.kind, away=list(away), halted=list(halted)))
        yield
        add(Over(at=now(), number=number))

    @asynccontextmanager
    async def _losing(self, how: str, *, certain: bool = False) -> AsyncIterator[None]:
        since = now()
        yield
        self._cluster.recorder.add(Lost(at=now(), how=how, since=since, certain=certain))

    async def _master_is_back(self) -> None:
        cluster = self._cluster
        await eventually(
            cluster.master_answers,
            within=BACK_WITHIN,
            otherwise=lambda: cluster.master.explain("takes no writes"),
        )


async def _let_in(client: socket.socket) -> None:
    """Connect by Socket.IO over a WebSocket, and read nothing, not even the answers."""
    request = (
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await asyncio.get_running_loop().sock_sendall(client, request.encode() + client_frame(1, b"40"))
