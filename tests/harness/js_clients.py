"""Real socket.io-client clients, in one Node process that obeys JSON lines (socketio_js.mjs)."""

import asyncio
import base64
import itertools
import json
import reprlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.harness.waiting import DEADLINE

__all__ = ["JsClient", "JsClients", "JsError", "JsState"]

_SCRIPT = Path(__file__).with_name("socketio_js.mjs")
_LONGEST_LINE = 1 << 30  # bytes
_GRACE = 10.0  # seconds that Node gets to report a deadline of its own
_EXIT = 5.0  # seconds that Node gets to close its clients

_short = reprlib.Repr()
_short.maxlist = _short.maxdict = 12
_short.maxstring = 200
_short.maxlevel = 4


class JsError(Exception):
    """What went wrong inside Node: an acknowledgement that did not come, a client that may not connect."""


@dataclass(frozen=True)
class JsState:
    """What one client has seen up to now. `at` is in seconds, on Linux those of `time.monotonic()`."""

    version: int
    url: str
    connected: bool
    active: bool  # False: it is not going to reconnect by itself
    id: str | None
    transport: str | None
    recovered: bool
    pid: str | None
    offset: str | None
    epoch: str | None  # what a tracking client stores ...
    newest: int | None  # ... and sends as `after`
    ids: list[int]  # after dropping what it had
    raw_ids: list[int | None]  # as they came
    duplicates_dropped: int
    out_of_order: list[int]  # never seen, and yet not newer than the newest one
    sessions: list[dict[str, Any]]  # the payload, `extra` arguments, `at`
    resets: list[dict[str, Any]]  # the same
    events: list[dict[str, Any]]  # other events: event, args, at
    connects: list[dict[str, Any]]  # id, pid, recovered, transport, auth, at
    disconnects: list[dict[str, Any]]  # reason, at
    connect_errors: list[dict[str, Any]]  # message, data, at
    reloads: int
    reload_errors: list[str]

    def __str__(self) -> str:
        return "\n".join(f"  {name}: {_brief(value)}" for name, value in vars(self).items())


