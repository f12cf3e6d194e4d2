"""The README is what a newcomer does: its code runs as it stands, its tables agree with the program."""

import asyncio
import os
import re
import signal
from pathlib import Path
from urllib.parse import quote

from ditochat.settings import DESCRIPTIONS
from tests.conftest import StartInstances
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_that_of_the_program() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.+?) \| (.+) \|$", README, re.MULTILINE)
    expected = [
        (one.name, one.shown_default if one.default is None else f"`{one.default}`", one.meaning)
        for one in DESCRIPTIONS
    ]
    assert rows == expected


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# What a page has and Node has not: `location`, which tells the client where the server is. And a network whose
# requests fail from the start, until a signal, if they are told to.
PAGE = """
globalThis.location = { origin: "%s" };
const request = globalThis.fetch;
let fails = process.env.HTTP_FAILS === "1";
globalThis.fetch = (...of) => (fails ? Promise.reject(new TypeError("no network")) : request(...of));
process.on("SIGUSR2", () => (fails = !fails));
"""


class ExactlyOnceClient:
    """The README's client, run by Node as it stands; what it prints is what it saw."""

    def __init__(self, directory: Path) -> None:
        source = re.search(r"^```js\n(import .*?)^```", README, re.MULTILINE | re.DOTALL)
        assert source is not None
        self._source = source[1]
        # Inside the checkout, so that Node finds socket.io-client as it would in a frontend's project.
        self._file = ROOT / "node_modules" / f".readme-client-{directory.name}.mjs"
        self.seen: list[str] = []

    async def start(self, url: str, *, http_fails: bool = False) -> None:
        self._file.write_text(self._source)
        self._process = await asyncio.create_subprocess_exec(
            "node", "--import", f"data:text/javascript,{quote(PAGE % url)}", str(self._file),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HTTP_FAILS": str(int(http_fails))},
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.seen.append(line.decode().strip())

    async def wait_for(self, count: int) -> None:
        async def seen() -> bool:
            return len(self.seen) >= count

        await eventually(seen, otherwise=lambda: f"saw only {self.seen}")

    def toggle_http(self) -> None:
        """Have requests fail, or no longer."""
        self._process.send_signal(signal.SIGUSR2)

    async def stop(self) -> None:
        self._process.kill()
        await self._reading
        assert self._process.stderr is not None
        errors = (await self._process.stderr.read()).decode()
        await self._process.wait()
        self._file.unlink()
        assert not errors


async def test_the_exactly_once_client_sees_everything_exactly_once(
    instances: StartInstances, redis_server: RedisServer, tmp_path: Path
) -> None:
    first, second = await instances(2)
    for number in range(1, 4):
        await first.publish(f"m{number}")
    client = ExactlyOnceClient(tmp_path)
    async with TcpProxy(first.port) as network:
        await client.start(network.url)
        await client.wait_for(3)
        await first.publish("m4")
        await client.wait_for(4)

        network.refuse()
        await network.cut()
        await second.publish("m5")
        await second.publish("m6")
        network.retarget(second.port)
        await network.accept()
        await client.wait_for(6)
        await second.publish("m7")
        await client.wait_for(7)
        assert client.seen == [f"{number} m{number}" for number in range(1, 8)]

        async with redis_server.client() as redis:
            await redis.flushall()
        await second.publish("new life")
        await client.wait_for(8)
        assert client.seen[-1] == "1 new life"
    await client.stop()


async def test_the_exactly_once_client_goes_on_when_the_history_it_asked_for_is_void(
    instances: StartInstances, redis_server: RedisServer, tmp_path: Path
) -> None:
    (instance,) = await instances()
    for number in range(1, 4):
        await instance.publish(f"m{number}")
    client = ExactlyOnceClient(tmp_path)
    await client.start(instance.base_url, http_fails=True)

    async def connected() -> bool:
        return (await instance.metrics())['ditochat_connections{transport="websocket"}'] == 1

    await eventually(connected, otherwise=lambda: "the client does not connect")
    async with redis_server.client() as redis:
        await redis.flushall()
    await instance.publish("new life")  # and 3, up to which it asks for the history, is far away
    client.toggle_http()
    await client.wait_for(1)
    await instance.publish("goes on")
    await client.wait_for(2)
    assert client.seen == ["1 new life", "2 goes on"]
    await client.stop()
