"""Three instances on one log: a Valkey with a replica, a Sentinel, and a network between them that can fail.

Two instances reach the master through a proxy each, which follows it as a virtual address would; the third asks
Sentinel, by itself.
"""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from redis.exceptions import RedisError

from tests.faults.clock import Clock, build_clock_offset
from tests.faults.record import Ended, Level, Odd, Recorder
from tests.faults.small_disk import SmallDisk
from tests.harness.instance import Instance
from tests.harness.redis_server import RedisServer
from tests.harness.sentinel import Sentinel, in_sync
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

__all__ = ["HISTORY_LIMIT", "LAUNCHER", "Cluster", "now"]

LAUNCHER: Final = ("-m", "ditochat")
DISK_MEGABYTES: Final = 512
# Longer than any pause: Sentinel fails over when told to, and not because a Valkey stands still.
SENTINEL_PATIENCE: Final = 60_000
HISTORY_LIMIT: Final = 1000
SETTINGS: Final[dict[str, object]] = {
    "HISTORY_LIMIT": HISTORY_LIMIT,
    "SEND_BUFFER_BYTES": 65_536,
    "DRAIN_SECONDS": 2,
    "PING_INTERVAL": 5,
    "PING_TIMEOUT": 4,
}


class _Launched(Instance):
    """An instance that `launcher` runs: the program itself, or what breaks one of its promises first."""

    launcher: Sequence[str] = LAUNCHER

    def _command(self) -> list[str]:
        python, *command = super()._command()
        return [python, *self.launcher, *command[len(LAUNCHER) :]]


