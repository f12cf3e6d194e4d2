"""The tools of a tester: bad input, a message sent twice, the report."""

import pytest
from playwright.async_api import expect

from tests.conftest import StartInstances
from tests.demo.conftest import NewPage

BAD_INPUT = {
    "Empty text": "invalid: text",
    "No text": "invalid: text",
    "Text that is a number": "invalid: text",
    "Title over 128 characters": "invalid: title",
    "Nonce over 64 characters": "invalid: nonce",
    "Message over the size limit": "too_large: the message as stored is larger than 4096 bytes",
    "Nested too deeply": "invalid: nested",
    "Unknown event": "invalid: unknown event 'shout'",
    "Position that is no id": "invalid: auth",
    "POST that is not JSON": "invalid",
    "POST of another type": "unsupported_media_type: the content type is text/plain",
    "POST over the size limit": "too_large",
    "History with a bad limit": "invalid: limit",
    "Path that does not exist": "not_found: nothing is at /no-such-path",
    "/ws: no text": "1008: text",
    "/ws: over the size limit": "1009",
    "/ws: binary frame": "1008: expected a text frame",
}


async def test_each_kind_of_bad_input_shows_its_error(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    client = await page.open(instance.base_url)
    await page.button("Send every kind").click()
    await expect(page.tools).to_contain_text("17 of 17 kinds sent, 0 with another answer than expected.")
    results = page.tools.get_by_role("table", name="Bad input results").get_by_role("row")
    await expect(results).to_have_count(len(BAD_INPUT) + 1)
    for kind, words in BAD_INPUT.items():
        row = results.filter(has=page.page.get_by_role("rowheader", name=kind, exact=True))
        await expect(row).to_contain_text(f"✓ {words}")
    await expect(client.messages).to_have_count(0)
    await expect(client.state).to_have_text("connected")
    await page.expect_kept("G9")
    await client.send("still there")
    await client.expect_message("still there")


async def test_one_kind_of_bad_input_is_chosen(instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    page = await new_page()
    await page.open(instance.base_url)
    await page.tools.get_by_role("combobox", name="Kind of bad input").select_option("Unknown event")
    await page.button("Send bad input").click()
    await expect(page.tools).to_contain_text("1 of 17 kinds sent")
    await expect(page.tools).to_contain_text("unknown event 'shout'; expected 'message'")
    assert await page.kept() == []


async def test_one_message_is_sent_twice_and_stored_once(
    instances: StartInstances, new_page: NewPage
) -> None:
    (instance,) = await instances()
    page = await new_page()
    await page.open(instance.base_url)
    await page.button("Send one message twice").click()
    await expect(page.tools).to_contain_text("First: stored as #1. Second: stored as #1, duplicate.")
    await page.expect_kept("G5")
    assert len(await instance.messages()) == 1


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_report_is_copied(allowed: bool, instances: StartInstances, new_page: NewPage) -> None:
    (instance,) = await instances()
    permissions = ["clipboard-read", "clipboard-write"] if allowed else []
    page = await new_page(permissions=permissions)
    client = await page.open(instance.base_url)
    await client.send("something to report")
    await page.expect_kept("G4")
    await page.button("Copy report").click()
    if allowed:
        await expect(page.tools).to_contain_text("Copied.")
    else:
        await expect(page.tools).to_contain_text("it is selected below")
        await page.page.keyboard.press("Control+C")
    await client.text.focus()
    await page.page.keyboard.press("Control+V")
    report = await client.text.input_value()
    assert report.startswith("ditochat demo page, ")
    assert "Server: Server ready" in report
    assert "G4 Acknowledged is stored: kept." in report
    assert "G8 Stopping: not seen yet" in report
    assert "Client 1\n  state: connected\n  transport: websocket" in report
    assert "gaps: 0" in report
