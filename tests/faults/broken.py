"""The program with one promise broken on purpose: `python broken.py WHICH serve ...`.

What runs is the server itself but for a few lines; a harness that is worth something notices.
"""

import asyncio
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ditochat.cli import main
from ditochat.log.appender import Appended, Appender
from ditochat.log.follower import Follower
from ditochat.message import Draft, StoredMessage
from ditochat.timeline import Placement

__all__ = ["BROKEN"]


def publish_locally_first() -> None:
    """Deliver to one's own clients what one has stored, before it comes back from the log: as stock managers do."""
    own: set[bytes] = set()
    answer_truly = Appender._answer  # noqa: SLF001 - this file breaks things

    def answer(
        self: Appender, future: "asyncio.Future[Appended]", message_id: int, outcome: int, text: bytes
    ) -> None:
        if outcome == 0:
            own.add(text)
            self._follower._listener.appended(StoredMessage.parse(text))  # noqa: SLF001
        answer_truly(self, future, message_id, outcome, text)

    def append(self: Follower, message: StoredMessage) -> bool:
        placement = self.timeline.append(message)
        if placement is Placement.APPENDED:
            if message.text not in own:
                self._listener.appended(message)
            self._wake()
        return placement in (Placement.APPENDED, Placement.KNOWN)

    _replace(Appender, "_answer", answer)
    _replace(Follower, "_append", append)


def no_tail_check() -> None:
    """Never compare the newest id with Redis' own: what is not heard of is noticed with the next message only."""

    async def check_tail(_self: Follower) -> None:
        pass

    _replace(Follower, "_check_tail", check_tail)


def no_nonce() -> None:
    """Store what is sent again a second time."""
    submit_truly, try_truly = Appender.submit, Appender._try  # noqa: SLF001

    def submit(self: Appender, draft: Draft, **options: Any) -> "asyncio.Future[Appended]":
        return submit_truly(self, dataclasses.replace(draft, nonce=None), **options)

    async def try_(self: Appender, batch: Sequence[Any], batch_nonce: str) -> bool:
        return await try_truly(self, batch, f"{batch_nonce}-{asyncio.get_running_loop().time()}")

    _replace(Appender, "submit", submit)
    _replace(Appender, "_try", try_)


def _replace(owner: type, name: str, function: Callable[..., Any]) -> None:
    if not callable(getattr(owner, name)):
        raise TypeError(f"{owner.__name__}.{name} is not what it was")
    setattr(owner, name, function)


BROKEN = {
    "publish locally first": publish_locally_first,
    "no tail check": no_tail_check,
    "no nonce": no_nonce,
}


if __name__ == "__main__":
    BROKEN[sys.argv[1]]()
    sys.argv[1:] = sys.argv[2:]
    sys.exit(main())
