"""A server that runs already: `--server NAME=URL,PROTOCOL[,PID]`."""

from dataclasses import dataclass
from typing import Self, get_args
from urllib.parse import urlsplit

from bench.peers.peer import Protocol

__all__ = ["External"]

_PROTOCOLS = get_args(Protocol)


@dataclass(frozen=True)
class External:
    """Neither started nor stopped; pinned to the servers' core if its pid is known."""

    name: str
    port: int
    path: str | None  # None: the protocol's usual one
    protocol: Protocol
    pid: int | None

    @property
    def title(self) -> str:
        """The name in the report."""
        return self.name

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME=URL,PROTOCOL[,PID]`.

        Raises:
            ValueError: it has another form, or the URL is not one of this machine.

        """
        name, _, rest = text.partition("=")
        url, *options = rest.split(",")
        parts = urlsplit(url)
        if not name or len(options) not in (1, 2) or options[0] not in _PROTOCOLS:
            raise ValueError(f"expected NAME=URL,{'|'.join(_PROTOCOLS)}[,PID]; got {text!r}")
        if parts.hostname not in ("localhost", "127.0.0.1") or parts.port is None:
            raise ValueError(f"expected a URL with a port of 127.0.0.1; got {url!r}")
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return cls(
            name=name,
            port=parts.port,
            path=None if path in ("", "/") else path,
            protocol="ws" if options[0] == "ws" else "socketio",
            pid=int(options[1]) if options[1:] else None,
        )
