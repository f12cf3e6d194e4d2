"""`python -m tests.demo.screenshots`: the pictures of the demo page in docs/images/, of a real server."""

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import Browser, ViewportSize, expect

from tests.demo.demo_page import DemoPage
from tests.harness.browser import open_browser
from tests.harness.instance import Instance

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SIZES: dict[str, ViewportSize] = {
    "wide": {"width": 1440, "height": 1440},
    "narrow": {"width": 390, "height": 844},
}
# Client, text: the tester has the first client, the frontend the second one.
CONVERSATION = [
    (1, "Build 41 is on staging. I take the chat first, then the phone layout."),
    (2, "Reconnecting is new there: please drop the connection while a burst runs."),
    (1, "Did that three times: nothing is missing, nothing is there twice."),
    (2, "Then https://socket.io/docs/v4/connection-state-recovery does what it says."),
    (
        1,
        "One thing: a very long link like https://example.org/a/path/that/goes/on/and/on breaks the line late.",
    ),
    (2, "Seen, mended in build 42."),
]


async def take(browser: Browser, instance: Instance, scheme: str, size: str) -> None:
    """Talk a little, and write one picture."""
    context = await browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light", viewport=SIZES[size], locale="en-GB"
    )
    page = DemoPage(await context.new_page())
    tester = await page.open(instance.base_url)
    await tester.name.fill("tester")
    frontend = await page.add_client(2)
    await frontend.name.fill("frontend")
    await page.burst(200, 50)
    await page.button("Send one message twice").click()
    await page.expect_kept("G5")
    wide = size == "wide"  # a phone has the connection folded away
    if wide:
        await frontend.button("Go offline").click()
    for message in ("Redis is on its new machine since 9.", "Watching the delay while you test."):
        await instance.publish({"text": message, "title": "ops", "uid": "ops"})
    if wide:
        await frontend.button("Come back").click()
    await frontend.expect_connected()
    for number, text in CONVERSATION:
        await (tester, frontend)[number - 1].send(text)
        for client in (tester, frontend):
            await expect(client.messages.last).to_contain_text(text)
    await page.page.evaluate("scrollTo(0, 0)")
    await page.page.screenshot(path=IMAGES / f"demo-{scheme}-{size}.png")
    await context.close()


async def main() -> None:
    """Write all of them, each with a log of its own."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with open_browser() as browser:
        for scheme in ("light", "dark"):
            for size in SIZES:
                with tempfile.TemporaryDirectory() as directory:
                    instance = Instance(Path(directory))
                    await instance.start()
                    try:
                        await take(browser, instance, scheme, size)
                    finally:
                        await instance.end()


if __name__ == "__main__":
    asyncio.run(main())
