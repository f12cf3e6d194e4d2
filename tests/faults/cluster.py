"""Three instances on one log: a Valkey with a replica, a Sentinel, and a network between them that can fail.

Two instances reach the master through a proxy each, which follows it as a virtual address would; the third asks
Sentinel, by itself.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from tests.faults.clock import Clock, build_clock_offset
from tests.faults.record import Recorder
from tests.faults.site import LAUNCHER, Site
from tests.faults.small_disk import SmallDisk
from tests.harness.ports import HOST
from tests.harness.redis_server import RedisServer
from tests.harness.sentinel import Sentinel, in_sync
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

__all__ = ["Cluster"]

DISK_MEGABYTES: Final = 128
# Longer than any pause: Sentinel fails over when told to, and not because a Valkey stands still.
SENTINEL_PATIENCE: Final = 60_000


class Cluster(Site):
    """The three, and what is between and behind them."""

    def __init__(self, directory: Path, recorder: Recorder, launcher: Sequence[str] = LAUNCHER) -> None:
        disks = [SmallDisk(directory / name, DISK_MEGABYTES) for name in ("valkey-a", "valkey-b")]
        self.master, self.replica = (RedisServer(disk.directory) for disk in disks)
        for server in (self.master, self.replica):
            server.log_path = directory / f"{server.directory.name}.log"  # not on the disk that is filled
        self.sentinel = Sentinel(directory / "sentinel", self.master, down_after=SENTINEL_PATIENCE)
        self.proxies = {name: TcpProxy(self.master.port) for name in ("one", "two")}
        self.clocks: dict[str, Clock] = {}
        """Of each instance, where that can be had."""
        urls = {name: proxy.redis_url for name, proxy in self.proxies.items()} | {"three": self.sentinel.url}
        super().__init__(
            directory,
            recorder,
            launcher,
            instances={name: {"REDIS_URL": url} for name, url in urls.items()},
            disks=disks,
        )

    @property
    def master_disk(self) -> SmallDisk:
        """What the master keeps its data on."""
        return next(disk for disk in self.disks if disk.directory == self.master.directory)

    async def synchronized(self) -> bool:
        """Tell whether the replica has all that the master has, as far as anybody can tell."""
        return await in_sync(self.replica)

    async def swap(self) -> None:
        """Sentinel has made the replica the master: let everything else know."""
        self.master, self.replica = self.replica, self.master
        self._set_roles()
        for proxy in self.proxies.values():
            proxy.retarget(self.master.port)
            await proxy.cut()

    async def store_answers(self) -> bool:
        """Tell whether the master takes writes."""
        try:
            async with asyncio.timeout(1), self.master.client() as redis:
                info = await redis.info()
                return bool(
                    info["role"] == "master" and not info["loading"] and info["aof_last_write_status"] == "ok"
                )
        except (RedisError, OSError):
            return False

    def _set_roles(self) -> None:
        """Have each come back in its role when it is started again."""
        self.master.options.pop("replicaof", None)
        self.replica.options["replicaof"] = f"{HOST} {self.master.port}"

    async def _start_store(self) -> None:
        for server in (self.master, self.replica):
            server.options |= {"repl-diskless-sync-delay": "0", "shutdown-timeout": "0"}
        self._set_roles()
        await self.master.start()
        await self.replica.start()
        await eventually(self.synchronized, otherwise=lambda: self.replica.explain("is not in sync"))
        await self.sentinel.start()
        await eventually(
            self.sentinel.knows_a_replica, otherwise=lambda: self.sentinel.explain("knows no replica")
        )
        for proxy in self.proxies.values():
            await proxy.start()
        library = await build_clock_offset(self.directory)
        if library is not None:
            for name, instance in self.instances.items():
                self.clocks[name] = Clock(library, self.directory / f"{name}.clock")
                instance.settings |= self.clocks[name].environment

    async def _end_store(self) -> None:
        await asyncio.gather(*(program.end() for program in (self.sentinel, self.replica, self.master)))
        for proxy in self.proxies.values():
            with suppress(OSError):
                await proxy.close()
