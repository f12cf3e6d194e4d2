"""A browser, and demo pages in it: each with cookies and storage of its own."""

from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from playwright.async_api import Browser, expect

from tests.demo.demo_page import DemoPage
from tests.harness.browser import open_browser

expect.set_options(timeout=10_000)


class NewPage(Protocol):
    """`await new_page(color_scheme="dark")`: an empty page in a browser profile of its own."""

    async def __call__(self, **options: object) -> DemoPage: ...


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest.fixture
async def new_page(browser: Browser) -> AsyncIterator[NewPage]:
    pages: list[DemoPage] = []

    async def new(**options: object) -> DemoPage:
        context = await browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})  # type: ignore[arg-type]  # options by name
        page = DemoPage(await context.new_page())
        pages.append(page)
        return page

    yield new
    assert not [error for page in pages for error in page.errors]
