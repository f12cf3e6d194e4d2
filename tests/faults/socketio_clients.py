"""The Node process that runs the real socket.io-client clients (clients.mjs)."""

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.faults.record import Recorder

__all__ = ["SocketIoClients"]

_SCRIPT = Path(__file__).with_name("clients.mjs")
_LONGEST_LINE = 2**20
_CLOSE_SECONDS = 10.0


class SocketIoClients:
    """Clients by name; what they see goes into the recorder. Use it by `async with`."""

    def __init__(self, recorder: Recorder, urls: Mapping[str, str], seed: int) -> None:
        self._recorder = recorder
        self._arguments = [str(seed), *(f"{name}={url}" for name, url in urls.items())]
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self.names: list[str] = []

    async def __aenter__(self) -> Self:
        node = shutil.which("node")
        if node is None:
            raise RuntimeError("node is not on the PATH")
        self._process = await asyncio.create_subprocess_exec(
            node,
            str(_SCRIPT),
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reading is not None:
            await self._reading

    def open(self, name: str, *, transports: list[str], recovery: bool, publishes: float | None) -> None:
        """Have a client connect; `publishes` is the mean time between two of its messages, in seconds."""
        self.names.append(name)
        self._tell(do="open", name=name, transports=transports, recovery=recovery, publishes=publishes)

    def drop(self, name: str, *, reset: bool) -> None:
        """Take a client's network away; it comes back on an instance of its choice."""
        self._tell(do="drop", name=name, reset=reset)

    def set_quiet(self, *, quiet: bool) -> None:
        """Have nobody publish, or go on; what is under way is finished."""
        self._tell(do="quiet", quiet=quiet)

    async def close_all(self) -> None:
        """Disconnect all clients."""
        self._tell(do="close")
        async with asyncio.timeout(_CLOSE_SECONDS):
            await self._closed.wait()

    def _tell(self, **command: object) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the clients were not started")
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError("it was started with a pipe")
        async for line in process.stdout:
            if line.startswith(b'{"closed"'):
                self._closed.set()
            else:
                self._recorder.add_line(line)
