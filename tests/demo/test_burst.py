"""A burst of 1000 messages leaves the page smooth."""

from playwright.async_api import Page, expect

from tests.conftest import StartInstances
from tests.demo.conftest import NewPage

LONGEST_TASK = 200  # milliseconds
# Set up before the page's own scripts; what the page does is not touched.
OBSERVE = """
  window.longTasks = [];
  new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((task) => task.duration)))
    .observe({ type: "longtask", buffered: true });
"""


async def longest_task(page: Page) -> float:
    """Return how long the page was busy at most without a pause, in milliseconds."""
    longest: float = await page.evaluate("Math.max(0, ...window.longTasks)")
    return longest


async def test_a_burst_of_1000_is_smooth(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    await page.page.add_init_script(OBSERVE)
    client = await page.open(instance.base_url)
    await page.burst(1000, 500)
    await client.expect_last(1000)
    await expect(client.messages).to_have_count(1000)
    await client.expect_row("Gaps seen", "0")
    assert await longest_task(page.page) <= LONGEST_TASK


async def test_two_clients_with_a_burst_of_another_browser_are_smooth(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    sending = await new_page()
    await sending.open(instance.base_url)
    page = await new_page()
    await page.page.add_init_script(OBSERVE)
    first = await page.open(instance.base_url)
    second = await page.add_client(2)
    await sending.burst(1000, 500)
    for client in (first, second):
        await client.expect_last(1000)
        await client.expect_row("Gaps seen", "0")
    assert await longest_task(page.page) <= LONGEST_TASK


async def test_a_burst_can_be_stopped(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    await page.tools.get_by_role("spinbutton", name="Per second").fill("20")
    await page.button("Send burst").click()
    await expect(client.messages).not_to_have_count(0)
    await page.button("Stop burst").click()
    await expect(page.tools).to_contain_text("0 failed")
    assert len(await instance.messages()) < 1000
