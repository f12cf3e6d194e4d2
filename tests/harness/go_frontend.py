"""The browser frontend of the Go backend, as a plain WebSocket client: it must run unchanged."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.harness.waiting import DEADLINE

__all__ = ["GoFrontend"]


class GoFrontend:
    """Opens `ws://host/ws`, splits each frame on newlines, parses each piece; use it by `async with`."""

    def __init__(
        self, base_url: str, *, path: str = "/ws", params: dict[str, str] | None = None, **options: Any
    ) -> None:
        self.frames: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._base_url = base_url
        self._path = path
        self._params = params
        self._options = options
        self._changed = asyncio.Event()
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        last = self.messages[-3:]
        return (
            f"<GoFrontend {self._base_url}: {len(self.messages)} messages in {len(self.frames)} frames, "
            f"the last {last}, closed {self.close_code} {self.close_reason!r}>"
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def socket(self) -> aiohttp.ClientWebSocketResponse:
        """The WebSocket itself."""
        if self._socket is None:
            raise RuntimeError("the frontend is not open")
        return self._socket

    @property
    def closed(self) -> bool:
        """Whether the WebSocket has ended."""
        return self._reader is None or self._reader.done()

    @property
    def ids(self) -> list[int]:
        """The ids of the messages, in the order in which they came."""
        return [message["id"] for message in self.messages]

    async def open(self) -> None:
        """Connect, again too: what was received stays on record."""
        await self.close()
        self.close_code = self.close_reason = None
        self._http = aiohttp.ClientSession(self._base_url, timeout=aiohttp.ClientTimeout(total=DEADLINE))
        try:
            self._socket = await self._http.ws_connect(
                self._path, params=self._params, max_msg_size=0, **self._options
            )
        except BaseException:
            await self.close()
            raise
        self._reader = asyncio.create_task(self._read(self._socket))

    async def close(self) -> None:
        """Close the WebSocket in the orderly way, and the session with it."""
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader
        if self._http is not None:
            await self._http.close()

    async def send(self, text: str, *, uid: str = "u1", date: str = "", title: str = "") -> None:
        """Send what the frontend sends for a message that somebody typed."""
        await self.send_raw(json.dumps({"uid": uid, "text": text, "date": date, "title": title}))

    async def send_raw(self, frame: str | bytes) -> None:
        """Send one text frame (str) or binary frame (bytes) as it is."""
        if isinstance(frame, str):
            await self.socket.send_str(frame)
        else:
            await self.socket.send_bytes(frame)

    async def history(self) -> list[dict[str, Any]]:
        """GET /messages: newest first."""
        if self._http is None:
            raise RuntimeError("the frontend is not open")
        async with self._http.get("/messages") as answer:
            answer.raise_for_status()
            messages: list[dict[str, Any]] = await answer.json()
            return messages

    async def wait_for(
        self,
        holds: Callable[["GoFrontend"], bool] | None = None,
        *,
        count: int = 0,
        last: int | None = None,
        within: float = DEADLINE,
    ) -> None:
        """Return once there are `count` messages, the newest id is at least `last`, and `holds(self)`."""
        try:
            async with asyncio.timeout(within):
                while not (
                    len(self.messages) >= count
                    and (last is None or (self.messages and self.messages[-1]["id"] >= last))
                    and (holds is None or holds(self))
                ):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not within {within} s: {self!r}") from None

    async def wait_closed(self, within: float = DEADLINE) -> int | None:
        """Return the close code once the server has closed the WebSocket."""
        await self.wait_for(lambda frontend: frontend.close_code is not None, within=within)
        return self.close_code

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            while True:
                frame = await socket.receive()
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    if frame.type is aiohttp.WSMsgType.CLOSE:
                        self.close_reason = frame.extra
                    break
                self.frames.append(frame.data)
                self.messages += [json.loads(piece) for piece in frame.data.split("\n")]
                self._changed.set()
        self.close_code = socket.close_code or int(aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
        self._changed.set()
