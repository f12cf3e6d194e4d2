"""Waiting for what has no event to wait for."""

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["DEADLINE", "eventually", "until"]

DEADLINE = 20.0  # seconds; what a wait in a test may take before it is a failure
_PAUSE = 0.02  # seconds between two looks


async def eventually(
    holds: Callable[[], Awaitable[bool]],
    *,
    within: float = DEADLINE,
    otherwise: Callable[[], str],
) -> None:
    """Return once `holds()`; raise TimeoutError with the text of `otherwise()` after `within` seconds."""
    try:
        async with asyncio.timeout(within):
            while not await holds():  # noqa: ASYNC110 - processes set no event
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise TimeoutError(f"not within {within} s: {otherwise()}") from None


async def until(holds: Callable[[], bool], otherwise: Callable[[], str] = lambda: "it is not so") -> None:
    """Do as :func:`eventually`, for what is known in this process."""

    async def look() -> bool:
        return holds()

    await eventually(look, otherwise=otherwise)
