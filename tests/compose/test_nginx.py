"""compose/nginx.conf at work: a real nginx in front of two real instances."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.compose.front import CONFIG, Nginx, adapted
from tests.conftest import StartInstances
from tests.harness.go_frontend import GoFrontend
from tests.harness.instance import Instance
from tests.harness.js_clients import JsClient, JsClients
from tests.harness.raw_client import RawHttp
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
TRANSPORTS: tuple[list[str] | None, ...] = (["polling"], ["websocket"], None)


@asynccontextmanager
async def front(directory: Path, instances: Sequence[Instance | TcpProxy]) -> AsyncIterator[Nginx]:
    nginx = Nginx(directory, [one.port for one in instances])
    try:
        await nginx.start()
        yield nginx
    finally:
        await nginx.end()


async def connected(js_clients: JsClients, nginx: Nginx, count: int) -> list[JsClient]:
    clients = [
        await js_clients.connect(
            nginx.base_url, transports=transport, options={"extraHeaders": {"User-Agent": f"client-{number}"}}
        )
        for number in range(count)
        for transport in TRANSPORTS
    ]
    await asyncio.gather(*(client.wait_for(sessions=1) for client in clients))
    return clients


async def publish(client: JsClient, name: str, count: int) -> None:
    messages = [{"text": f"{name}-{number}", "nonce": f"{name}-{number}"} for number in range(count)]
    answers = await client.emit_many(messages, retry=True, attempt=2.0)
    assert all(answer.get("ok") is True for answer in answers), answers


def test_a_configuration_without_the_expected_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 times"):
        adapted(CONFIG.read_text().replace("chat-2", "other"), tmp_path, 1, [2, 3])


@needs_nginx
async def test_every_transport_and_go_frontends_chat_through_it(
    instances: StartInstances, js_clients: JsClients, tmp_path: Path
) -> None:
    two = await instances(2, DRAIN_SECONDS=0)
    async with front(tmp_path / "nginx", two) as nginx:
        clients = await connected(js_clients, nginx, 4)
        for upgraded in clients[2::3]:
            await upgraded.wait_for(transport="websocket")
        async with GoFrontend(nginx.base_url) as go_frontend:
            async with asyncio.TaskGroup() as tasks:
                for number, client in enumerate(clients):
                    tasks.create_task(publish(client, f"c{number}", 20))
                for number in range(20):
                    await go_frontend.send(f"go-{number}")
            everything = list(range(1, 20 * (len(clients) + 1) + 1))
            await go_frontend.wait_for(last=everything[-1])
            assert go_frontend.ids == everything
        served_by = set()
        for client in clients:
            assert await client.wait_for_ids(everything[-1]) == everything
            state = await client.state()
            assert state.disconnects == []
            served_by.add(state.sessions[0]["instance"])
        assert len(served_by) == 2


@needs_nginx
@pytest.mark.parametrize("end", ["terminate", "kill"])
async def test_clients_of_an_instance_that_ends_go_on_at_the_other(
    instances: StartInstances, js_clients: JsClients, tmp_path: Path, end: str
) -> None:
    two = await instances(2, DRAIN_SECONDS=1)
    async with front(tmp_path / "nginx", two) as nginx:
        clients = await connected(js_clients, nginx, 4)
        async with asyncio.TaskGroup() as tasks:
            for number, client in enumerate(clients):
                tasks.create_task(publish(client, f"before-{number}", 50))
            tasks.create_task(getattr(two[0], end)())
        async with asyncio.TaskGroup() as tasks:
            for number, client in enumerate(clients):
                tasks.create_task(publish(client, f"after-{number}", 5))
        everything = list(range(1, 55 * len(clients) + 1))
        moved = 0
        for client in clients:
            assert await client.wait_for_ids(everything[-1]) == everything
            state = await client.state()
            assert state.out_of_order == []
            assert all(session["recovered"] for session in state.sessions[1:])
            moved += len(state.connects) > 1
        assert moved


@needs_nginx
async def test_bodies_that_are_too_large_metrics_and_the_cookie(
    instances: StartInstances, tmp_path: Path
) -> None:
    two = await instances(2, DRAIN_SECONDS=0)
    async with front(tmp_path / "nginx", two) as nginx:
        for size in (1_500_000, 9_000_000):
            async with await RawHttp.open(nginx.port) as http:
                answer = await http.request(
                    "POST", "/messages", b"1" * size, {"Content-Type": "application/json"}
                )
                assert answer.status == 413
                assert answer.headers["content-type"].startswith("application/problem+json")
                assert json.loads(answer.body)["code"] == "too_large"
        async with aiohttp.ClientSession(nginx.base_url) as session:
            async with session.get("/metrics") as reply:
                assert (reply.status, (await reply.json(content_type=None))["code"]) == (404, "not_found")
            async with session.get("/readyz") as reply:
                assert (reply.status, "Set-Cookie" in reply.headers) == (200, False)
            async with session.get("/") as reply:
                assert reply.headers["Set-Cookie"].startswith("ditochat=")
        for instance in two:
            await instance.kill()
        async with (
            aiohttp.ClientSession(nginx.base_url) as session,
            session.post("/messages", json={"text": "x"}) as reply,
        ):
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
            assert (await reply.json(content_type=None))["code"] == "unavailable"


@needs_nginx
async def test_a_kept_alive_connection_to_an_instance_turns_into_a_websocket(
    instances: StartInstances, js_clients: JsClients, tmp_path: Path
) -> None:
    [instance] = await instances()
    stored = 0
    async with TcpProxy(instance.port) as tap, front(tmp_path / "nginx", [tap, tap]) as nginx:

        async def taken_over(frontend: JsClient | GoFrontend, before: int) -> bool:
            nonlocal stored
            stored += 1
            await instance.publish(f"{stored}")
            if isinstance(frontend, JsClient):
                await frontend.wait_for_ids(stored)
            else:
                await frontend.wait_for(last=stored)
            return tap.accepted == before

        async def warm() -> int:
            # Each worker of nginx keeps connections of its own; who comes anew may meet another one.
            for _ in range(8):
                async with aiohttp.ClientSession(nginx.base_url) as session, session.get("/readyz") as reply:
                    assert reply.status == 200
            return tap.accepted

        async def go() -> bool:
            before = await warm()
            async with GoFrontend(nginx.base_url) as frontend:
                return await taken_over(frontend, before)

        async def socketio() -> bool:
            before = await warm()
            client = await js_clients.connect(nginx.base_url, transports=["websocket"])
            taken = await taken_over(client, before)
            await client.close()
            return taken

        for opens_one in (go, socketio):
            await eventually(opens_one, otherwise=lambda: f"{tap.accepted} connections, none taken over")
