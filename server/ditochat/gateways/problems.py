"""Errors over HTTP: ``application/problem+json`` (RFC 9457)."""

import logging
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from ditochat.errors import ChatError, Invalid, NotFound, TooLarge, Unavailable
from ditochat.message import encode_json

__all__ = ["answer_problems", "meet_expectation", "problem", "server_logger"]

logger = logging.getLogger(__name__)


def problem(error: ChatError, status: int | None = None) -> web.Response:
    """Return the problem document of an error; ``status`` only where HTTP has a more exact one."""
    status = status or error.status
    details = {name: value for name, value in error.as_json().items() if name not in ("code", "message")}
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        # aiohttp reads a header's bytes that are not UTF-8 as lone surrogates, which have no encoding.
        "detail": error.message.encode(errors="replace").decode(),
        "code": error.code,
        **details,
    }
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    return web.Response(
        status=status, body=encode_json(body), content_type="application/problem+json", headers=headers
    )


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem document, aiohttp's own included."""
    try:
        return await handler(request)
    except ChatError as error:
        return problem(error)
    except web.HTTPRequestEntityTooLarge:
        return problem(TooLarge(request.app[BODY_LIMIT], "the body"))
    except web.HTTPNotFound:
        return problem(NotFound(request.path[:200]))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = problem(Invalid(f"{request.method} is not one of {allowed}"), error.status)
        response.headers["Allow"] = allowed
        return response
    except web.HTTPException:
        raise
    except Exception:
        logger.exception("unexpected error at %s %s", request.method, request.path[:200])
        raise


BODY_LIMIT = web.AppKey("BODY_LIMIT", int)
"""The largest body that is read, in bytes."""


async def meet_expectation(request: web.Request) -> None:
    """Answer ``Expect`` (RFC 9110, section 10.1.1).

    aiohttp's own way repeats the header in a text, which fails where its bytes are not UTF-8.
    """
    if request.version != HttpVersion11:
        return
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # so that aiohttp knows that the answer has not begun


def server_logger() -> logging.Logger:
    """Return the logger for aiohttp's server, which calls every request that it cannot read an error."""
    server = logging.getLogger(f"{__name__}.server")
    server.addFilter(_is_ours)
    return server


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell whether the fault is ours; one of the client's is a line, and no traceback, in the log."""
    error = record.exc_info[1] if record.exc_info else None
    # The second: a body that no handler cared for turned out, after the answer, not to be what its headers say.
    if not isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        return True
    logger.info("refused a request that cannot be read: %.200s", str(error).replace("\n", " "))
    return False
