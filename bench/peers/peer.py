"""What the runner has to know about a server."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["BUILD", "ROOT", "Can", "Peer", "Protocol", "module_command"]

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "bench" / "build"

Protocol = Literal["socketio", "ws"]
#: publish: it stores and acknowledges; history: GET /messages; etag: and answers 304; cluster: several
#: instances share one Redis; session: the event `session`, and a replay after it
Can = Literal["publish", "history", "etag", "cluster", "session"]


@dataclass(frozen=True)
class Peer:
    """A server that the runner starts and stops itself."""

    name: str  # on the command line and in the results
    title: str  # in the report
    protocol: Protocol
    command: Callable[[int, str], list[str]]  # of a port and a Redis URL
    ready_path: str | None  # answers 200 once clients may come; None: once the port is open
    can: frozenset[Can] = frozenset()
    environment: Callable[[int, str], dict[str, str]] = lambda _port, _redis_url: {}


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]
