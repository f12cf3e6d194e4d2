"""What stands in front of all gateways: the front door, and one aiohttp application behind it.

The door takes WebSocket handshakes that need no thought; whatever has to be refused, decided or explained goes to
the application, which has a route for the same paths.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ditochat.engine.door import Handshake, Opener
from ditochat.engine.http import EngineHttp, websocket_session
from ditochat.engine.websocket import accept_response, handshake_key
from ditochat.errors import ForbiddenOrigin, NotFound, Unavailable
from ditochat.gateways.http import HttpGateway, file_response, find_file
from ditochat.gateways.origins import OriginPolicy
from ditochat.gateways.problems import BODY_LIMIT, answer_problems, meet_expectation
from ditochat.gateways.socketio import ChatServer
from ditochat.gateways.websocket import WebSocketGateway

__all__ = ["front_door", "web_application"]

SOCKETIO_PATH = "/socket.io/"
WEBSOCKET_PATH = "/ws"
_METHODS = "GET, POST"


def web_application(
    http: HttpGateway,
    chat: ChatServer,
    websocket: WebSocketGateway,
    origins: OriginPolicy,
    *,
    draining: Callable[[], bool],
    max_body_bytes: int,
    client_scripts: Path,
) -> web.Application:
    """Put the gateways together. While ``draining``, no new session begins; those that live go on."""

    def admit(handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if draining() and "sid" not in request.query:
                raise Unavailable("this instance is shutting down")
            return await handler(request)

        return guarded

    async def client_script(request: web.Request) -> web.StreamResponse:
        path = find_file(client_scripts, request.match_info["name"])
        if path is None:
            raise NotFound(request.path[:200])
        return file_response(request, path)

    app = web.Application(
        middlewares=[answer_problems, _check_origin(origins)], client_max_size=max_body_bytes
    )
    app[BODY_LIMIT] = max_body_bytes
    app.on_response_prepare.append(_add_headers(origins))
    app.router.add_route(
        "*", SOCKETIO_PATH, admit(EngineHttp(chat.eio).handle), expect_handler=meet_expectation
    )
    # Where socket.io's own server has it, so that a page's script tag need not change.
    app.router.add_get(
        SOCKETIO_PATH + "{name:socket\\.io[a-z.]*\\.js}", client_script, expect_handler=meet_expectation
    )
    app.router.add_get(
        WEBSOCKET_PATH, admit(websocket.handle), allow_head=False, expect_handler=meet_expectation
    )
    app.add_routes(http.routes())
    for resource in app.router.resources():
        # The page's route takes every path and method; a wrong method at a known path is not its business.
        if isinstance(resource, web.PlainResource) and resource.canonical != SOCKETIO_PATH:
            resource.add_route("*", _refuse_method, expect_handler=meet_expectation)
    return app


def front_door(
    chat: ChatServer,
    websocket: WebSocketGateway,
    origins: OriginPolicy,
    *,
    draining: Callable[[], bool],
) -> Opener:
    """Return what answers WebSocket handshakes that are in order, and leaves all others to the application."""

    def open_websocket(handshake: Handshake) -> tuple[asyncio.Protocol, bytes] | None:
        key = handshake_key(handshake.method, handshake.headers)
        if key is None or not _origin_allowed(origins, handshake):
            return None
        path, _, search = handshake.target.decode("latin-1").partition("?")
        # Of a name that is repeated the first counts, as in aiohttp.
        query = dict(reversed(parse_qsl(search, keep_blank_values=True)))
        if draining() and "sid" not in query:
            return None
        if path == SOCKETIO_PATH:
            session = websocket_session(chat.eio, query)
            return None if session is None else (session[0], accept_response(key) + session[1])
        client = websocket.open(query) if path == WEBSOCKET_PATH else None
        return None if client is None else (client, accept_response(key))

    return open_websocket


def _origin_allowed(origins: OriginPolicy, handshake: Handshake) -> bool:
    try:
        origins.check(handshake.headers)
    except ForbiddenOrigin:
        return False
    return True


async def _refuse_method(request: web.Request) -> web.StreamResponse:
    resource = request.match_info.route.resource
    allowed = {route.method for route in resource or ()} - {"*"}
    raise web.HTTPMethodNotAllowed(request.method, allowed)


def _check_origin(origins: OriginPolicy) -> Middleware:
    @web.middleware
    async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=origins.preflight_headers(request.headers, _METHODS))
        # What only reads is guarded by the browser itself, which keeps the answer from the page.
        if (
            request.method == "POST"
            or request.path == WEBSOCKET_PATH
            or request.path.startswith(SOCKETIO_PATH)
        ):
            origins.check(request.headers)
        return await handler(request)

    return check_origin


def _add_headers(origins: OriginPolicy) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        for name, value in origins.response_headers(request.headers).items():
            if name == "Vary" and response.headers.get(name, value) != value:
                response.headers[name] += f", {value}"
            else:
                response.headers[name] = value
        response.headers["X-Content-Type-Options"] = "nosniff"

    return add_headers
