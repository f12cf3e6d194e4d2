"""A chat as python-socketio's documentation would have it: AsyncServer, AsyncRedisManager and aiohttp.

Started by the runner as `python -m bench.peers.stock_socketio PORT REDIS_URL`.
"""

import json
import sys
from typing import Any, Final

import redis.asyncio
import socketio
from aiohttp import web

from bench.peers.peer import Peer, module_command

__all__ = ["STOCK"]

STOCK: Final = Peer(
    name="stock",
    title="python-socketio, stock",
    protocol="socketio",
    command=lambda port, redis_url: module_command("bench.peers.stock_socketio", str(port), redis_url),
    ready_path="/messages",
    can=frozenset({"publish", "history", "cluster"}),
)

HISTORY: Final = 1000


def application(redis_url: str) -> web.Application:
    """Return the chat: everybody is in the room `chat`, the newest 1000 messages are kept."""
    store = redis.asyncio.Redis.from_url(redis_url)
    server = socketio.AsyncServer(
        async_mode="aiohttp",
        client_manager=socketio.AsyncRedisManager(redis_url),
        cors_allowed_origins="*",
    )

    async def on_connect(sid: str, _environ: dict[str, Any]) -> None:
        await server.enter_room(sid, "chat")

    async def on_message(_sid: str, message: Any) -> dict[str, bool]:
        async with store.pipeline() as pipe:
            pipe.lpush("messages", json.dumps(message, separators=(",", ":")))
            pipe.ltrim("messages", 0, HISTORY - 1)
            await pipe.execute()
        await server.emit("message", message, room="chat")
        return {"ok": True}

    async def get_messages(_request: web.Request) -> web.Response:
        messages: list[Any] = await store.lrange("messages", 0, HISTORY - 1)
        return web.Response(body=b"[" + b",".join(messages) + b"]", content_type="application/json")

    server.on("connect", on_connect)
    server.on("message", on_message)
    app = web.Application()
    app.router.add_get("/messages", get_messages)
    server.attach(app)
    return app


def main() -> None:
    """Serve."""
    port, redis_url = sys.argv[1:]
    web.run_app(application(redis_url), host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
