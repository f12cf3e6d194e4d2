"""Errors over HTTP: ``application/problem+json`` (RFC 9457)."""

import logging
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ditochat.errors import ChatError, Invalid, NotFound, TooLarge, Unavailable
from ditochat.message import encode_json

__all__ = ["answer_problems", "problem"]

logger = logging.getLogger(__name__)


def problem(error: ChatError, status: int | None = None) -> web.Response:
    """Return the problem document of an error; ``status`` only where HTTP has a more exact one."""
    status = status or error.status
    details = {name: value for name, value in error.as_json().items() if name not in ("code", "message")}
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
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
