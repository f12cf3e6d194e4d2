"""The checklist ticks itself by what really happens, and only then."""

import asyncio

import pytest
from playwright.async_api import WebSocketRoute, expect

from tests.conftest import StartInstances
from tests.demo.conftest import NewPage
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy


async def test_nothing_is_ticked_without_evidence(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    await page.open(instance.base_url)
    assert await page.kept() == []
    await page.add_client(2)
    await expect(page.promises.get_by_role("listitem")).to_have_count(9)
    # Two clients, reconnecting, and a few messages are not enough for what is ticked below.
    for number in range(3):
        await instance.publish(f"few {number}")
    await page.client(1).button("Drop connection").click()
    await page.client(1).expect_row("Reconnections", "1")
    await page.client(1).expect_last(3)
    assert await page.kept() == []


async def test_a_burst_with_two_clients_ticks_order_gaps_and_storage(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    page = await new_page()
    await page.open(instance.base_url)
    await page.add_client(2)
    await page.burst(50, 100)
    for name in ("G1", "G2", "G4"):
        await page.expect_kept(name)
    assert await page.kept() == ["G1", "G2", "G4"]


@pytest.mark.parametrize("transport", ["Upgrade", "Plain /ws"])
async def test_a_replay_ticks_reconnecting(
    transport: str, instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    await client.switch_to(transport)
    await client.button("Go offline").click()
    await expect(client.state).to_have_text("offline")
    for number in range(4):
        await instance.publish(f"missed {number}")
    await client.button("Come back").click()
    await page.expect_kept("G3")
    await expect(page.promise("G3")).to_contain_text("the 4 messages that it had missed")
    assert await page.kept() == ["G3"]


async def test_a_gap_breaks_the_promise_and_stays_on_record(
    instances: StartInstances, new_page: NewPage
) -> None:
    # A network that leaves a message out: the page must not believe what it is told.
    (instance,) = await instances()
    page = await new_page()

    def without_the_second(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: None if '"text":"m2"' in str(message) else socket.send(message))

    await page.page.route_web_socket("**/ws?*", without_the_second)
    client = await page.open(instance.base_url)
    await client.switch_to("Plain /ws")
    for number in range(1, 4):
        await instance.publish(f"m{number}")
        # In frames of their own.
        await expect(client.messages).to_have_count(number if number < 2 else number - 1)
    await expect(page.promise("G2")).to_contain_text(": broken")
    await expect(page.promise("G2")).to_contain_text("got #3 right after #1")
    await client.expect_row("Gaps seen", "1")


async def test_redis_away_and_back_ticks_g6(
    instances: StartInstances, redis_server: RedisServer, new_page: NewPage
) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    await client.send("before")
    await client.expect_message("before")
    await redis_server.kill()
    await client.send("while away")
    await expect(client.outbox).to_contain_text("unavailable")
    await expect(page.promise("G6")).to_contain_text("not seen yet")
    await redis_server.start()
    await client.expect_message("while away")
    await page.expect_kept("G6")


async def test_a_slow_client_ticks_g7(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    await page.button("Try a slow client").click()
    await page.expect_kept("G7", within=30)
    await expect(page.promise("G7")).to_contain_text("it got all 400 messages")
    await client.expect_last(400)
    assert (await instance.metrics())["ditochat_slow_clients_closed_total"] == 1


async def test_an_instance_that_stops_ticks_g8(instances: StartInstances, new_page: NewPage) -> None:
    first, second = await instances(2, DRAIN_SECONDS=6)
    async with TcpProxy(first.port) as network:
        page = await new_page()
        client = await page.open(network.url)
        for number in (2, 3, 4):
            await page.add_client(number)
        await client.send("before")
        await client.expect_message("before")
        stopping = asyncio.create_task(first.terminate())
        # What a load balancer does when an instance is not ready.
        await expect(page.server).to_have_text("Server not ready: shutting down")
        network.retarget(second.port)
        assert await stopping == 0
        await page.expect_kept("G8")
        for number in (1, 2, 3, 4):
            await page.client(number).expect_connected()
        await client.send("after")
        await client.expect_last(2)
