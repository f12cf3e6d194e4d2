"""A child process that can be stopped, killed, paused and started again."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.harness.waiting import DEADLINE

__all__ = ["Program"]

_TAIL = 60  # lines of the log in an error


class Program:
    """A process that writes both its outputs to `log_path`, one life after the other."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.log_path = directory / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<{self.name}, {f'pid {self.pid}' if self.running else 'not running'}>"

    @property
    def running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process id of the present life, or of the last one."""
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        """How the last life ended (negative: by that signal), or None."""
        return None if self._process is None else self._process.returncode

    async def spawn(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start the process in its directory, with this environment and nothing else in it."""
        if self.running:
            raise RuntimeError(f"{self!r} runs already")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.directory,
                env=dict(env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its own group: end() takes its children along
            )

    async def terminate(self, within: float = DEADLINE) -> int:
        """SIGTERM; return the exit code, or raise TimeoutError with the log's tail (it runs on then)."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        return await self.wait(within)

    async def kill(self) -> int:
        """SIGKILL to this process alone, not to its children; return once it is gone."""
        self._signal(signal.SIGKILL)
        return await self.wait()

    async def wait(self, within: float = DEADLINE) -> int:
        """Return the exit code once the process has ended by itself."""
        try:
            async with asyncio.timeout(within):
                return await self._started().wait()
        except TimeoutError:
            raise TimeoutError(self.explain(f"did not end within {within} s")) from None

    async def end(self, within: float = 3.0) -> None:
        """Leave nothing behind: SIGTERM, after `within` seconds SIGKILL, and SIGKILL to children left."""
        if self._process is None:
            return
        try:
            await self.terminate(within)
        except TimeoutError:
            await self.kill()
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only zombies are left
            os.killpg(self.pid, signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: the process is there, its connections too, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def log_text(self) -> str:
        """Return both outputs of all lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def explain(self, what: str) -> str:
        """Return `what` with the tail of the log, for an error."""
        tail = "\n".join(self.log_text().splitlines()[-_TAIL:])
        return f"{self!r} {what}; exit code {self.exit_code}; the end of {self.log_path}:\n{tail}"

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        process = self._started()
        with suppress(ProcessLookupError):
            process.send_signal(number)
