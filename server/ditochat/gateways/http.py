"""HTTP: the history, publishing, health, metrics and the demo page."""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from ditochat.errors import Invalid, NotFound, Unavailable, UnsupportedMediaType
from ditochat.gateways.problems import meet_expectation
from ditochat.gateways.publisher import Publisher
from ditochat.log.follower import Follower
from ditochat.message import MAX_NONCE_CHARACTERS, Draft, draft_from_json, encode_json
from ditochat.metrics import CONTENT_TYPE, Metrics
from ditochat.timeline import Timeline

__all__ = ["HttpGateway", "file_response", "find_file"]

# SPEC, section 5: "?at_least=ID ... or 503 after 2 s".
AT_LEAST_SECONDS: Final = 2.0
# Below this gzip saves less than its header costs.
MIN_GZIP_BYTES: Final = 1024
# 200 KB take 2 ms at level 1 and 5 ms at level 6, for 20 % less; it is done once a message.
GZIP_LEVEL: Final = 1
_JSON: Final = "application/json"
_MAX_ID: Final = 2**53 - 1  # what a JavaScript number can count
_MAX_ID_DIGITS: Final = len(str(_MAX_ID))


class HttpGateway:
    """The handlers; ``trouble`` tells why this instance is not ready, or ``None``."""

    def __init__(
        self,
        follower: Follower,
        publisher: Publisher,
        metrics: Metrics,
        *,
        trouble: Callable[[], str | None],
        demo: Path,
    ) -> None:
        self._follower = follower
        self._timeline = follower.timeline
        self._publisher = publisher
        self._metrics = metrics
        self._trouble = trouble
        self._demo = demo
        self._history = _HistoryCache(follower.timeline)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes of section 5 of the contract."""
        return [
            web.get("/messages", self.get_messages, expect_handler=meet_expectation),
            web.post("/messages", self.post_message, expect_handler=meet_expectation),
            web.get("/healthz", self.get_health, expect_handler=meet_expectation),
            web.get("/readyz", self.get_readiness, expect_handler=meet_expectation),
            web.get("/metrics", self.get_metrics, expect_handler=meet_expectation),
            web.get("/", self.get_page, expect_handler=meet_expectation),
            web.route("*", "/{name:.+}", self.get_page, expect_handler=meet_expectation),
        ]

    async def get_messages(self, request: web.Request) -> web.Response:
        """Return the history, newest first; from memory, so also while Redis is away."""
        query = request.query
        limit = _number(query, "limit", 1) or self._timeline.capacity
        before, after = _number(query, "before", 0), _number(query, "after", 0)
        at_least = _number(query, "at_least", 0)
        if at_least is not None:
            await self._wait_for(at_least)
        if self._timeline.epoch is None:
            raise Unavailable("the log was not read yet: Redis is out of reach")
        etag = f'W/"{self._timeline.epoch}.{self._timeline.last_id}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if _matches(request.headers.get("If-None-Match"), etag):
            return web.Response(status=304, headers=headers)
        body = self._history.body(limit, before, after)
        if len(body) >= MIN_GZIP_BYTES and _accepts_gzip(request.headers.get("Accept-Encoding", "")):
            body = await self._history.gzipped(body)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, content_type=_JSON, charset="utf-8", headers=headers)

    async def post_message(self, request: web.Request) -> web.Response:
        """Store one message; the answer is the message as stored."""
        if request.content_type != _JSON and not request.content_type.endswith("+json"):
            raise UnsupportedMediaType(request.headers.get("Content-Type", "missing"))
        nonce = request.headers.get("Idempotency-Key")
        if nonce is not None and not 1 <= len(nonce) <= MAX_NONCE_CHARACTERS:
            raise Invalid(f"expected 1 to {MAX_NONCE_CHARACTERS} characters", "Idempotency-Key")
        try:
            body = await request.read()
        except web.RequestPayloadError:
            raise Invalid("expected a body that is encoded as its Content-Encoding says") from None

        def draft() -> Draft:
            return draft_from_json(body, max_bytes=self._publisher.max_message_bytes, nonce=nonce)

        appended = await self._publisher.publish(draft)
        # A repeat of what is older than the history: its id is all that is left of it.
        text = appended.text or encode_json({"id": appended.id})
        return web.Response(
            status=200 if appended.duplicate else 201, body=text, content_type=_JSON, charset="utf-8"
        )

    async def get_health(self, _request: web.Request) -> web.Response:
        """Answer while the process is alive."""
        return _json({"status": "alive"})

    async def get_readiness(self, _request: web.Request) -> web.Response:
        """Tell whether this instance should get clients, and if not, why."""
        trouble = self._trouble()
        if trouble is not None:
            return _json({"status": "not ready", "reason": trouble}, status=503)
        timeline = self._timeline
        return _json({"status": "ready", "epoch": timeline.epoch, "last_id": timeline.last_id})

    async def get_metrics(self, _request: web.Request) -> web.Response:
        """Return the metrics in Prometheus' text format."""
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def get_page(self, request: web.Request) -> web.StreamResponse:
        """Serve the demo page and what belongs to it."""
        path = find_file(self._demo, request.match_info.get("name", "index.html"))
        if path is None or request.method not in ("GET", "HEAD"):
            raise NotFound(request.path[:200])
        return file_response(request, path)

    async def _wait_for(self, message_id: int) -> None:
        timeline = self._timeline
        if not await self._follower.wait_for(lambda: timeline.last_id >= message_id, AT_LEAST_SECONDS):
            raise Unavailable(f"the message {message_id} has not arrived here yet")


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name; ``None`` where there is none in the folder."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError):  # no file can have this name: it is too long, or has a NUL in it
        return None


