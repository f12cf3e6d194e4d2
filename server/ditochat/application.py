"""The whole server: wires the parts from the settings, and takes them up and down in order."""

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from ditochat.embedded import EmbeddedValkey, EmbeddedValkeyError
from ditochat.engine.door import Porter
from ditochat.fanout import Room
from ditochat.gateways.emits import ChatManager
from ditochat.gateways.http import HttpGateway
from ditochat.gateways.origins import OriginPolicy
from ditochat.gateways.problems import server_logger
from ditochat.gateways.publisher import Publisher
from ditochat.gateways.socketio import ChatServer
from ditochat.gateways.web import front_door, web_application
from ditochat.gateways.websocket import WebSocketGateway
from ditochat.listening import FileLimit, listen
from ditochat.log.appender import Appender
from ditochat.log.connections import Connections, connect
from ditochat.log.follower import Follower
from ditochat.metrics import Metrics
from ditochat.settings import Settings
from ditochat.timeline import Timeline

__all__ = ["StartupError", "run"]

logger = logging.getLogger(__name__)

# A body may spell a message with escapes, up to six bytes a character (RFC 8259, section 7).
MIN_BODY_BYTES: Final = 1_000_000
BODY_BYTES_PER_MESSAGE_BYTE: Final = 6
# How long what was closed may take to be gone, and what was handed in to be stored.
SETTLE_SECONDS: Final = 3.0
LAG_SAMPLE_SECONDS: Final = 0.5


class StartupError(Exception):
    """The server cannot start; the text says what is wrong. ``status`` is the exit status."""

    status = 1


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal cuts the draining short.

    Raises:
        StartupError: the address cannot be bound, or the embedded Valkey does not start.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    files = FileLimit()
    files.raise_to_hard()
    loop.set_exception_handler(files.report)
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            url = await stack.enter_async_context(_embedded(settings.data_dir))
        server = _Server(settings, connect(url), files)
        stack.push_async_callback(server.connections.close)
        await server.serve(stop, hurry)
    logger.info("stopped")


class _Server:
    """The parts of one instance."""

    def __init__(self, settings: Settings, connections: Connections, files: FileLimit) -> None:
        self.connections = connections
        self._files = files
        self._settings = settings
        self._draining = False
        self._metrics = metrics = Metrics()
        timeline = Timeline(settings.history_limit)
        max_bytes = settings.max_message_bytes
        max_body_bytes = max(MIN_BODY_BYTES, BODY_BYTES_PER_MESSAGE_BYTE * max_bytes)
        self._room = room = Room(
            timeline,
            metrics,
            instance=f"{socket.gethostname()}-{secrets.token_hex(3)}",
            max_message_bytes=max_bytes,
            send_buffer_bytes=settings.send_buffer_bytes,
        )
        self._follower = follower = Follower(connections, timeline, room, self._foreign, metrics)
        self._appender = Appender(
            connections, follower, metrics,
            history_limit=settings.history_limit, max_message_bytes=max_bytes,
            wait_replicas=settings.redis_wait_replicas,
        )  # fmt: skip

        def publisher(gateway: str) -> Publisher:
            return Publisher(self._appender, metrics, gateway, max_bytes)

        self._manager = ChatManager(connections.reads, room, metrics)
        self._chat = ChatServer(
            room,
            follower,
            publisher("socketio"),
            self._manager,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            max_payload_bytes=max_body_bytes,
        )
        self._websocket = WebSocketGateway(room, follower, publisher("ws"), max_frame_bytes=max_body_bytes)
        origins = OriginPolicy(settings.allowed_origins)
        demo = _demo_folder()
        http = HttpGateway(follower, publisher("http"), metrics, trouble=self._trouble, demo=demo)
        self._web = web_application(
            http,
            self._chat,
            self._websocket,
            origins,
            draining=lambda: self._draining,
            max_body_bytes=max_body_bytes,
            client_scripts=demo / "vendor",
        )
        self._door = front_door(self._chat, self._websocket, origins, draining=lambda: self._draining)
        for transport in ("polling", "websocket"):
            count = partial(self._count_clients, transport)
            metrics.connections.labels(transport).set_function(count)
        metrics.connections.labels("ws").set_function(lambda: self._websocket.count)
        metrics.tasks.set_function(lambda: len(asyncio.all_tasks()))

    async def serve(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """Serve until ``stop``, then drain, faster after ``hurry``."""
        runner = self._runner()
        await runner.setup()
        server: asyncio.Server | None = None
        try:
            server = await self._listen(runner)
            async with asyncio.TaskGroup() as tasks:
                parts = [
                    tasks.create_task(self._follower.run()),
                    tasks.create_task(self._appender.run()),
                    tasks.create_task(self._manager.run()),
                    tasks.create_task(self._sample_lag()),
                ]
                await stop.wait()
                await self._drain(hurry)
                for part in parts:
                    part.cancel()
        finally:
            # Not waited for: since Python 3.12 that is for all connections, of which a proxy keeps some open.
            if server is not None:
                server.close()
            await runner.cleanup()

    def _runner(self) -> web.AppRunner:
        # A client that gives up its poll takes nothing with it: the session ends, a replay follows.
        return web.AppRunner(
            self._web,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=1.0,
            logger=server_logger(),
        )

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        address = self._settings.addr
        if runner.server is None:
            raise AssertionError("the runner was set up before")
        porter = Porter(self._door, runner.server, self._files.admits)
        try:
            server = await listen(porter, address.host, address.port)
        except OSError as error:
            raise StartupError(f"cannot listen on {address}: {error.strerror or error}") from error
        port = server.sockets[0].getsockname()[1]
        logger.info("listening on http://%s:%d", address.host or "localhost", port, extra={"port": port})
        return server

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Send everybody away: first those who would join, then, spread over time, those who are here."""
        self._draining = True
        seconds = self._settings.drain_seconds
        logger.info("draining %d clients over up to %g s", len(self._room), seconds)
        draining = asyncio.create_task(self._room.drain(seconds))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurrying):
            task.cancel()
        await asyncio.gather(draining, hurrying, return_exceptions=True)
        if hurry.is_set():
            await self._room.drain(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._appender.settle()
        self._chat.eio.close_all()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_SECONDS
        while self._open_connections() and loop.time() < deadline:  # noqa: ASYNC110  # three parts' sum
            await asyncio.sleep(0.02)

    def _open_connections(self) -> int:
        unfinished: int = self._chat.eio.unfinished
        return unfinished + self._websocket.count

    def _count_clients(self, transport: str) -> int:
        count: int = self._chat.eio.transport_counts()[transport]
        return count

    def _trouble(self) -> str | None:
        return "shutting down" if self._draining else self._follower.trouble

    def _foreign(self, payload: bytes) -> None:
        self._manager.receive(payload)

    async def _sample_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SAMPLE_SECONDS
            await asyncio.sleep(LAG_SAMPLE_SECONDS)
            self._metrics.event_loop_lag.observe(max(0.0, loop.time() - due))


@asynccontextmanager
async def _embedded(data_dir: Path) -> AsyncIterator[str]:
    """Run the embedded Valkey; the value is its URL."""
    valkey = EmbeddedValkey(data_dir)
    try:
        await valkey.start()
    except EmbeddedValkeyError as error:
        raise StartupError(str(error)) from error
    try:
        yield valkey.url
    finally:
        await valkey.stop()


def _demo_folder() -> Path:
    """Find the demo page: in the installed package, or in the checkout that this is."""
    package = Path(__file__).resolve().parent
    installed = package / "demo"
    return installed if installed.is_dir() else package.parents[1] / "static-demo"
