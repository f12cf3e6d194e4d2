"""The loop that waits for nobody."""

import asyncio
import time

import pytest

from tests.fuzz.virtual_time import VirtualTimeLoop


def test_minutes_pass_at_once_and_in_order() -> None:
    loop = VirtualTimeLoop()
    passed: list[float] = []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        passed.append(loop.time())

    async def all_of_them() -> None:
        await asyncio.gather(wait(600), wait(60), wait(0.5), asyncio.to_thread(passed.append, 0))

    begun = time.monotonic()
    loop.run_until_complete(all_of_them())
    loop.close()
    assert passed == pytest.approx([0, 0.5, 60, 600])
    assert time.monotonic() - begun < 10


def test_waiting_for_what_never_comes_is_an_error() -> None:
    loop = VirtualTimeLoop()
    with pytest.raises(AssertionError, match="never come"):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_what_escapes_a_callback_is_raised() -> None:
    loop = VirtualTimeLoop()
    loop.call_soon(lambda: 1 // 0)
    loop.run_until_complete(asyncio.sleep(1))
    with pytest.raises(ZeroDivisionError):
        loop.raise_escaped()
    loop.raise_escaped()
    loop.close()
