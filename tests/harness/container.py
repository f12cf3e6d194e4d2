"""A ditochat in a container, locked up as it would be in a cluster."""

import asyncio
import os
from pathlib import Path
from subprocess import PIPE, STDOUT

from tests.harness.instance import Instance
from tests.harness.ports import HOST

__all__ = ["Container", "docker"]

_LOCKED_UP = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


async def docker(*arguments: str, directory: Path | None = None) -> str:
    """Run Docker's client; return what it said, or raise RuntimeError with it where it failed."""
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments, cwd=directory, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(
            f"docker {' '.join(arguments)} ended with {process.returncode}:\n{output.decode()}"
        )
    return output.decode()


class Container(Instance):
    """`docker run IMAGE` on the machine's own network, in the foreground: signals and exit status pass through.

    `options` are further ones of `docker run`.
    """

    def __init__(
        self, directory: Path, image: str, *, name: str, options: tuple[str, ...] = (), **settings: object
    ) -> None:
        super().__init__(directory, name=name)
        self.settings = settings
        self._image = image
        self._options = options
        self.container_name = f"ditochat-test-{self.port}"

    async def kill(self) -> int:
        """SIGKILL to what runs in the container; return once it is gone."""
        await docker("kill", "--signal", "KILL", self.container_name)
        return await self.wait()

    async def end(self, within: float = 3.0) -> None:
        """Leave nothing behind."""
        await super().end(within)
        await docker("rm", "--force", "--volumes", self.container_name)

    def _command(self) -> list[str]:
        settings = {"ADDR": f"{HOST}:{self.port}", "LOG_FORMAT": "json", **self.settings}
        return [
            *("docker", "run", "--network", "host", "--name", self.container_name),
            *_LOCKED_UP,
            *self._options,
            *(word for name, value in settings.items() for word in ("--env", f"{name}={value}")),
            self._image,
            *self.flags,
        ]

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)  # where its engine is, the client knows from there
