"""A real ditochat process."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.ports import HOST, free_port
from tests.harness.program import Program
from tests.harness.waiting import DEADLINE, eventually

__all__ = ["Instance"]


class Instance(Program):
    """`python -m ditochat serve` on a loopback port, the same one in each of its lives.

    `settings` are environment variables (`REDIS_URL="..."`, `HISTORY_LIMIT=10`), `flags` further arguments;
    both may be changed between two lives. Nothing else of the tests' environment reaches it. It runs in
    `directory`, so that `DATA_DIR` is `directory/data` unless set.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "instance",
        port: int | None = None,
        flags: Sequence[str] = (),
        **settings: object,
    ) -> None:
        super().__init__(name, directory)
        self.port = port or free_port()
        self.flags = list(flags)
        self.settings = settings

    @property
    def base_url(self) -> str:
        """The URL to which paths are appended: no slash at its end."""
        return f"http://{HOST}:{self.port}"

    async def start(self, *, ready: bool = True, within: float = DEADLINE) -> None:
        """Start it, again too, and return when it is ready (or, with `ready=False`, alive)."""
        await self.spawn(self._command(), self._environment())
        path = "/readyz" if ready else "/healthz"
        async with self.http() as http:
            await eventually(
                lambda: self._answers(http, path),
                within=within,
                otherwise=lambda: self.explain(f"has no 200 at {path}"),
            )

    def http(self, **options: Any) -> aiohttp.ClientSession:
        """Return a session with `base_url` as its base, for the caller to close, best by `async with`."""
        return aiohttp.ClientSession(self.base_url, timeout=aiohttp.ClientTimeout(total=DEADLINE), **options)

    async def ready(self) -> bool:
        """Tell whether /readyz says 200 now."""
        async with self.http() as http:
            return await self._answers(http, "/readyz")

    async def readiness(self) -> dict[str, Any]:
        """Return what /readyz says: `epoch` and `last_id` where it is ready, else `reason`."""
        async with self.http() as http, http.get("/readyz") as answer:
            readiness: dict[str, Any] = await answer.json()
            return readiness

    async def messages(self, **params: str | int) -> list[dict[str, Any]]:
        """GET /messages: newest first."""
        async with self.http() as http, http.get("/messages", params=params) as answer:
            answer.raise_for_status()
            messages: list[dict[str, Any]] = await answer.json()
            return messages

    async def publish(self, message: object, *, nonce: str | None = None) -> dict[str, Any]:
        """POST /messages; return the message as stored."""
        headers = {} if nonce is None else {"Idempotency-Key": nonce}
        async with self.http() as http, http.post("/messages", json=message, headers=headers) as answer:
            answer.raise_for_status()
            stored: dict[str, Any] = await answer.json()
            return stored

    async def metrics(self) -> dict[str, float]:
        """GET /metrics: `name` or `name{label="value",...}` (labels by name) to value."""
        async with self.http() as http, http.get("/metrics") as answer:
            answer.raise_for_status()
            text = await answer.text()
        return {
            _sample_key(sample.name, sample.labels): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def log_lines(self) -> list[dict[str, Any]]:
        """Return what it logged, in all its lives; a line that is not a JSON object is `{"text": line}`."""
        return [_log_line(line) for line in self.log_text().splitlines() if line.strip()]

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "ditochat", "serve", "--addr", f"{HOST}:{self.port}", *self.flags]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            **{name: str(value) for name, value in self.settings.items()},
        }

    async def _answers(self, http: aiohttp.ClientSession, path: str) -> bool:
        if not self.running:
            raise RuntimeError(self.explain("ended while starting"))
        try:
            async with http.get(path) as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False


def _sample_key(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}" if pairs else name


def _log_line(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"text": line}
