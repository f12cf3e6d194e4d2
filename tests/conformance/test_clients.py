"""Real socket.io-client, the newest and old ones, against a real instance: everything once, and in order.

4.0 cannot do connection state recovery, has no `timeout()`, and 3.1 is the oldest that speaks Engine.IO 4.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.conftest import StartInstances
from tests.harness.instance import Instance
from tests.harness.js_clients import JsClient, JsClients

CLIENTS = ["socket.io-client", "socket.io-client-4.0", "socket.io-client-3.1"]
TRANSPORTS: dict[str, list[str] | None] = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": None,
}
BURST = 200
BIG_BYTES = 900_000

any_client = pytest.mark.parametrize("package", CLIENTS)
any_transport = pytest.mark.parametrize("transport", TRANSPORTS)


def texts(name: str, count: int = BURST, size: int = 0) -> list[dict[str, Any]]:
    return [
        {"text": f"{name}-{number}".ljust(size, "x"), "nonce": f"{name}-{number}"} for number in range(count)
    ]


async def connect(js_clients: JsClients, instance: Instance, package: str, transport: str) -> JsClient:
    client = await js_clients.connect(
        instance.base_url, package=package, transports=TRANSPORTS[transport], track=False
    )
    await client.wait_for(sessions=1)
    return client


def ids_of(answers: Sequence[Any]) -> list[int]:
    assert all(answer.get("ok") is True for answer in answers), answers
    return [answer["id"] for answer in answers]


async def assert_saw(client: JsClient, ids: Sequence[int], sent: Sequence[dict[str, Any]]) -> None:
    """Check that a client saw each of these, once, in the order of ids, on one and the same connection."""
    await client.wait_for(raw_count=len(ids), within=30)
    messages = await client.messages()
    assert [message["id"] for message in messages] == list(ids)
    assert sorted(message["text"] for message in messages) == sorted(message["text"] for message in sent)
    state = await client.state()
    assert state.disconnects == []
    assert len(state.connects) == 1


@any_client
@any_transport
async def test_a_burst_is_acknowledged_and_arrives_once_and_in_order(
    instances: StartInstances, js_clients: JsClients, package: str, transport: str
) -> None:
    [instance] = await instances()
    client = await connect(js_clients, instance, package, transport)
    if transport == "upgrade":
        await client.wait_for(transport="websocket")
    sent = texts("burst")
    ids = ids_of(await client.emit_many(sent))
    assert ids == list(range(1, BURST + 1))
    await assert_saw(client, ids, sent)
    assert [message["text"] for message in await client.messages()] == [message["text"] for message in sent]
    expected = "polling" if transport == "polling" else "websocket"
    assert (await client.state()).transport == expected


@any_client
async def test_traffic_both_ways_while_upgrading(
    instances: StartInstances, js_clients: JsClients, package: str
) -> None:
    [instance] = await instances()
    other = await connect(js_clients, instance, "socket.io-client", "websocket")

    async def talk(client: JsClient, name: str) -> list[dict[str, Any]]:
        """Publish in bursts, beginning right after CONNECT, when the upgrade begins, too."""
        sent = texts(name)
        for start in range(0, BURST, 20):
            ids_of(await client.emit_many(sent[start : start + 20]))
        return sent

    async with asyncio.TaskGroup() as group:
        begun = group.create_task(talk(other, "other"))
        # Connected by polling: the upgrade is under way from here on.
        client = await connect(js_clients, instance, package, "upgrade")
        first = (await client.state()).sessions[0]["last_id"]
        mine = group.create_task(talk(client, "mine"))
    await client.wait_for(transport="websocket")
    sent = mine.result() + begun.result()
    await assert_saw(other, range(1, 2 * BURST + 1), sent)
    seen = (await other.messages())[first:]
    await client.wait_for(raw_count=len(seen))
    assert await client.messages() == seen
    assert (await client.state()).disconnects == []


@any_client
@any_transport
async def test_messages_of_900_kb_arrive_once_and_in_order(
    instances: StartInstances, js_clients: JsClients, package: str, transport: str
) -> None:
    [instance] = await instances(MAX_MESSAGE_BYTES=1_000_000, SEND_BUFFER_BYTES=16_000_000)
    client = await connect(js_clients, instance, package, transport)
    sent = texts("big", 5, BIG_BYTES)
    ids = ids_of([await client.emit("message", message) for message in sent[:2]])
    ids += ids_of(await client.emit_many(sent[2:]))
    assert ids == [1, 2, 3, 4, 5]
    await assert_saw(client, ids, sent)