class JsClient:
    """One socket. Every wait raises TimeoutError with the client's state when `within` seconds are over."""

    def __init__(self, clients: "JsClients", number: int) -> None:
        self._clients = clients
        self._number = number

    def __repr__(self) -> str:
        return f"<JsClient {self._number}>"

    async def state(self) -> JsState:
        """Return everything on record but the messages themselves."""
        return JsState(**await self._call("state"))

    async def messages(self) -> list[Any]:
        """Return the messages, without those that it dropped."""
        messages: list[Any] = await self._call("messages")
        return messages

    async def records(self) -> list[dict[str, Any]]:
        """Return each `message` event as it came: message, extra arguments, at, kept."""
        records: list[dict[str, Any]] = await self._call("records")
        return records

    async def order(self) -> list[str]:
        """Return what happened, in order: "connect", "session", "message:<id>", "disconnect:<reason>", ..."""
        order: list[str] = await self._call("order")
        return order

    async def ids(self) -> list[int]:
        """Return the ids of `messages()`."""
        return (await self.state()).ids

    # ---- waiting

    async def wait_for(self, *, within: float = DEADLINE, **conditions: Any) -> None:
        """Wait until all hold at once: CONDITIONS in js_client.mjs has them.

        connected=, active=, transport= are equal to that; count=, raw_count=, sessions=, resets=, events=,
        connects=, disconnects=, connect_errors=, reloads= are at least so many; last= is at most the newest
        id; ids= are all there; settled=True is connected, or not trying any more.
        """
        try:
            await self._call("wait", within=within, conditions=conditions)
        except TimeoutError:
            raise TimeoutError(
                f"{self!r}: {_short.repr(conditions)} not within {within} s\n{await self.state()}"
            ) from None

    async def wait_for_ids(
        self,
        last: int | None = None,
        *,
        count: int | None = None,
        ids: Sequence[int] | None = None,
        within: float = DEADLINE,
    ) -> list[int]:
        """Wait for a newest id of at least `last`, for `count` ids, for all of `ids`; return all ids."""
        wanted = {"last": last, "count": count, "ids": None if ids is None else list(ids)}
        await self.wait_for(
            within=within, **{name: value for name, value in wanted.items() if value is not None}
        )
        return await self.ids()

    async def wait_until(self, holds: Callable[[JsState], bool], *, within: float = DEADLINE) -> JsState:
        """Wait until `holds(state)`, and return that state."""
        state = await self.state()
        try:
            async with asyncio.timeout(within):
                while not holds(state):
                    await self._call("wait", within=within, conditions={"version": state.version})
                    state = await self.state()
        except TimeoutError:
            raise TimeoutError(f"{self!r}: not within {within} s\n{await self.state()}") from None
        return state

    # ---- sending

    async def emit(self, event: str, *args: Any, ack: bool = True, within: float = DEADLINE) -> Any:
        """Emit, bytes too; return the acknowledgement's (first) value, or raise JsError without one."""
        return await self._call("emit", within=within, event=event, args=args, ack=ack)

    async def emit_many(
        self,
        messages: Sequence[Any],
        *,
        event: str = "message",
        ack: bool = True,
        retry: bool = False,
        attempt: float = 3.0,
        within: float = DEADLINE,
    ) -> list[Any]:
        """Emit all at once; return their acknowledgements, `{"error": text}` where none came.

        With `retry` each is sent again (give them nonces) while there is no answer within `attempt` seconds,
        or the answer is the error `unavailable`, until `within` is over.
        """
        answers: list[Any] = await self._call(
            "emit_many",
            within=within,
            event=event,
            messages=list(messages),
            ack=ack,
            retry=retry,
            attempt=attempt * 1000,
        )
        return answers

    async def send_packet(self, packet: str) -> None:
        """Send one Socket.IO packet as text (`2["message"]`), in an Engine.IO message packet."""
        await self._call("send_packet", data=packet)

    async def send_frame(self, frame: str | bytes) -> None:
        """Send one WebSocket message, or the whole body of one POST, as it is."""
        await self._call("send_frame", data=frame)

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes on the TCP connection under a WebSocket."""
        await self._call("send_bytes", data=data)

    # ---- the connection

    async def drop(self, *, reset: bool = False, reconnected: bool = False) -> bool:
        """Lose the network: no close frame, no close packet. The client is to come back by itself.

        Return once the client has noticed (with `reconnected`, once it is back); False if it had no
        connection. With `reset` the server sees a reset connection, without it an end of stream.
        """
        connects = len((await self.state()).connects)
        dropped: bool = await self._call("drop", reset=reset)
        if reconnected:
            await self.wait_for(connects=connects + 1, connected=True)
        return dropped

    async def reconnect_to(self, url: str, *, reset: bool = False) -> None:
        """Lose the network, go on with the same socket at another instance; return when connected there."""
        connects = len((await self.state()).connects)
        await self._call("reconnect_to", url=url, reset=reset)
        await self.wait_for(connects=connects + 1, connected=True)

    async def pause_reading(self) -> None:
        """Read nothing more from the WebSocket: a slow client."""
        await self._call("set_reading", reading=False)

    async def resume_reading(self) -> None:
        """Read on."""
        await self._call("set_reading", reading=True)

    async def connect(self) -> None:
        """Connect a socket that was closed, or sent away; return when connected."""
        await self._call("connect")
        await self.wait_for(connected=True)

    async def close(self) -> None:
        """Disconnect in the orderly way, for good unless `connect()` is called."""
        await self._call("close")

    async def _call(self, command: str, *, within: float = DEADLINE, **arguments: Any) -> Any:
        return await self._clients.call(command, within=within, client=self._number, **arguments)


class JsClients:
    """The Node process; use it by `async with`."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        node = shutil.which("node")
        if node is None:
            raise RuntimeError("node is not installed")
        self._process = await asyncio.create_subprocess_exec(
            node,
            _SCRIPT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            limit=_LONGEST_LINE,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all clients and end Node, by SIGKILL if it takes long."""
        if self._process is None or self._process.stdin is None or self._reader is None:
            return
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_EXIT):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reader
        self._errors.close()
        self._process = None

    async def connect(
        self,
        url: str,
        *,
        package: str = "socket.io-client",
        transports: Sequence[str] | None = None,
        auth: dict[str, Any] | None = None,
        recovery: bool = False,
        track: bool = True,
        reload: bool | Literal["always"] = False,
        options: dict[str, Any] | None = None,
        wait: bool = True,
        within: float = DEADLINE,
    ) -> JsClient:
        """Make a client, and with `wait` return once it is connected (JsError where the server forbids it).

        package: another release of the client, by its name in package.json.
        transports: None is the client's own default, polling and then the upgrade.
        track: keep epoch and newest id, send them as `auth` at each connect, drop ids that it has. `auth` may
            say where to begin. Without it everything is taken as it comes.
        recovery: pass `auth: {recovery: true}` and do nothing else (`auth` and `track` mean nothing).
        reload: GET /messages on `reset` and on `recovered: false`; "always": after the first connect, too.
        options: socket.io-client's own (`reconnectionDelay`, `extraHeaders`, `retries`, `path`, ...); the
            defaults reconnect after 50, then up to 200 ms. `keepAlive` has polling keep its TCP connections,
            as browsers do.
        """
        client = JsClient(self, next(self._numbers))
        settings = {
            "url": url,
            "transports": None if transports is None else list(transports),
            "auth": auth,
            "recovery": recovery,
            "track": track,
            "reload": reload,
            "options": options or {},
        }
        await self.call("open", client=client._number, package=package, settings=settings)  # noqa: SLF001 - one module, one thing
        if wait:
            await client.wait_for(settled=True, within=within)
            state = await client.state()
            if not state.connected:
                raise JsError(f"not connected: {state.connect_errors}")
        return client

    async def call(self, command: str, *, within: float = DEADLINE, **arguments: Any) -> Any:
        """Have Node do something; return its answer."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("use JsClients by `async with`")
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        line = {"id": number, "command": command, "timeout": within * 1000, **arguments}
        try:
            if self._reader is None or self._reader.done():
                raise JsError(f"Node has ended:\n{self._error_text()}")
            self._process.stdin.write(json.dumps(line, default=_binary).encode() + b"\n")
            await self._process.stdin.drain()
            async with asyncio.timeout(within + _GRACE):
                return await answer
        finally:
            del self._calls[number]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError("stdout is a pipe")
        while line := await process.stdout.readline():
            reply = json.loads(line, object_hook=_bytes)
            answer = self._calls.get(reply["id"])
            if answer is None or answer.done():
                continue
            error = reply.get("error")
            if error is None:
                answer.set_result(reply["value"])
            else:
                answer.set_exception(TimeoutError() if error == "timeout" else JsError(error))
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(JsError(f"Node has ended:\n{self._error_text()}"))

    def _error_text(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")


def _binary(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"$binary": base64.b64encode(value).decode()}
    raise TypeError(f"{value!r} cannot be sent to Node")


def _bytes(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["$binary"]) if value.keys() == {"$binary"} else value


def _brief(value: object) -> str:
    """Return a list by its ends, the rest as it is."""
    ends = 6
    if isinstance(value, list) and len(value) > 2 * ends:
        first, last = (", ".join(map(_short.repr, part)) for part in (value[:ends], value[-ends:]))
        return f"({len(value)}) [{first} ... {last}]"
    return _short.repr(value)
