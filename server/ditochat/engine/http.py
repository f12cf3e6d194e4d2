"""Engine.IO over HTTP, on aiohttp: long polling, and WebSocket handshakes on kept-alive connections.

A handshake that opens a connection does not come here: see :mod:`ditochat.engine.door`.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from ditochat.engine.handover import can_upgrade, serve_websocket
from ditochat.engine.packets import BadPacket
from ditochat.engine.server import Connection, EngineServer, EngineSocket
from ditochat.engine.session import CLOSE, NOOP, Poll

__all__ = ["EngineHttp", "websocket_session"]

_TEXT: Final = "text/plain"
_NO_STORE: Final = {"Cache-Control": "no-store"}
_PROTOCOL_VERSION: Final = "4"


def websocket_session(engine: EngineServer, query: Mapping[str, str]) -> tuple[EngineSocket, bytes] | None:
    """Begin a session on a new WebSocket, or move one there; ``None`` where the query asks for neither.

    Returns the protocol of the connection, and what it has to say first.
    """
    if query.get("EIO") != _PROTOCOL_VERSION or query.get("transport") != "websocket":
        return None
    if "websocket" not in engine.config.transports:
        return None
    sid = query.get("sid")
    if sid is None:
        return engine.open_websocket()
    offered = engine.offer_websocket(sid)
    return None if offered is None else (offered, b"")


class EngineHttp:
    """Answers the requests of one endpoint; errors are 400 with a line that says what is wrong."""

    def __init__(self, engine: EngineServer) -> None:
        self._engine = engine

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        query = request.query
        transport, sid = query.get("transport"), query.get("sid")
        if query.get("EIO") != _PROTOCOL_VERSION:
            return _bad(f"expected EIO={_PROTOCOL_VERSION}")
        if transport not in self._engine.config.transports:
            return _bad(f"expected transport to be one of {', '.join(self._engine.config.transports)}")
        if request.method == "GET" and transport == "websocket":
            return await self._websocket(request)
        if request.method == "GET":
            return await self._poll(sid) if sid is not None else self._open()
        if request.method == "POST" and sid is not None:
            return await self._post(request, sid)
        return _bad("expected GET, or POST with sid")

    def _open(self) -> web.Response:
        _, handshake = self._engine.open(on_websocket=False)
        return _ok(handshake.encode())

    async def _poll(self, sid: str) -> web.Response:
        answer, connection = self._engine.poll(sid)
        if connection is None or answer in (Poll.REFUSED, Poll.CONFLICT):
            return _bad("no session to poll")
        if answer is Poll.CLOSE:
            return _ok(CLOSE)
        if answer is Poll.NOOP:
            return _ok(NOOP)
        if answer is Poll.DATA:
            return _ok(connection.take_payload())
        return await self._hold(connection)

    async def _hold(self, connection: Connection) -> web.Response:
        connection.held = held = asyncio.get_running_loop().create_future()
        try:
            return _ok(await held)
        except asyncio.CancelledError:  # aiohttp's word for a client that hung up
            self._engine.poll_aborted(connection)
            raise

    async def _post(self, request: web.Request, sid: str) -> web.Response:
        connection = self._engine.connections.get(sid)
        if connection is None or connection.on_websocket:
            return _bad("no session to post to")
        limit = self._engine.config.max_payload
        if request.content_length is not None and request.content_length > limit:
            raise web.HTTPRequestEntityTooLarge(limit, request.content_length)
        try:
            body = await request.read()
        except web.RequestPayloadError:
            return _bad("expected a body that is encoded as its headers say")
        if len(body) > limit:  # it came in chunks, so that its length was not known before
            raise web.HTTPRequestEntityTooLarge(limit, len(body))
        if not self._engine.is_open(sid):  # it ended while the body was on its way
            return _bad("no session to post to")
        try:
            self._engine.payload_received(connection, body)
        except BadPacket as error:
            return _bad(str(error))
        return _ok(b"ok")

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if not can_upgrade(request):
            return _bad("expected a WebSocket handshake")
        session = websocket_session(self._engine, request.query)
        if session is None:
            return _bad("no session to upgrade")
        return await serve_websocket(request, *session)


def _ok(payload: bytes) -> web.Response:
    return web.Response(body=payload, content_type=_TEXT, charset="utf-8", headers=_NO_STORE)


def _bad(problem: str) -> web.Response:
    return web.Response(status=400, text=problem, headers=_NO_STORE)
