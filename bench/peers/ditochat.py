"""ditochat itself, with its default settings."""

from typing import Final

from bench.peers.peer import Can, Peer, Protocol, module_command

__all__ = ["OVER_SOCKETIO", "OVER_WS"]

_SOCKETIO: Final[frozenset[Can]] = frozenset({"publish", "history", "etag", "cluster", "session"})


def _peer(name: str, title: str, protocol: Protocol, can: frozenset[Can]) -> Peer:
    return Peer(
        name=name,
        title=title,
        protocol=protocol,
        command=lambda port, redis_url: module_command(
            "ditochat", "serve", "--addr", f"127.0.0.1:{port}", "--redis-url", redis_url
        ),
        ready_path="/readyz",
        can=can,
    )


OVER_SOCKETIO: Final = _peer("ditochat", "ditochat", "socketio", _SOCKETIO)
OVER_WS: Final = _peer("ditochat-ws", "ditochat, `/ws`", "ws", frozenset({"cluster"}))
