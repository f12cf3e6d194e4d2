"""Chromium, by Playwright."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

__all__ = ["chromium", "open_browser"]

# Nothing but the page under test may use the network or the processor.
_QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def chromium() -> str:
    """Return the path of the browser: ``CHROMIUM``, or the one on the PATH."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise RuntimeError("there is no chromium; `make browser` installs it, or says what to do")
    return found


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start Chromium without a window; it is gone afterwards."""
    # Chromium's own sandbox does not work for root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=[*_QUIET, *sandbox])
        try:
            yield browser
        finally:
            await browser.close()
