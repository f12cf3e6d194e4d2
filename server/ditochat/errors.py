"""What can go wrong with a request, in the words that every gateway uses.

:class:`ChatError` is the root; each subclass is one code of the interface, so that an acknowledgement, a
problem document and a close frame say the same thing of the same fault::

    ChatError
    ├── Invalid               the input breaks a rule; names the field
    ├── TooLarge              larger than the limit
    ├── ForbiddenOrigin       a browser page that may not connect
    ├── NotFound              no such resource
    ├── UnsupportedMediaType  a body that is not JSON
    └── Unavailable           try again later; nothing is wrong with the input
"""

from typing import Any, ClassVar

__all__ = [
    "ChatError",
    "ForbiddenOrigin",
    "Invalid",
    "NotFound",
    "TooLarge",
    "Unavailable",
    "UnsupportedMediaType",
]


class ChatError(Exception):
    """A fault that the client is told about: ``code`` for programs, the text for people."""

    code: ClassVar[str]
    status: ClassVar[int]
    """The HTTP status that goes with the code (RFC 9110)."""

    @property
    def message(self) -> str:
        """What is wrong, and what is expected."""
        return str(self)

    def as_json(self) -> dict[str, Any]:
        """Return ``{code, message}`` and what else is known, for an acknowledgement."""
        return {"code": self.code, "message": self.message}


class Invalid(ChatError):
    """The input breaks a rule; ``field`` names where, or is ``None`` for the whole."""

    code = "invalid"
    status = 400

    def __init__(self, problem: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field

    def __str__(self) -> str:
        return self.problem if self.field is None else f"{self.field}: {self.problem}"

    def as_json(self) -> dict[str, Any]:
        """Return ``{code, message, field?}``."""
        known = super().as_json()
        return known if self.field is None else {**known, "field": self.field}


class TooLarge(ChatError):
    """More bytes than ``limit``."""

    code = "too_large"
    status = 413

    def __init__(self, limit: int, what: str = "the message as stored") -> None:
        super().__init__(limit, what)
        self.limit = limit
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is larger than {self.limit} bytes"


class ForbiddenOrigin(ChatError):
    """A browser page of ``origin`` may not connect or publish."""

    code = "forbidden_origin"
    status = 403

    def __init__(self, origin: str) -> None:
        super().__init__(origin)
        self.origin = origin

    def __str__(self) -> str:
        return f"the origin {self.origin} is not allowed; see ALLOWED_ORIGIN"


class NotFound(ChatError):
    """Nothing lives at ``path``."""

    code = "not_found"
    status = 404

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"nothing is at {self.path}"


class UnsupportedMediaType(ChatError):
    """A body of another type than JSON."""

    code = "unsupported_media_type"
    status = 415

    def __init__(self, content_type: str) -> None:
        super().__init__(content_type)
        self.content_type = content_type

    def __str__(self) -> str:
        return f"the content type is {self.content_type}; expected application/json"


class Unavailable(ChatError):
    """Not now: try again after ``retry_after`` seconds."""

    code = "unavailable"
    status = 503

    def __init__(self, reason: str, retry_after: int = 1) -> None:
        super().__init__(reason, retry_after)
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.reason

    def as_json(self) -> dict[str, Any]:
        """Return ``{code, message, retry_after}``, the last in seconds."""
        return {**super().as_json(), "retry_after": self.retry_after}
