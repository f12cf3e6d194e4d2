"""An event loop whose clock jumps to the next timer when nothing is left to do: minutes cost nothing."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["VirtualTimeLoop"]


class _Jump(selectors.DefaultSelector):
    """Nothing is ever ready: where the loop would sleep, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("something is waited for that will never come")
        self.passed += timeout
        return []


class _AtOnce(ThreadPoolExecutor):
    """Does in the loop's own thread what it is given: no thread could wake the loop."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
            done.set_exception(error)
        return done


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For what does no input and output of its own: there is none here.

    ``escaped`` has what nobody caught in callbacks and tasks.
    """

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self.escaped: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.escaped.append(context))
        self.set_default_executor(_AtOnce(1))

    def time(self) -> float:
        """Return the seconds that were waited for so far."""
        return self._jump.passed

    def raise_escaped(self) -> None:
        """Raise what escaped since the last time."""
        if self.escaped:
            context = self.escaped[0]
            self.escaped.clear()
            error = context.get("exception")
            if isinstance(error, BaseException):
                raise error
            raise AssertionError(context["message"])