def file_response(request: web.Request, path: Path) -> web.StreamResponse:
    """Serve a file.

    Raises:
        Invalid: a date in the request's conditions has numbers that aiohttp does not expect.
    """
    try:
        _ = request.if_modified_since, request.if_unmodified_since, request.if_range
    except OverflowError:
        raise Invalid("expected HTTP dates in the conditions of the request") from None
    return web.FileResponse(path, headers={"Cache-Control": "no-cache"})


class _HistoryCache:
    """The whole history as JSON, made once a message; parts of it are made when asked for."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._of: tuple[str | None, int] | None = None
        self._body = b""
        self._gzipped: asyncio.Task[bytes] | None = None

    def body(self, limit: int, before: int | None, after: int | None) -> bytes:
        """Return the JSON array of the messages asked for."""
        timeline = self._timeline
        if before is not None or after is not None or limit < timeline.capacity:
            return _array(timeline, limit, before, after)
        if self._of != (timeline.epoch, timeline.last_id):
            self._of = (timeline.epoch, timeline.last_id)
            self._body = _array(timeline, timeline.capacity, None, None)
            self._gzipped = None
        return self._body

    async def gzipped(self, body: bytes) -> bytes:
        """Compress a body of :meth:`body`, the whole history once for all who ask."""
        if body is not self._body:
            return await asyncio.to_thread(_gzip, body)
        if self._gzipped is None:
            self._gzipped = asyncio.get_running_loop().create_task(asyncio.to_thread(_gzip, body))
        return await asyncio.shield(self._gzipped)


def _array(timeline: Timeline, limit: int, before: int | None, after: int | None) -> bytes:
    messages = timeline.newest_first(limit, before=before, after=after)
    return b"[" + b",".join([message.text for message in messages]) + b"]"


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, GZIP_LEVEL, wbits=31)


def _number(query: Mapping[str, str], name: str, least: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (
        text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS and least <= int(text) <= _MAX_ID
    ):
        raise Invalid(f"expected a whole number of {least} or more, got {text[:40]!r}", name)
    return int(text)


def _matches(if_none_match: str | None, etag: str) -> bool:
    """Compare weakly (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/") in {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}


def _accepts_gzip(accept_encoding: str) -> bool:
    """Read Accept-Encoding as far as gzip is concerned (RFC 9110, section 12.5.3)."""
    weights: dict[str, str] = {}
    for offer in accept_encoding.lower().split(","):
        coding, _, weight = offer.partition(";")
        weights[coding.strip()] = weight.replace(" ", "")
    # The star speaks of the codings that are not named, wherever it stands.
    weight = weights.get("gzip", weights.get("*", "q=0"))
    return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=encode_json(value), content_type=_JSON, headers={"Cache-Control": "no-store"}
    )
