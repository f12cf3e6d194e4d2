"""The list of messages: older ones on scrolling up, what is new while scrolled away, many of them."""

from playwright.async_api import expect

from tests.conftest import StartInstances
from tests.demo.conftest import NewPage
from tests.demo.demo_page import Client
from tests.harness.instance import Instance


async def fill(instance: Instance, count: int) -> None:
    """Publish that many messages, in order."""
    async with instance.http() as http:
        for number in range(1, count + 1):
            async with http.post("/messages", json=f"message {number}") as answer:
                answer.raise_for_status()


async def scroll_up(client: Client) -> None:
    """Turn the wheel until the oldest message that is kept is there."""
    await client.log.hover()
    note = client.log.get_by_text("This is the oldest message that is kept.")
    while not await note.is_visible():
        await client.region.page.mouse.wheel(0, -2000)
        await client.region.page.evaluate("new Promise(requestAnimationFrame)")  # one turn a frame


async def test_older_messages_are_loaded_on_scrolling_up(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    await fill(instance, 350)
    client = await (await new_page()).open(instance.base_url)
    await client.expect_last(350)
    assert await client.ids() == list(range(251, 351))
    await scroll_up(client)
    assert await client.ids() == list(range(1, 351))


async def test_the_place_stays_while_older_messages_are_loaded(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    await fill(instance, 200)
    client = await (await new_page()).open(instance.base_url)
    await client.expect_last(200)
    # By keyboard: the log takes the focus, Home goes to its start.
    await client.log.focus()
    await client.log.press("Home")
    await expect(client.messages).to_have_count(200)
    await expect(client.messages.nth(100)).to_contain_text("message 101")
    await expect(client.messages.nth(100)).to_be_in_viewport()


async def test_new_messages_are_counted_while_scrolled_away(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    await fill(instance, 60)
    client = await (await new_page()).open(instance.base_url)
    await client.expect_last(60)
    await expect(client.messages.last).to_be_in_viewport()
    await expect(client.unread).to_have_count(0)
    await client.log.hover()
    await client.region.page.mouse.wheel(0, -1500)
    await expect(client.messages.last).not_to_be_in_viewport()
    await instance.publish("news 1")
    await instance.publish("news 2")
    await expect(client.unread).to_have_text("2 new messages")
    await expect(client.messages.last).not_to_be_in_viewport()
    await client.unread.click()
    await expect(client.messages.last).to_be_in_viewport()
    await expect(client.messages.last).to_contain_text("news 2")
    await expect(client.unread).to_have_count(0)
    await instance.publish("news 3")
    await expect(client.messages.last).to_contain_text("news 3")
    await expect(client.messages.last).to_be_in_viewport()


async def test_a_thousand_messages_are_held_and_no_more(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    await fill(instance, 1000)
    client = await (await new_page()).open(instance.base_url)
    await client.expect_last(1000)
    await scroll_up(client)
    assert await client.ids() == list(range(1, 1001))
    await client.log.press("End")
    await client.send("one more")
    await client.expect_last(1001)
    assert await client.ids() == list(range(2, 1002))
