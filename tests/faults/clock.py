"""The wall clock of one instance, to be set wrong while it runs."""

import asyncio
import shutil
import struct
import sys
from pathlib import Path

__all__ = ["Clock", "build_clock_offset"]

_SOURCE = Path(__file__).with_name("clock_offset.c")


async def build_clock_offset(directory: Path) -> Path | None:
    """Compile the library that is preloaded; None where that cannot be done."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = directory / "clock_offset.so"
    process = await asyncio.create_subprocess_exec(
        compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"
    )
    return library if await process.wait() == 0 else None


class Clock:
    """What to add to the clock of the processes that are started with `environment`."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(file)}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(struct.pack("=q", 0))

    def set(self, seconds: int) -> None:
        """Be off by so much from now on."""
        with self._file.open("r+b") as file:  # in place: the processes have it mapped
            file.write(struct.pack("=q", seconds))
