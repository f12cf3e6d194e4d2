"""Starts, pins and ends what is measured."""

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from bench.machine import Cores, on_core
from bench.peers.peer import ROOT, Peer

__all__ = ["NotStarted", "Redis", "Server", "run_peer", "run_redis"]

HOST = "127.0.0.1"
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_LOWEST_PORT, _PORTS = 20_000, 12_000


class NotStarted(Exception):
    """A server did not come up; the text has the last line that it wrote."""


@dataclass(frozen=True)
class Server:
    """One process that takes clients."""

    port: int
    pid: int


@dataclass(frozen=True)
class Redis:
    """The Redis that all servers use."""

    url: str
    pid: int

    def empty(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


@contextlib.contextmanager
def run_redis(binary: Path, cores: Cores) -> Iterator[Redis]:
    """Run a Redis with an append-only file that is synced once a second, as most are.

    The file is in memory where that is possible: a disk that stalls would be measured in the servers' place.
    """
    memory = "/dev/shm"  # noqa: S108 - only to put a private directory there
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ditochat-bench-", dir=where) as directory:
        port = _free_port()
        options = {"bind": HOST, "port": str(port), "dir": directory, "save": "", "appendonly": "yes"}
        options |= {"appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
        command = [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]
        with _process(command, {"LC_ALL": "C"}, Path(directory) / "redis.log", cores.redis) as process:
            _wait(process, Path(directory) / "redis.log", lambda: _accepts(port))
            yield Redis(f"redis://{HOST}:{port}/0", process.pid)


@contextlib.contextmanager
def run_peer(peer: Peer, instances: int, redis_url: str, cores: Cores) -> Iterator[Sequence[Server]]:
    """Run so many instances of a server, all on the servers' core, ready for clients."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ditochat-bench-")))
        servers = []
        for number in range(instances):
            port, log = _free_port(), directory / f"{peer.name}-{number}.log"
            environment = peer.environment(port, redis_url)
            process = stack.enter_context(
                _process(peer.command(port, redis_url), environment, log, cores.server)
            )
            _wait(process, log, partial(_is_ready, port, peer.ready_path))
            servers.append(Server(port, process.pid))
        yield servers


@contextlib.contextmanager
def _process(
    command: Sequence[str], environment: dict[str, str], log: Path, core: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    with log.open("wb") as output, on_core(core):
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=inherited | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        # Its clients are gone and its data is of no use: there is nothing to stop in an orderly way.
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
            raise NotStarted(f"did not start: {last[:300]}")
        time.sleep(_POLL_SECONDS)


def _is_ready(port: int, path: str | None) -> bool:
    if path is None:
        return _accepts(port)
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _free_port() -> int:
    # Below what Linux hands to outgoing connections (32768): the clients must not take it before the server.
    for _ in range(1000):
        port = _LOWEST_PORT + secrets.randbelow(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise NotStarted("there is no free port")
