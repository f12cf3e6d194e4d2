"""Publishing on behalf of a client, whatever protocol it speaks; counts what became of it."""

from collections.abc import Callable

from ditochat.errors import ChatError
from ditochat.log.appender import Appended, Appender
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
        """Check and store a message; checked at once, so that calls in order are stored in order.

        Raises:
            ChatError: the draft is refused, or Redis does not answer in time.
        """
        try:
            appended = await self._appender.append(draft())
        except ChatError as error:
            self._errors.labels(self._gateway, error.code).inc()
            raise
        self._stored.inc()
        return appended
