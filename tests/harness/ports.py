"""Loopback ports to listen on, that stay free while their owner restarts."""

import secrets
import socket

__all__ = ["HOST", "free_port"]

HOST = "127.0.0.1"

# Below what Linux (32768) and macOS (49152) hand to outgoing connections: one of those could otherwise take
# the port of a server that is being restarted.
_LOWEST, _COUNT = 20_000, 12_000
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nothing listens on, and that no other call in this process returned."""
    for _ in range(1000):
        port = _LOWEST + secrets.randbelow(_COUNT)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free port in {_LOWEST}..{_LOWEST + _COUNT}")
