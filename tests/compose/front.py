"""nginx with compose/nginx.conf, in front of instances that are not containers."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.harness.ports import HOST, free_port
from tests.harness.program import Program
from tests.harness.waiting import eventually

__all__ = ["CONFIG", "Nginx", "adapted"]

CONFIG = Path(__file__).parents[2] / "compose" / "nginx.conf"


def _replaced(text: str, pattern: str, by: str, times: int) -> str:
    text, found = re.subn(pattern, lambda _: by, text, flags=re.MULTILINE)
    if found != times:
        raise ValueError(f"{pattern!r} is there {found} times, not {times}")
    return text


def adapted(text: str, directory: Path, port: int, upstreams: Sequence[int]) -> str:
    """Return the configuration with other addresses and paths, and nothing else changed."""
    for number, upstream in enumerate(upstreams, start=1):
        # Addresses are not looked up, and Debian's nginx knows no `resolve`.
        text = _replaced(text, rf"server chat-{number}:8080 resolve ", f"server {HOST}:{upstream} ", 2)
    text = _replaced(text, r"^ *resolver .*;$", "", 1)
    text = _replaced(text, r"listen 8080 ", f"listen {HOST}:{port} ", 1)
    text = _replaced(text, r"(?<= )/tmp/", f"{directory}/", 6)
    text = _replaced(text, r"/dev/stderr", f"{directory}/error.log", 1)
    return _replaced(text, r"/dev/stdout", f"{directory}/access.log", 1)


class Nginx(Program):
    """nginx in the foreground, on a loopback port, in front of these two."""

    def __init__(self, directory: Path, upstreams: Sequence[int]) -> None:
        super().__init__("nginx", directory)
        self.port = free_port()
        self._upstreams = upstreams

    @property
    def base_url(self) -> str:
        """The URL to which paths are appended: no slash at its end."""
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Start it, and return when it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "nginx.conf"
        config.write_text(adapted(CONFIG.read_text(), self.directory, self.port, self._upstreams))
        nginx = shutil.which("nginx")
        if nginx is None:
            raise RuntimeError("nginx is not installed")
        # As root its workers would be nobody, who may not write to the tests' directories.
        user = "user root;" if os.geteuid() == 0 else ""
        command = [nginx, "-p", str(self.directory), "-c", str(config), "-g", f"daemon off; {user}"]
        await self.spawn(command, {"PATH": os.environ.get("PATH", os.defpath)})

        async def listens() -> bool:
            if not self.running:
                raise RuntimeError(self.explain("ended while starting"))
            return (self.directory / "nginx.pid").exists()

        await eventually(listens, otherwise=lambda: self.explain("does not listen"))
