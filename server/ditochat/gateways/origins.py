"""Which browser pages may connect: the policy behind ALLOWED_ORIGIN.

Pure. Browsers send ``Origin`` (RFC 6454) and cannot be made to lie about it; other programs need not send it,
and are not kept out by it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from ditochat.errors import ForbiddenOrigin

__all__ = ["OriginPolicy"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_EXPOSED: Final = "ETag, Retry-After"


class OriginPolicy:
    """Allows the page's own host always, and ``allowed`` besides; ``*`` is any.

    ``headers`` have lower-case names, or find them in any case.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(origin.lower() for origin in allowed)

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse a request that a page of another origin makes.

        Raises:
            ForbiddenOrigin: its origin is not allowed.
        """
        origin = headers.get("origin")
        if origin is not None and not self._allows(origin, headers):
            raise ForbiddenOrigin(origin)

    def response_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return what lets the page read the answer (Fetch standard, section 3.2: CORS protocol)."""
        origin = headers.get("origin")
        if self._any:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _EXPOSED}
        if origin is None or not self._allows(origin, headers):
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": _EXPOSED,
            "Vary": "Origin",
        }

    def preflight_headers(self, headers: Mapping[str, str], methods: str) -> dict[str, str]:
        """Return the answer to an OPTIONS request that asks before the real one.

        Raises:
            ForbiddenOrigin: its origin is not allowed.
        """
        self.check(headers)
        return {
            **self.response_headers(headers),
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Content-Type, Idempotency-Key, If-None-Match",
            "Access-Control-Max-Age": "600",
        }

    def _allows(self, origin: str, headers: Mapping[str, str]) -> bool:
        if self._any or origin.lower() in self._allowed:
            return True
        # Behind a proxy that ends TLS the scheme of the request is not that of the page, so hosts decide.
        hosts = (headers.get("host"), headers.get("x-forwarded-host"))
        return any(host is not None and _is_at(origin, host) for host in hosts)


@lru_cache(maxsize=64)  # after a restart thousands come from the same page; a header may have kilobytes
def _is_at(origin: str, host: str) -> bool:
    scheme, authority = _split(origin)
    return authority is not None and _authority(scheme, host) == authority


def _split(origin: str) -> tuple[str, tuple[str, int | None] | None]:
    scheme, separator, host = origin.partition("://")
    return (scheme.lower(), _authority(scheme.lower(), host)) if separator else ("", None)


def _authority(scheme: str, host: str) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(f"//{host.strip()}")
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.hostname, port or _DEFAULT_PORTS.get(scheme)
