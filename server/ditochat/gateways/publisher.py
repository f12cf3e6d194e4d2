"""Publishing on behalf of a client, whatever protocol it speaks; counts what became of it."""

import asyncio
from collections.abc import Callable

from ditochat.errors import ChatError
from ditochat.log.appender import DEADLINE_SECONDS, Appended, Appender
from ditochat.message import Draft
from ditochat.metrics import Metrics

__all__ = ["Publisher"]


class Publisher:
    """One gateway's way to the log. ``max_message_bytes`` is what a message may take up as stored."""

    def __init__(self, appender: Appender, metrics: Metrics, gateway: str, max_message_bytes: int) -> None:
        self.max_message_bytes = max_message_bytes
        self._appender = appender
        self._stored = metrics.publishes.labels(gateway)
        self._errors = metrics.publish_errors
        self._gateway = gateway

    async def publish(self, draft: Callable[[], Draft]) -> Appended:
        """Check and store a message.

        Raises:
            ChatError: the draft is refused, or Redis does not answer in time.
        """
        return await self.submit(draft)

    def submit(
        self, draft: Callable[[], Draft], *, seconds: float = DEADLINE_SECONDS
    ) -> "asyncio.Future[Appended]":
        """Check and hand in a message; the order of these calls is the order in the log.

        It is answered within ``seconds``.

        Raises:
            ChatError: the draft is refused. What goes wrong later is the future's exception.
        """
        try:
            answer = self._appender.submit(draft(), seconds=seconds)
        except ChatError as error:
            self._count_error(error)
            raise
        answer.add_done_callback(self._count)
        return answer

    def _count(self, answer: "asyncio.Future[Appended]") -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self._stored.inc()
        elif isinstance(error, ChatError):
            self._count_error(error)

    def _count_error(self, error: ChatError) -> None:
        self._errors.labels(self._gateway, error.code).inc()
