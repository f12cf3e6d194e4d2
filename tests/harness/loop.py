"""What asyncio does not tell about the loop that runs the tests."""

import asyncio

__all__ = ["timers"]


def timers() -> int:
    """Return how many timers the loop has that are not cancelled."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way
    return sum(not handle.cancelled() for handle in scheduled)
