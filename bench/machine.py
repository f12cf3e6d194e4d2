"""The machine: its cores, its limits, and what is installed on it."""

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.peers.node_socketio import NODE_DIRECTORY

__all__ = ["Cores", "busy_seconds", "descriptor_limit", "facts", "on_core", "pin", "used_seconds", "versions"]

_TICKS = os.sysconf("SC_CLK_TCK")
_SPARE_DESCRIPTORS = 500  # what a server has open besides its clients


@dataclass(frozen=True)
class Cores:
    """Which core is whose; None is wherever the system likes."""

    server: int | None
    load: int | None
    redis: int | None

    @classmethod
    def choose(cls) -> Self:
        """The servers get the first core, load and Redis others; Redis shares the load's if there are two."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) == 1:
            return cls(None, None, None)
        return cls(cores[0], cores[1], cores[2] if cores[2:] else cores[1])

    def __str__(self) -> str:
        if self.server is None:
            return (
                "There is only one core, so nothing was pinned: server, load and Redis disturbed each other."
            )
        where = "the load's" if self.redis == self.load else "a third"
        return (
            f"The server is pinned to core {self.server} (both, where there are two instances), the load "
            f"generator to core {self.load}; Redis runs on {where} core."
        )


def pin(pid: int, core: int | None) -> None:
    """Keep all threads of a process on one core; the threads and children that they start stay there, too."""
    if core is None:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Start processes here that stay on one core, with all their threads."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def busy_seconds() -> float:
    """Return the CPU time that all programs of this machine have used, interrupts apart."""
    with Path("/proc/stat").open() as stat:
        user, nice, system = stat.readline().split()[1:4]
    return (int(user) + int(nice) + int(system)) / _TICKS


def used_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that these processes have used."""
    used = 0.0
    for pid in pids:
        with suppress(OSError):
            # What precedes the last parenthesis is the name, which may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def descriptor_limit(wanted: int) -> int:
    """Allow this process and its children so many clients, as far as may be; return how many that is."""
    need = wanted + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < need:
        with suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, need))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = need if hard == resource.RLIM_INFINITY else min(need, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    return allowed - _SPARE_DESCRIPTORS


def facts() -> dict[str, str]:
    """Describe the machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions(valkey: Path) -> dict[str, str]:
    """Name what was measured, and what it ran on."""
    found = {"Python": platform.python_version()}
    packages = ("ditochat", "python-socketio", "python-engineio", "aiohttp", "uvloop", "redis", "hiredis")
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    found["Node"] = _first_line("node", "--version").removeprefix("v")
    for package in ("socket.io", "engine.io", "ws", "@socket.io/redis-adapter", "redis"):
        manifest = NODE_DIRECTORY / "node_modules" / package / "package.json"
        if manifest.exists():
            found[f"{package} (npm)"] = json.loads(manifest.read_text())["version"]
    found["Redis"] = " ".join(_first_line(str(valkey), "--version").split()[:3])
    found["C compiler"] = _first_line("cc", "--version")
    return {name: version for name, version in found.items() if version}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return ""
    return answer.stdout.partition("\n")[0].strip()
