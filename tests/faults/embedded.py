"""One instance that brings its own Valkey, with its data on a disk that can be filled."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.faults.record import Recorder
from tests.faults.site import LAUNCHER, Site
from tests.faults.small_disk import SmallDisk

__all__ = ["Embedded"]

NAME: Final = "alone"
DISK_MEGABYTES: Final = 96


class Embedded(Site):
    """The instance, and ways to get at its Valkey."""

    def __init__(self, directory: Path, recorder: Recorder, launcher: Sequence[str] = LAUNCHER) -> None:
        self.disk = SmallDisk(directory / "data", DISK_MEGABYTES)
        super().__init__(
            directory,
            recorder,
            launcher,
            instances={NAME: {"DATA_DIR": self.disk.directory}},
            disks=[self.disk],
        )

    async def store_answers(self) -> bool:
        """Tell whether the Valkey takes writes."""
        try:
            async with (
                asyncio.timeout(1),
                Redis(unix_socket_path=str(self.disk.directory / "valkey.sock")) as redis,
            ):
                info = await redis.info()
                return bool(not info["loading"] and info["aof_last_write_status"] == "ok")
        except (RedisError, OSError):
            return False

    def signal_valkey(self, number: signal.Signals) -> None:
        """Send the Valkey a signal; nothing happens where there is none right now."""
        with suppress(OSError, ValueError):
            os.kill(int((self.disk.directory / "valkey.pid").read_text()), number)

    async def _start_store(self) -> None:
        pass  # the instance does

    async def _end_store(self) -> None:
        self.signal_valkey(signal.SIGKILL)  # it may have been left behind by an instance that was killed
