"""What a run breaks: some instances, and whatever keeps their log. Here is what all such sites have."""

import asyncio
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from tests.faults.record import Ended, Level, Odd, Recorder
from tests.faults.small_disk import SmallDisk
from tests.harness.instance import Instance
from tests.harness.waiting import eventually

__all__ = ["DRAIN_SECONDS", "HISTORY_LIMIT", "LAUNCHER", "Site", "now"]

LAUNCHER: Final = ("-m", "ditochat")
HISTORY_LIMIT: Final = 1000
DRAIN_SECONDS: Final = 2
_SETTINGS: Final[dict[str, object]] = {
    "HISTORY_LIMIT": HISTORY_LIMIT,
    "SEND_BUFFER_BYTES": 65_536,
    "DRAIN_SECONDS": DRAIN_SECONDS,
    "PING_INTERVAL": 5,
    "PING_TIMEOUT": 4,
}
_READY_WITHIN: Final = 60.0


class Site(ABC):
    """Use it by `async with`; `instances` are by name."""

    def __init__(
        self,
        directory: Path,
        recorder: Recorder,
        launcher: Sequence[str],
        *,
        instances: dict[str, dict[str, object]],
        disks: Sequence[SmallDisk],
    ) -> None:
        self.directory = directory
        self.recorder = recorder
        self.disks = disks
        self.instances = {name: _Launched(directory / name, name=name) for name in instances}
        for name, instance in self.instances.items():
            instance.launcher = launcher
            instance.settings |= _SETTINGS | instances[name]
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
    def ports(self) -> dict[str, int]:
        """The same, as ports."""
        return {name: instance.port for name, instance in self.instances.items()}

    @abstractmethod
    async def store_answers(self) -> bool:
        """Tell whether what keeps the log takes writes."""

    @abstractmethod
    async def _start_store(self) -> None:
        """Start what keeps the log, where it is not the instance itself that does; the disks are there."""

    @abstractmethod
    async def _end_store(self) -> None:
        """End it."""

    async def start_instance(self, name: str) -> None:
        """Start one, and return when it is ready."""
        instance = self.instances[name]
        await instance.start(ready=False)
        self._watches[name] = asyncio.create_task(self._watch(instance))
        await eventually(
            instance.ready, within=_READY_WITHIN, otherwise=lambda: instance.explain("is not ready")
        )

    def expect_end(self, name: str) -> None:
        """What ends an instance from here on is the harness itself."""
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.cancel()

    async def stop_instances(self) -> None:
        """End all instances as an operator would; that too has to go well."""
        for name, instance in self.instances.items():
            self.expect_end(name)
            if instance.running:
                status = await instance.terminate()
                if status != 0:
                    self.recorder.add(Ended(at=now(), instance=name, status=status))

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

    async def _watch(self, instance: Instance) -> None:
        status = await instance.wait(within=1e9)
        self.recorder.add(Ended(at=now(), instance=instance.name, status=status))

    async def _start(self) -> None:
        self.directory.mkdir(parents=True)
        for disk in self.disks:
            await disk.mount()
        await self._start_store()
        await asyncio.gather(*(self.start_instance(name) for name in self.instances))

    async def _end(self) -> None:
        for name in list(self._watches):
            self.expect_end(name)
        await asyncio.gather(*(instance.end() for instance in self.instances.values()))
        await self._end_store()
        for disk in self.disks:
            await disk.unmount()


class _Launched(Instance):
    """An instance that `launcher` runs: the program itself, or what breaks one of its promises first."""

    launcher: Sequence[str] = LAUNCHER

    def _command(self) -> list[str]:
        python, *command = super()._command()
        return [python, *self.launcher, *command[len(LAUNCHER) :]]


def now() -> float:
    """Return the record's clock."""
    return asyncio.get_running_loop().time()