class Cluster:
    """Everything that a run breaks; use it by `async with`."""

    def __init__(self, directory: Path, recorder: Recorder, launcher: Sequence[str] = LAUNCHER) -> None:
        self.recorder = recorder
        self._directory = directory
        self.disks = [SmallDisk(directory / name, DISK_MEGABYTES) for name in ("valkey-a", "valkey-b")]
        first, second = (RedisServer(disk.directory) for disk in self.disks)
        for server in (first, second):
            server.log_path = directory / f"{server.directory.name}.log"  # not on the disk that is filled
        self.master, self.replica = first, second
        self.sentinel = Sentinel(directory / "sentinel", first, down_after=SENTINEL_PATIENCE)
        self.proxies = {name: TcpProxy(first.port) for name in ("one", "two")}
        urls = {name: proxy.redis_url for name, proxy in self.proxies.items()} | {"three": self.sentinel.url}
        self.instances = {
            name: _Launched(directory / name, name=name, REDIS_URL=url) for name, url in urls.items()
        }
        for instance in self.instances.values():
            instance.launcher = launcher
            instance.settings |= SETTINGS
        self.clocks: dict[str, Clock] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # what is on the disks goes with them
            for disk in self.disks:
                shutil.copytree(
                    disk.directory,
                    disk.directory.with_name(f"{disk.directory.name}.at-the-end"),
                    ignore=shutil.ignore_patterns("*.sock"),
                )
        await self._end()

    @property
    def urls(self) -> dict[str, str]:
        """Where the instances are, by name."""
        return {name: instance.base_url for name, instance in self.instances.items()}

    @property
    def master_disk(self) -> SmallDisk:
        """What the master keeps its data on."""
        return next(disk for disk in self.disks if disk.directory == self.master.directory)

    # ---- instances

    async def start_instance(self, name: str) -> None:
        """Start one, and return when it is ready."""
        instance = self.instances[name]
        await instance.start(ready=False)
        self._watches[name] = asyncio.create_task(self._watch(instance))
        await eventually(instance.ready, within=60, otherwise=lambda: instance.explain("is not ready"))

    def expect_end(self, name: str) -> None:
        """What ends an instance from here on is the harness itself."""
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.cancel()

    async def _watch(self, instance: Instance) -> None:
        status = await instance.wait(within=1e9)
        self.recorder.add(Ended(at=now(), instance=instance.name, status=status))

    # ---- Valkey

    async def synchronized(self) -> bool:
        """Tell whether the replica has all that the master has, as far as anybody can tell."""
        return await in_sync(self.replica)

    async def swap(self) -> None:
        """Sentinel has made the replica the master: let everything else know."""
        self.master, self.replica = self.replica, self.master
        self.master.options.pop("replicaof", None)
        self.replica.options["replicaof"] = f"127.0.0.1 {self.master.port}"
        for proxy in self.proxies.values():
            proxy.retarget(self.master.port)
            await proxy.cut()

    async def master_answers(self) -> bool:
        """Tell whether the master takes writes."""
        try:
            async with asyncio.timeout(1), self.master.client() as redis:
                info = await redis.info()
                return bool(
                    info["role"] == "master" and not info["loading"] and info["aof_last_write_status"] == "ok"
                )
        except (RedisError, OSError):
            return False

    # ---- the whole

    async def measure(self, *, fresh: bool) -> None:
        """Record what each instance takes up; nobody may be connected."""
        for name, instance in self.instances.items():
            metrics = await instance.metrics()
            self.recorder.add(
                Level(
                    at=now(),
                    instance=name,
                    fresh=fresh,
                    files=int(metrics["process_open_fds"]),
                    tasks=int(metrics["ditochat_tasks"]),
                    memory=int(metrics["process_resident_memory_bytes"]),
                )
            )

    def read_logs(self) -> None:
        """Record every error that an instance has logged."""
        for name, instance in self.instances.items():
            for line in instance.log_lines():
                text = str(line.get("message", line.get("text", "")))
                # The kernel refuses a connection while all descriptors are in use: asyncio says so, and goes on.
                expected = "socket.accept() out of system resource" in text
                if str(line.get("level", "error")).lower() in ("error", "critical") and not expected:
                    self.recorder.add(Odd(at=now(), who=name, what=f"logged {str(line)[:2000]}"))

    async def _start(self) -> None:
        self._directory.mkdir(parents=True)
        for disk in self.disks:
            await disk.mount()
        await self.master.start()
        async with self.master.client() as redis:
            await redis.config_set("repl-diskless-sync-delay", 0)
        self.replica.options["replicaof"] = f"127.0.0.1 {self.master.port}"
        for server in (self.master, self.replica):
            server.options |= {"repl-diskless-sync-delay": "0", "shutdown-timeout": "0"}
        await self.replica.start()
        await eventually(self.synchronized, otherwise=lambda: self.replica.explain("is not in sync"))
        await self.sentinel.start()
        await eventually(
            self.sentinel.knows_a_replica, otherwise=lambda: self.sentinel.explain("knows no replica")
        )
        for proxy in self.proxies.values():
            await proxy.start()
        library = await build_clock_offset(self._directory)
        for name, instance in self.instances.items():
            if library is not None:
                self.clocks[name] = Clock(library, self._directory / f"{name}.clock")
                instance.settings |= self.clocks[name].environment
        await asyncio.gather(*(self.start_instance(name) for name in self.instances))

    async def stop_instances(self) -> None:
        """End all instances as an operator would; that too has to go well."""
        for name, instance in self.instances.items():
            self.expect_end(name)
            if instance.running:
                status = await instance.terminate()
                if status != 0:
                    self.recorder.add(Ended(at=now(), instance=name, status=status))

    async def _end(self) -> None:
        for name in list(self._watches):
            self.expect_end(name)
        programs = (*self.instances.values(), self.sentinel, self.replica, self.master)
        await asyncio.gather(*(program.end() for program in programs))
        for proxy in self.proxies.values():
            with suppress(OSError):
                await proxy.close()
        for disk in self.disks:
            await disk.unmount()


def now() -> float:
    """Return the record's clock."""
    return asyncio.get_running_loop().time()
