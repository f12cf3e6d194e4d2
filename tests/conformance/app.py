"""What the official suites of the Socket.IO project run against; a command: `python -m tests.conformance.app`.

At ``/engine.io/`` an Engine.IO server that sends each message back; at ``/socket.io/`` a Socket.IO server that
answers `message` by `message-back`, acknowledges `message-with-ack` with its arguments, sends `auth` to whoever
connects, and serves the namespaces `/` and `/custom`.
"""

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from ditochat.engine.door import Handshake, Porter
from ditochat.engine.http import EngineHttp
from ditochat.engine.server import Burst, EngineServer, Outgoing
from ditochat.engine.strict import StrictServer
from ditochat.engine.websocket import accept_response, handshake_key


def echo_server(heartbeat: Mapping[str, float]) -> EngineServer:
    engine = EngineServer(**heartbeat)  # type: ignore[arg-type]  # two of its options
    engine.on("connect", lambda sid: None)
    engine.on("message", lambda sid, data: engine.put(sid, Burst([Outgoing(data)])))
    engine.on("disconnect", lambda sid, reason: None)
    return engine


def socketio_server(heartbeat: Mapping[str, float]) -> StrictServer:
    server = StrictServer(namespaces=["/", "/custom"], **heartbeat)
    server.manager.initialize()

    for namespace in ("/", "/custom"):

        async def connect(
            sid: str, environ: Mapping[str, Any], auth: object, namespace: str = namespace
        ) -> None:
            server.start_background_task(server.emit, "auth", auth or {}, to=sid, namespace=namespace)

        async def message(sid: str, *args: Any, namespace: str = namespace) -> None:
            await server.emit("message-back", args, to=sid, namespace=namespace)

        async def message_with_ack(sid: str, *args: Any) -> tuple[Any, ...]:
            return args

        server.on("connect", connect, namespace=namespace)
        server.on("message", message, namespace=namespace)
        server.on("message-with-ack", message_with_ack, namespace=namespace)
    return server


async def serve(
    *, host: str, port: int, engine_path: str, socketio_path: str, ping_interval: float, ping_timeout: float
) -> None:
    heartbeat = {"ping_interval": ping_interval, "ping_timeout": ping_timeout}
    engines = {engine_path: echo_server(heartbeat), socketio_path: socketio_server(heartbeat).eio}
    app = web.Application(client_max_size=2_000_000)
    for path, engine in engines.items():
        app.router.add_route("*", path, EngineHttp(engine).handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()

    def open_websocket(handshake: Handshake) -> tuple[asyncio.Protocol, bytes] | None:
        target = urlsplit(handshake.target.decode("latin-1"))
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        key, engine = handshake_key(handshake.method, handshake.headers), engines.get(target.path)
        if engine is None or key is None or query.get("EIO") != "4" or query.get("transport") != "websocket":
            return None
        if "sid" in query:
            offered = engine.offer_websocket(query["sid"])
            return None if offered is None else (offered, accept_response(key))
        socket, first = engine.open_websocket()
        return socket, accept_response(key) + first

    assert runner.server is not None
    porter = Porter(open_websocket, runner.server)
    server = await asyncio.get_running_loop().create_server(porter, host, port)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--engine-path", default="/engine.io/")
    parser.add_argument("--socketio-path", default="/socket.io/")
    parser.add_argument("--ping-interval", type=float, default=0.3, help="seconds")
    parser.add_argument("--ping-timeout", type=float, default=0.2, help="seconds")
    asyncio.run(serve(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
