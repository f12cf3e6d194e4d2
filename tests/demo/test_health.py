"""The page while Redis or the server is away: it says so, and goes on afterwards."""

import re

from playwright.async_api import expect

from tests.conftest import StartInstances
from tests.demo.conftest import NewPage
from tests.harness.redis_server import RedisServer


async def test_the_page_works_while_redis_is_away_and_says_so(
    instances: StartInstances, redis_server: RedisServer, new_page: NewPage
) -> None:
    (instance,) = await instances()
    await instance.publish("from before")
    page = await new_page()
    client = await page.open(instance.base_url)
    await expect(page.server).to_have_text("Server ready")
    await redis_server.kill()

    await client.send("while away")
    await expect(page.server).to_have_text(re.compile("^Publishing is unavailable: "))
    await expect(client.outbox).to_contain_text("pending: unavailable")
    await expect(client.state).to_have_text("connected")
    await expect(client.outbox).to_contain_text("failed: unavailable", timeout=15_000)
    await expect(page.server).to_have_text(
        re.compile("^Server not ready: Redis has been out of reach"), timeout=15_000
    )

    # Whoever comes now reads the history.
    newcomer = await (await new_page()).open(instance.base_url)
    await newcomer.expect_message("from before")

    await redis_server.start()
    await client.send_again.click()
    await client.expect_message("while away")
    await newcomer.expect_message("while away")
    await expect(page.server).to_have_text("Server ready")
    assert [message["text"] for message in await instance.messages()] == ["while away", "from before"]


async def test_the_page_waits_for_a_server_that_is_away(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    plain = await page.add_client(2)
    await plain.switch_to("Plain /ws")
    await instance.kill()
    await expect(page.server).to_have_text("Server out of reach, trying again")
    await expect(client.state).to_contain_text("trying again")
    await expect(plain.state).to_contain_text("trying again")
    await client.send("typed while the server was away")
    await expect(client.outbox).to_contain_text("pending")
    await instance.start()
    await expect(page.server).to_have_text("Server ready")
    for each in (client, plain):
        await each.expect_message("typed while the server was away")
        await each.expect_last(1)
