"""The container image: built from the Dockerfile as it stands, then run."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ditochat import __version__
from tests.harness.container import Container, docker
from tests.harness.js_clients import JsClients
from tests.harness.ports import HOST, free_port
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[2]
IMAGE = "ditochatbackend:test"
MOST_OF_ITS_OWN = 60_000_000  # bytes above the base image
BUILD_SECONDS = 600  # on a machine that has to fetch everything

StartContainer = Callable[..., Awaitable[Container]]


@pytest.fixture(scope="module", autouse=True)
def image() -> str:
    arguments = ["build", "--network", "host", "--build-arg", f"VERSION={__version__}", "--tag", IMAGE, "."]
    asyncio.run(docker(*arguments, directory=ROOT))
    return IMAGE


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[StartContainer]:
    """`await container("a", REDIS_URL=...)`: one that is ready."""
    started: list[Container] = []

    async def start(name: str = "container", **arguments: Any) -> Container:
        one = Container(tmp_path / name, IMAGE, name=name, **arguments)
        started.append(one)
        await one.start()
        return one

    try:
        yield start
    finally:
        await asyncio.gather(*(one.end() for one in started))


async def inspected() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(await docker("image", "inspect", IMAGE))[0]["Config"]
    return config


async def shell(script: str) -> str:
    # As root, who sees everything.
    return await docker("run", "--rm", "--network=host", "--user=0", "--entrypoint=sh", IMAGE, "-ec", script)


# The first test waits for the build, too.
@pytest.mark.timeout(BUILD_SECONDS)
async def test_it_says_how_it_is_run() -> None:
    config = await inspected()
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert list(config["Volumes"]) == ["/data"]
    assert config["Entrypoint"] == ["ditochat"]
    assert config["Healthcheck"]["Test"] == ["CMD", "ditochat", "healthcheck"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__


async def test_it_adds_little_to_its_base() -> None:
    sizes = (
        await docker("history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", IMAGE)
    ).splitlines()
    # From the newest layer down to ours that is the oldest.
    own = sizes[: 1 + next(i for i, line in enumerate(sizes) if "COPY" in line)]
    assert 1_000_000 < sum(int(line.split()[0]) for line in own) < MOST_OF_ITS_OWN


async def test_nothing_of_the_build_is_left() -> None:
    tools = ("node", "npm", "gcc", "cc", "hatchling", ".npm", "*.whl")
    folders = ("*/.cache/*", "/src/*", "/wheels/*", "/opt/*/pip/*")
    named = " -o ".join([*(f"-name '{name}'" for name in tools), *(f"-path '{path}'" for path in folders)])
    # Of the base: where debuggers would look, and what a new environment gets its pip from.
    left = await shell(f"find / -xdev \\( {named} \\) -not -path /usr/share/gcc -not -path '*/ensurepip/*'")
    assert left == ""
    assert (await shell("ls -A /data; ls -A /opt")).split() == ["ditochat"]


async def test_its_modules_are_compiled_when_it_is_built() -> None:
    # A read-only root file system could not keep what is compiled at the start.
    missing = await shell(
        "cd /opt/ditochat/lib/python3.13/site-packages; for file in ditochat/*.py redis/*.py; do "
        'test -e "${file%/*}/__pycache__/$(basename "$file" .py).cpython-313.pyc" || echo "$file"; done'
    )
    assert missing == ""


async def test_alone_it_keeps_its_messages_in_its_volume(container: StartContainer, tmp_path: Path) -> None:
    volume = f"ditochat-test-{tmp_path.name}"
    await docker("volume", "create", volume)
    try:
        first = await container("first", options=("--volume", f"{volume}:/data"))
        stored = await first.publish("one")
        assert await first.terminate() == 0
        await first.end()
        second = await container("second", options=("--volume", f"{volume}:/data"))
        assert await second.messages() == [stored]
        await second.kill()
        await second.end()
        third = await container("third", options=("--volume", f"{volume}:/data"))
        assert await third.messages() == [stored]
        async with (
            third.http() as http,
            http.get("/") as page,
            http.get("/socket.io/socket.io.esm.min.js") as script,
        ):
            assert (page.status, script.status) == (200, 200)
        await third.end()
    finally:
        await docker("volume", "rm", "--force", volume)


async def test_without_a_volume_it_runs_too(container: StartContainer) -> None:
    one = await container()
    assert (await one.publish("hello"))["id"] == 1


async def test_it_is_not_root_and_can_write_nowhere_but_in_data(container: StartContainer) -> None:
    one = await container()
    status = await docker("exec", one.container_name, "cat", "/proc/1/status")
    assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    with pytest.raises(RuntimeError, match=r"Read-only file system"):
        await docker("exec", one.container_name, "touch", "/opt/ditochat/file")
    await docker("exec", one.container_name, "touch", "/data/file")


async def test_the_engine_sees_that_it_is_healthy_and_that_it_is_not(container: StartContainer) -> None:
    one = await container(
        options=("--health-interval", "200ms", "--health-retries", "1", "--health-start-period", "0")
    )

    async def is_(health: str) -> bool:
        said = await docker("inspect", "--format", "{{.State.Health.Status}}", one.container_name)
        return said.strip() == health

    await eventually(lambda: is_("healthy"), otherwise=lambda: one.explain("is not healthy"))
    await docker("kill", "--signal", "STOP", one.container_name)
    await eventually(lambda: is_("unhealthy"), otherwise=lambda: one.explain("is still healthy"))
    await docker("kill", "--signal", "CONT", one.container_name)
    await eventually(lambda: is_("healthy"), otherwise=lambda: one.explain("is not healthy again"))


async def test_a_bad_setting_is_one_line_and_status_2() -> None:
    with pytest.raises(
        RuntimeError, match=r"ended with 2:\nditochat: HISTORY_LIMIT='0': expected an integer"
    ) as said:
        await docker("run", "--rm", "--env", "HISTORY_LIMIT=0", IMAGE)
    assert len(str(said.value).splitlines()) == 2


async def test_two_share_a_redis_and_nothing_is_lost_when_one_stops(
    container: StartContainer, redis_server: RedisServer, js_clients: JsClients
) -> None:
    leaving = await container("leaving", REDIS_URL=redis_server.url, DRAIN_SECONDS=2)
    staying = await container("staying", REDIS_URL=redis_server.url)
    async with TcpProxy(leaving.port) as front:
        at_both = [
            await js_clients.connect(url, transports=transports)
            for url in (front.url, staying.base_url)
            for transports in (["websocket"], ["polling"], None)
        ]
        for number, client in enumerate(at_both):
            answer = await client.emit("message", {"text": f"from {number}"})
            assert answer == {"ok": True, "id": number + 1, "duplicate": False}
        for client in at_both:
            assert await client.wait_for_ids(6) == [1, 2, 3, 4, 5, 6]

        writer = at_both[-1]
        under_way = asyncio.create_task(
            writer.emit_many([{"text": f"{n}", "nonce": f"{n}"} for n in range(200)], retry=True)
        )
        stopping = asyncio.create_task(leaving.terminate())
        await eventually(
            lambda: _draining(leaving), otherwise=lambda: leaving.explain("does not say that it drains")
        )
        front.retarget(staying.port)
        assert await stopping == 0
        assert all(answer["ok"] for answer in await under_way)
        for client in at_both:
            assert await client.wait_for_ids(206) == list(range(1, 207))
            state = await client.state()
            assert (state.duplicates_dropped, state.out_of_order, state.resets) == (0, [], [])
    assert [message["id"] for message in await staying.messages()] == list(range(206, 0, -1))


async def _draining(one: Container) -> bool:
    async with one.http() as http, http.get("/readyz") as answer:
        return answer.status == 503 and "shutting down" in await answer.text()


async def test_the_guide_s_own_lines_run_it(tmp_path: Path) -> None:
    guide = (ROOT / "docs/deploy.md").read_text()
    (block,) = re.findall(r"^```sh\n(# here\ndocker build .*?)^```$", guide, re.DOTALL | re.MULTILINE)
    name, port = f"ditochat-test-{tmp_path.name}", free_port()
    # Other names than a reader's own, and a network that needs no bridge.
    for there, here in (
        ("--tag ditochatbackend ", f"--network host --tag {IMAGE} "),
        ("--name ditochat ", f"--name {name} "),
        ("--publish 8080:8080 ", f"--network host --env ADDR={HOST}:{port} "),
        ("--volume ditochat:/data ", f"--volume {name}:/data "),
        (" ditochatbackend\n", f" {IMAGE}\n"),
    ):
        assert block.count(there) == 1
        block = block.replace(there, here)
    try:
        shell = await asyncio.create_subprocess_exec("sh", "-ec", block, cwd=ROOT)
        assert await shell.wait() == 0
        async with aiohttp.ClientSession(f"http://{HOST}:{port}") as session:

            async def ready() -> bool:
                try:
                    async with session.get("/readyz") as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectionError:
                    return False

            await eventually(ready, otherwise=lambda: "it is not ready")
        await docker("stop", name)
        assert await docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0\n"
    finally:
        await docker("rm", "--force", name)
        await docker("volume", "rm", "--force", name)
