"""The demo page as a person finds it: by roles and names."""

import re

from playwright.async_api import Locator, Page, expect

__all__ = ["Client", "DemoPage"]

_ID = re.compile(r"#(\d+)\b")


class Client:
    """One client of the page."""

    def __init__(self, page: Page, number: int) -> None:
        self.region = page.get_by_role("region", name=f"Client {number}", exact=True)
        self.name = self.region.get_by_role("textbox", name="Name")
        self.text = self.region.get_by_role("textbox", name="Message")
        self.log = self.region.get_by_role("log", name="Messages")
        self.messages = self.log.get_by_role("list", name="Stored messages", exact=True).get_by_role(
            "listitem"
        )
        self.outbox = self.log.get_by_role("list", name="Messages not stored yet").get_by_role("listitem")
        self.unread = self.region.get_by_role("button", name="new message")
        self.transport = self.region.get_by_role("combobox", name="Transport")
        self.state = self.region.get_by_role("status")
        self.send_again = self.region.get_by_role("button", name="Send again")

    def button(self, name: str) -> Locator:
        """Return one of its buttons."""
        return self.region.get_by_role("button", name=name)

    async def send(self, text: str) -> None:
        """Type and press Enter."""
        await self.text.fill(text)
        await self.text.press("Enter")

    async def switch_to(self, transport: str) -> None:
        """Choose a transport by the name that the page has for it, and wait for the connection."""
        await self.transport.select_option(transport)
        await self.expect_connected()

    async def row(self, title: str) -> str:
        """Return a value of the connection panel."""
        row = self.region.get_by_role("row").filter(
            has=self.region.page.get_by_role("rowheader", name=title, exact=True)
        )
        return await row.get_by_role("cell").inner_text()

    async def expect_row(self, title: str, value: str | re.Pattern[str]) -> None:
        """Wait for a value of the connection panel."""
        row = self.region.get_by_role("row").filter(
            has=self.region.page.get_by_role("rowheader", name=title, exact=True)
        )
        await expect(row.get_by_role("cell")).to_have_text(value)

    async def expect_connected(self) -> None:
        """Wait until it says so, and has its place in the log."""
        await expect(self.state).to_have_text("connected")
        if await self.region.get_by_role("table").is_visible():  # a phone shows it when asked to
            await self.expect_row("Epoch", re.compile(r"^(?!null|unknown)\S+$"))

    async def expect_message(self, text: str) -> Locator:
        """Wait for the one stored message with this text."""
        message = self.messages.filter(has=self.log.page.get_by_text(text, exact=True))
        await expect(message).to_have_count(1)
        return message

    async def ids(self) -> list[int]:
        """Return the ids of the messages that are shown, from the top."""
        found = [_ID.search(text) for text in await self.messages.all_inner_texts()]
        assert all(found)
        return [int(match[1]) for match in found if match]

    async def expect_last(self, last: int) -> None:
        """Wait until this id is the newest one that is shown, and all shown ones follow each other."""
        await expect(self.messages.last).to_contain_text(f"#{last}")
        ids = await self.ids()
        assert ids == list(range(ids[0], last + 1))


class DemoPage:
    """The whole page, with `errors`: what the browser says went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.server = page.get_by_role("status", name="Server")
        self.promises = page.get_by_role("list", name="Promises")
        self.tools = page.get_by_role("region", name="QA tools")

    async def open(self, url: str) -> Client:
        """Go there, and return the client that is there at once, connected."""
        await self.page.goto(url)
        client = self.client(1)
        await client.expect_connected()
        return client

    def client(self, number: int) -> Client:
        """Return the client of this number."""
        return Client(self.page, number)

    async def add_client(self, number: int) -> Client:
        """Add a client, and return it, connected."""
        await self.button("Add client").click()
        client = self.client(number)
        await client.expect_connected()
        return client

    def button(self, name: str) -> Locator:
        """Return a button of the tools."""
        return self.tools.get_by_role("button", name=name)

    def promise(self, name: str) -> Locator:
        """Return the line of a promise: G1 to G9."""
        return self.promises.get_by_role("listitem").filter(has_text=re.compile(rf"{name}\b"))

    async def expect_kept(self, name: str, *, within: float = 10.0) -> None:
        """Wait until a promise is ticked."""
        await expect(self.promise(name)).to_contain_text(": kept", timeout=within * 1000)

    async def kept(self) -> list[str]:
        """Return the promises that are ticked; none may be broken."""
        texts = await self.promises.get_by_role("listitem").all_inner_texts()
        assert not [text for text in texts if ": broken" in text]
        return re.findall(r"(G\d)[^:]*: kept", "\n".join(texts))

    async def burst(self, count: int, rate: int) -> None:
        """Have the first client send a burst, and wait until all of it is acknowledged."""
        await self.tools.get_by_role("spinbutton", name="Messages").fill(str(count))
        await self.tools.get_by_role("spinbutton", name="Per second").fill(str(rate))
        await self.button("Send burst").click()
        await expect(self.tools).to_contain_text(f"{count} acknowledged, 0 failed", timeout=20_000)
