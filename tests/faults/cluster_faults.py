"""What can be broken between and behind the instances of a cluster: Valkey, the network, Sentinel's failovers."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from redis.exceptions import RedisError

from tests.faults.cluster import Cluster
from tests.faults.plan import Kind, Planned
from tests.faults.site import now
from tests.faults.site_faults import SITE_KINDS, Busy, Injection, SiteFaults
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

__all__ = ["CLUSTER_KINDS", "ClusterFaults"]

CLUSTER_KINDS: Final[Mapping[str, Kind]] = {
    **SITE_KINDS,
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
}
"""All faults, by name; the methods below say what each is."""

HOUR: Final = 3600
SMALL_BURST: Final = (50, 3000)  # messages, and characters in each
IN_SYNC_WITHIN: Final = 20.0


class ClusterFaults(SiteFaults[Cluster]):
    """Breaks a cluster."""

    def injections(self) -> dict[str, Injection]:
        """Return what to do for each kind."""
        return super().injections() | {
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
        }

    # ---- instances

    async def _clock_off(self, planned: Planned, chance: random.Random) -> None:
        name = self._some_instance(chance)
        if name not in self.site.clocks:
            raise Busy
        async with self.taking(f"clock {name}"), self.broken(planned):
            self.site.clocks[name].set(chance.choice((-HOUR, HOUR)))
            await asyncio.sleep(planned.seconds)
            self.site.clocks[name].set(0)

    # ---- Valkey

    async def _valkey_killed(self, planned: Planned, _chance: random.Random) -> None:
        async with self.taking("valkey"), self.broken(planned, away=self.everybody):
            await self.site.master.kill()
            await asyncio.sleep(planned.seconds)
            await self.site.master.start()
            await self.store_is_back()

    async def _valkey_stopped(self, planned: Planned, _chance: random.Random) -> None:
        async with self.taking("valkey"), self.broken(planned, away=self.everybody):
            self.site.master.pause()
            await asyncio.sleep(planned.seconds)
            self.site.master.resume()
            await self.store_is_back()

    async def _valkey_emptied(self, planned: Planned, _chance: random.Random) -> None:
        async with (
            self.taking("valkey"),
            self.losing("FLUSHALL", certain=True),
            self.broken(planned, away=self.everybody),
            self.site.master.stubborn_client() as redis,
        ):
            await redis.flushall()

    async def _disk_full(self, planned: Planned, _chance: random.Random) -> None:
        disk = self.site.master_disk
        if not disk.available:
            raise Busy
        async with self.taking("valkey"), self.broken(planned, away=self.everybody):
            try:
                await disk.fill()
                await asyncio.sleep(planned.seconds)
            finally:
                disk.free()
            await self.store_is_back()
            await self._rewrite_the_file()

    async def _rewrite_the_file(self) -> None:
        """Have a sound append-only file again: an operator has to, and docs/reliability.md says so.

        Where the server was a replica once, Redis 7.0 and Valkey 9.1 take the beginning of a write that did not
        fit back at the wrong place, and cannot read the file when they are started again.
        """
        async with self.site.master.stubborn_client() as redis:
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
        async with self.taking(f"kill {kind}"), self.broken(planned, away=self.everybody):
            end = now() + planned.seconds
            while True:
                with suppress(RedisError, OSError):
                    async with asyncio.timeout(1), self.site.master.client() as redis:
                        await redis.client_kill_filter(_type=kind, skipme=True)
                if now() >= end:
                    return
                await asyncio.sleep(chance.random() / 2)

    async def _subscriptions_overflown(self, planned: Planned, _chance: random.Random) -> None:
        """More is published at once than Valkey keeps for a subscriber: it closes the connection."""
        async with (
            self.taking("valkey"),
            self.broken(planned, away=self.everybody),
            self.site.master.stubborn_client() as redis,
        ):
            await redis.config_set("client-output-buffer-limit", "pubsub 16384 0 0")
            try:
                async with asyncio.timeout(planned.seconds):
                    await self.workload.burst(*SMALL_BURST)
            except TimeoutError:
                pass
            finally:
                await redis.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")

    async def _publish_refused(self, planned: Planned, _chance: random.Random) -> None:
        """What is stored is not published, and nothing else is wrong: only the list tells of it."""
        async with self.taking("valkey"), self.broken(planned), self.site.master.stubborn_client() as redis:
            await redis.execute_command("ACL", "SETUSER", "default", "-publish")
            try:
                await asyncio.sleep(planned.seconds)
            finally:
                await redis.execute_command("ACL", "SETUSER", "default", "+publish")

    async def _scripts_forgotten(self, planned: Planned, chance: random.Random) -> None:
        async with self.taking("valkey"), self.broken(planned), self.site.master.stubborn_client() as redis:
            end = now() + planned.seconds
            while True:
                await redis.script_flush()
                if now() >= end:
                    return
                await asyncio.sleep(chance.random() / 2)

    # ---- the network between an instance and Valkey

    async def _network_slow(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self.taking(f"network {name}"), self.broken(planned, away=[name]):
            proxy.delay = chance.uniform(0.005, 0.5)
            await asyncio.sleep(planned.seconds)
            proxy.delay = 0.0

    async def _network_cut(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self.taking(f"network {name}"), self.broken(planned, away=[name]):
            proxy.refuse()
            await proxy.cut()
            await asyncio.sleep(planned.seconds)
            await proxy.accept()

    async def _network_black(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self.taking(f"network {name}"), self.broken(planned, away=[name]):
            proxy.blackhole()
            await asyncio.sleep(planned.seconds)
            if chance.random() < 0.5:
                await proxy.cut()
            proxy.resume()

    async def _network_half_closed(self, planned: Planned, chance: random.Random) -> None:
        name, proxy = self._some_proxy(chance)
        async with self.taking(f"network {name}"), self.broken(planned, away=[name]):
            proxy.half_close()
            await asyncio.sleep(planned.seconds)

    # ---- failover

    async def _failover_coordinated(self, planned: Planned, _chance: random.Random) -> None:
        """The old master waits for its replica, and takes nothing more: nothing is lost."""
        async with self._failing_over(planned):
            await self.site.sentinel.fail_over(self.site.replica, "COORDINATED")
            await self.site.swap()

    async def _failover_by_command(self, planned: Planned, _chance: random.Random) -> None:
        """What the old master takes until Sentinel makes it a replica is lost."""
        async with self.losing("failover by command"), self._failing_over(planned):
            await self.site.sentinel.fail_over(self.site.replica)
            await self.site.swap()

    async def _failover_after_a_crash(self, planned: Planned, _chance: random.Random) -> None:
        """What had not reached the replica when the master died is lost: often nothing."""
        async with self.losing("failover after a crash"), self._failing_over(planned):
            await self.site.master.kill()
            await self._promote_the_replica()

    async def _failover_that_loses(self, planned: Planned, _chance: random.Random) -> None:
        """The replica lags when the master dies: what the master took meanwhile is lost for certain."""
        async with self.losing("failover that loses"), self._failing_over(planned):
            self.site.replica.pause()
            await asyncio.sleep(planned.seconds)
            await self.site.master.kill()
            # Killed as well: it would read on what waits in the kernel's buffers.
            await self.site.replica.kill()
            await self.site.replica.start()
            await self._promote_the_replica()

    async def _promote_the_replica(self) -> None:
        await self.site.sentinel.fail_over(self.site.replica)
        await self.site.swap()
        await self.site.replica.start()

    @asynccontextmanager
    async def _failing_over(self, planned: Planned) -> AsyncIterator[None]:
        cluster = self.site
        async with self.taking("valkey"):
            if not await cluster.synchronized():
                raise Busy
            async with self.broken(planned, away=self.everybody):
                yield
                await self.store_is_back()
                await eventually(
                    cluster.synchronized,
                    within=IN_SYNC_WITHIN,
                    otherwise=lambda: cluster.replica.explain("does not follow the new master"),
                )

    def _some_proxy(self, chance: random.Random) -> tuple[str, TcpProxy]:
        return chance.choice(list(self.site.proxies.items()))
