"""What a Socket.IO client says of itself when it connects: where it stands, and how it wants to recover.

Pure. Either the client keeps ``after`` and ``epoch`` itself, or it asks for ``recovery`` and socket.io-client
keeps ``pid`` and ``offset`` for it (Socket.IO documentation, "Connection state recovery").
"""

import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ditochat.errors import Invalid
from ditochat.validation import convert

__all__ = ["Handshake", "parse_auth"]

_MAX_ID: Final = 2**53 - 1  # what a JavaScript number can count
_OFFSET: Final = re.compile(r"([0-9A-Za-z_-]{1,64}):([0-9]{1,16})")
_PID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")

_Id = Annotated[int, msgspec.Meta(ge=0, le=_MAX_ID)]
_Name = Annotated[str, msgspec.Meta(max_length=64)]


class _Auth(msgspec.Struct):
    # null is what a frontend sends that keeps `let last = null` until the first message.
    after: _Id | None = None
    epoch: _Name | None = None
    recovery: bool | None = None
    pid: str | None = None
    offset: str | None = None


@dataclass(frozen=True, slots=True)
class Handshake:
    """Where a client stands. ``pid`` is ``None`` for a client that has not asked for recovery."""

    after: int | None
    epoch: str | None
    recovery: bool
    pid: str | None

    def answer_pid(self, *, recovered: bool | None) -> str | None:
        """Return the ``pid`` for the CONNECT answer; the same one tells socket.io-client ``recovered``."""
        if not self.recovery:
            return None
        return self.pid if recovered and self.pid else secrets.token_urlsafe(12)


def parse_auth(auth: object) -> Handshake:
    """Read the ``auth`` of a CONNECT packet; fields that are not ours are the frontend's own business.

    Raises:
        Invalid: names the field and what is expected of it.
    """
    if auth is None:
        return Handshake(None, None, recovery=False, pid=None)
    if not isinstance(auth, dict):
        raise Invalid("expected an object", "auth")
    known = convert(auth, _Auth, root="auth")
    if not known.recovery:
        return Handshake(known.after, known.epoch, recovery=False, pid=None)
    pid = known.pid if known.pid is not None and _PID.fullmatch(known.pid) else None
    if pid is None or known.offset is None:
        return Handshake(known.after, known.epoch, recovery=True, pid=None)
    found = _OFFSET.fullmatch(known.offset)
    if found is None or int(found[2]) > _MAX_ID:
        # Another server's offset, say: no position of ours, so no recovery, but no fault either.
        return Handshake(0, "", recovery=True, pid=None)
    return Handshake(int(found[2]), found[1], recovery=True, pid=pid)
