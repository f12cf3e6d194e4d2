"""A client of the page: chatting, its name, losing the network, its transport."""

import re

import pytest
from playwright.async_api import expect

from tests.conftest import StartInstances
from tests.demo.conftest import NewPage
from tests.demo.demo_page import Client
from tests.harness.instance import Instance
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy

TRANSPORTS = {
    "Upgrade": "websocket",
    "WebSocket": "websocket",
    "Polling": "polling",
    "Plain /ws": "plain /ws",
}


async def test_two_browsers_chat(instances: StartInstances, new_page: NewPage) -> None:
    first, second = await instances(2)
    here = await (await new_page()).open(first.base_url)
    there = await (await new_page()).open(second.base_url)
    await here.name.fill("tester")
    await here.send("hello from here")
    message = await there.expect_message("hello from here")
    await expect(message).to_contain_text("tester")
    await expect(message.get_by_role("time")).to_have_text(re.compile(r"\d+:\d\d"))
    await there.send("hello from there")
    await here.expect_message("hello from there")
    assert await here.ids() == await there.ids() == [1, 2]


async def test_an_own_message_is_confirmed_by_its_id(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    client = await (await new_page()).open(instance.base_url)
    await client.send("mine")
    message = await client.expect_message("mine")
    await expect(message).to_contain_text("(you)")
    await expect(message).to_contain_text("#1 stored")
    await expect(client.outbox).to_have_count(0)


async def test_reload_keeps_the_history_and_the_name(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    await client.name.fill("frontend")
    await client.send("before the reload")
    await client.expect_message("before the reload")
    await page.page.reload()
    await client.expect_connected()
    await expect(await client.expect_message("before the reload")).to_contain_text("(you)")
    await expect(client.name).to_have_value("frontend")


async def test_a_message_stays_text_and_its_links_can_be_followed(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    page = await new_page()
    dialogs: list[str] = []
    page.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    client = await page.open(instance.base_url)
    attack = '<script>alert(1)</script><img src="x" onerror="alert(2)"> javascript:alert(3)'
    await instance.publish({"text": attack, "title": "<b>bold</b>", "uid": "<i>u</i>"})
    await instance.publish({"text": "see http://localhost/readyz?a=b, and (https://example.org/x)."})
    message = client.messages.first
    await expect(message).to_contain_text(attack)
    await expect(message).to_contain_text("<b>bold</b>")
    await expect(message.get_by_role("link")).to_have_count(0)
    await expect(message.get_by_role("img")).to_have_count(0)
    links = client.messages.nth(1).get_by_role("link")
    await expect(links).to_have_text(["http://localhost/readyz?a=b", "https://example.org/x"])
    assert not dialogs


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cut_connection_loses_and_doubles_nothing(
    transport: str, instances: StartInstances, new_page: NewPage
) -> None:
    first, second = await instances(2)
    async with TcpProxy(first.port) as network:
        client = await (await new_page()).open(network.url)
        await client.switch_to(transport)
        await client.expect_row("Transport in use", TRANSPORTS[transport])
        await client.send("before")
        await client.expect_last(1)
        network.refuse()
        await network.cut()
        await expect(client.state).not_to_have_text("connected")
        await client.send("while away")
        await expect(client.outbox).to_contain_text("pending")
        for number in range(5):
            await second.publish(f"missed {number}")
        network.retarget(second.port)
        await network.accept()
        await client.expect_message("while away")
        await client.expect_last(7)
        assert await client.ids() == list(range(1, 8))
        await expect(client.outbox).to_have_count(0)
        await client.expect_row("Gaps seen", "0")


async def lose_and_return(client: Client, instance: Instance, *, missed: int) -> None:
    """Publish what a client that is away misses; the caller brings it back."""
    await expect(client.state).not_to_have_text("connected")
    for number in range(missed):
        await instance.publish(f"missed {number}")


async def test_a_browser_without_network_catches_up(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    await client.send("before")
    await client.expect_last(1)
    await page.page.context.set_offline(True)
    await lose_and_return(client, instance, missed=5)
    await page.page.context.set_offline(False)
    await client.expect_last(6)
    assert await client.ids() == list(range(1, 7))
    await client.expect_row("Replayed", "5")
    await client.expect_row("Gaps seen", "0")


async def test_a_dropped_connection_comes_back_by_itself(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    client = await (await new_page()).open(instance.base_url)
    await client.send("before")
    await client.expect_last(1)
    await client.button("Drop connection").click()
    await lose_and_return(client, instance, missed=1)
    await client.expect_last(2)
    assert await client.ids() == [1, 2]
    await client.expect_row("Reconnections", "1")


async def test_a_client_goes_offline_and_comes_back(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    client = await (await new_page()).open(instance.base_url)
    await client.button("Go offline").click()
    await expect(client.state).to_have_text("offline")
    await lose_and_return(client, instance, missed=3)
    await expect(client.messages).to_have_count(0)
    await client.button("Come back").click()
    await client.expect_last(3)
    assert await client.ids() == [1, 2, 3]
    await client.expect_row("Replayed", "3")


async def test_a_connection_lost_while_the_history_is_fetched_loses_nothing(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances(HISTORY_LIMIT=10)
    page = await new_page()
    client = await page.open(instance.base_url)
    await client.button("Go offline").click()
    await lose_and_return(client, instance, missed=30)  # more than a replay has
    await page.page.route("**/messages?*", lambda route: route.abort())
    await client.button("Come back").click()
    await expect(client.state).to_have_text("connected")
    await instance.publish("live, while the history is fetched")
    await client.button("Drop connection").click()
    await client.expect_row("Reconnections", "2")
    await page.page.unroute("**/messages?*")
    await client.expect_last(31)
    assert await client.ids() == list(range(22, 32))


async def test_the_transport_is_switched_without_a_loss(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    client = await (await new_page()).open(instance.base_url)
    sent = 0
    for label, name in [*TRANSPORTS.items(), ("WebSocket", "websocket")]:
        await client.switch_to(label)
        await client.expect_row("Transport in use", name)
        sent += 1
        await client.send(f"over {label}, {sent}")
        await client.expect_last(sent)
    assert await client.ids() == list(range(1, sent + 1))
    await client.expect_row("Duplicates dropped", "0")


async def test_a_failed_message_that_is_sent_again_is_stored_once(
    instances: StartInstances, redis_server: RedisServer, new_page: NewPage
) -> None:
    # Redis takes the message and does not answer, so nobody knows whether it was stored.
    (instance,) = await instances()
    client = await (await new_page()).open(instance.base_url)
    redis_server.pause()
    await client.send("once")
    await expect(client.outbox).to_contain_text("pending: unavailable")
    await expect(client.outbox).to_contain_text("failed: unavailable", timeout=15_000)
    await client.send_again.click()
    redis_server.resume()
    await client.expect_message("once")
    await client.send("after")
    await client.expect_message("after")
    assert [message["text"] for message in await instance.messages()] == ["after", "once"]


async def test_a_message_that_can_not_be_stored_says_why(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances(MAX_MESSAGE_BYTES=300)
    client = await (await new_page()).open(instance.base_url)
    await client.send("x" * 400)
    await expect(client.outbox).to_contain_text("failed: too_large")
    await expect(client.send_again).to_be_visible()
    await client.switch_to("Plain /ws")
    await client.send("y" * 400)
    await expect(client.outbox.nth(1)).to_contain_text("failed: too_large")


async def test_clients_are_added_and_removed(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    first = await page.open(instance.base_url)
    second = await page.add_client(2)
    third = await page.add_client(3)
    await second.send("to all")
    for client in (first, second, third):
        await client.expect_message("to all")
    await second.button("Remove client 2").click()
    await expect(second.region).to_have_count(0)
    await third.send("to the others")
    await first.expect_message("to the others")
    metrics = await instance.metrics()
    assert metrics['ditochat_connections{transport="websocket"}'] == 2


async def test_the_panel_tells_of_the_connection(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    client = await (await new_page()).open(instance.base_url)
    await client.send("one")
    await client.expect_row("Last id", "1")
    await client.expect_row("Round trip", re.compile(r"^\d+\.\d ms$"))
    await client.expect_row("Instance", re.compile(r"^(?!unknown)\S+$"))
    await client.expect_row("Transport in use", "websocket")
    await client.expect_row("Reconnections", "0")


async def test_another_life_of_the_log_begins_the_list_anew(
    instances: StartInstances, redis_server: RedisServer, new_page: NewPage
) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    plain = await page.add_client(2)
    await plain.switch_to("Plain /ws")
    for number in range(3):
        await instance.publish(f"old {number}")
    await client.expect_last(3)
    await plain.expect_last(3)
    async with redis_server.client() as redis:
        await redis.flushall()
    await instance.publish("new life")
    for each in (client, plain):
        await each.expect_message("new life")
        await each.expect_last(1)
        assert await each.ids() == [1]
