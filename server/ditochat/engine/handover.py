"""A WebSocket on a kept-alive HTTP connection: aiohttp reads the handshake, our protocol all that follows.

Reverse proxies do this: the connection to us has carried other requests before. It costs what aiohttp costs;
a connection that begins with the handshake does not come here (see :mod:`ditochat.engine.door`). aiohttp's
own WebSocket reader is not used: it takes frames that are not masked, and does not know what we have written.
"""

import asyncio

from aiohttp import web

from ditochat.engine.websocket import WebSocketProtocol, accept_key, handshake_key

__all__ = ["can_upgrade", "serve_websocket"]


def can_upgrade(request: web.Request) -> bool:
    """Tell whether the request is a valid opening handshake."""
    return handshake_key(request.method, request.headers) is not None


async def serve_websocket(
    request: web.Request, protocol: WebSocketProtocol, first: bytes = b""
) -> web.StreamResponse:
    """Accept the handshake, write ``first``, and return when the connection has ended."""
    key = handshake_key(request.method, request.headers)
    if key is None:
        raise ValueError("expected a request that can be upgraded")
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept_key(key)}
    response = web.StreamResponse(status=101, headers=headers)
    response.force_close()
    transport = None
    try:
        await response.prepare(request)
        transport = request.transport
    except ConnectionError:
        pass  # it went while we were about to answer
    finally:
        if transport is None:  # the client has gone
            protocol.connection_lost(None)
    if transport is None:
        return response
    lodger = _Lodger(protocol, request.protocol)
    protocol.connection_made(transport)
    transport.set_protocol(lodger)  # before anything is written: whoever writes must hear of a pause
    if first:
        protocol.write_now(first)
    # aiohttp gives what it has read already to whoever takes the connection's data from there on.
    request.protocol.set_parser(lodger)  # type: ignore[arg-type]  # it has what is called of a parser
    await lodger.ended
    return response


class _Lodger(asyncio.Protocol):
    """Stands between a transport and our protocol, and lets aiohttp know when the connection has ended."""

    def __init__(self, protocol: WebSocketProtocol, landlord: asyncio.Protocol) -> None:
        self._protocol = protocol
        self._landlord = landlord
        self.ended = asyncio.get_running_loop().create_future()
        self.data_received = protocol.data_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        if not self.ended.done():
            self.ended.set_result(None)
        self._landlord.connection_lost(exc)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._protocol.data_received(data)
        return False, b""

    def feed_eof(self) -> None:
        pass
