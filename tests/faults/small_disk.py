"""A file system so small that it can be filled: a tmpfs, which takes root on Linux."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["SmallDisk"]

_BALLAST = "ballast"
_BLOCK = 64 * 1024


class SmallDisk:
    """Mounted at `directory` from `mount()` to `unmount()`.

    Where that is not possible, `available` is False and the directory is an ordinary one.
    """

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        self.available = False
        self._megabytes = megabytes

    async def mount(self) -> None:
        """Create the directory, and mount if that is allowed."""
        self.directory.mkdir(parents=True)
        if sys.platform == "linux" and os.geteuid() == 0:
            options = f"size={self._megabytes}m,mode=700"
            self.available = await _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.directory))

    async def fill(self) -> None:
        """Take all that is free, to the last byte; that may take a while."""
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        with suppress(OSError), (self.directory / _BALLAST).open("ab", buffering=0) as ballast:
            for size in (_BLOCK, 1):
                with suppress(OSError):
                    while ballast.write(b"\0" * size) == size:
                        pass

    def free(self) -> None:
        """Give it back."""
        (self.directory / _BALLAST).unlink(missing_ok=True)

    async def unmount(self) -> None:
        """Forget everything that was on it."""
        if self.available:
            await _run("umount", "--lazy", str(self.directory))


async def _run(*command: str) -> bool:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    return await process.wait() == 0
