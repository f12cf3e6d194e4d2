"""The floor (bench/floor.c): one send() for each client and message."""

from typing import Final

from bench.peers.peer import BUILD, Peer

__all__ = ["FLOOR"]

FLOOR: Final = Peer(
    name="floor",
    title="the floor: `send()` in C",
    protocol="ws",
    command=lambda port, _redis_url: [str(BUILD / "floor"), str(port)],
    ready_path=None,
)
