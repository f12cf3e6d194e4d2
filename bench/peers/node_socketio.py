"""Socket.IO's own server, on Node, with its Redis adapter: node/server.mjs."""

import shutil
from typing import Final

from bench.peers.peer import ROOT, Peer

__all__ = ["NODE", "NODE_DIRECTORY"]

NODE_DIRECTORY: Final = ROOT / "bench" / "peers" / "node"

NODE: Final = Peer(
    name="node",
    title="Socket.IO on Node",
    protocol="socketio",
    command=lambda port, redis_url: [
        shutil.which("node") or "node",
        str(NODE_DIRECTORY / "server.mjs"),
        str(port),
        redis_url,
    ],
    ready_path="/messages",
    can=frozenset({"publish", "history", "cluster"}),
    environment=lambda _port, _redis_url: {"NODE_ENV": "production"},
)
