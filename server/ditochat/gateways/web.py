"""The one aiohttp application in front of all gateways: routes, origins, errors."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ditochat.errors import NotFound, Unavailable
from ditochat.gateways.http import HttpGateway, find_file
from ditochat.gateways.origins import OriginPolicy
from ditochat.gateways.problems import BODY_LIMIT, answer_problems
from ditochat.gateways.socketio import ChatServer
from ditochat.gateways.websocket import WebSocketGateway

__all__ = ["web_application"]

SOCKETIO_PATH = "/socket.io/"
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
        return web.FileResponse(path, headers={"Cache-Control": "no-cache"})

    app = web.Application(
        middlewares=[answer_problems, _check_origin(origins)], client_max_size=max_body_bytes
    )
    app[BODY_LIMIT] = max_body_bytes
    app.on_response_prepare.append(_add_headers(origins))
    engine = admit(chat.eio.handle_request)
    app.router.add_get(SOCKETIO_PATH, engine, allow_head=False)
    app.router.add_post(SOCKETIO_PATH, engine)
    # Where socket.io's own server has it, so that a page's script tag need not change.
    app.router.add_get(SOCKETIO_PATH + "{name:socket\\.io[a-z.]*\\.js}", client_script)
    app.router.add_get("/ws", admit(websocket.handle), allow_head=False)
    app.add_routes(http.routes())
    for resource in app.router.resources():
        # The page's route takes every path and method; a wrong method at a known path is not its business.
        if isinstance(resource, web.PlainResource) and resource.canonical != SOCKETIO_PATH:
            resource.add_route("*", _refuse_method)
    return app


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
        if request.method == "POST" or request.path == "/ws" or request.path.startswith(SOCKETIO_PATH):
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
