"""socket.io-client's own connection state recovery: ``auth: {recovery: true}``, and no code for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import socketio

from tests.conftest import StartInstances
from tests.harness.instance import Instance
from tests.harness.js_clients import JsClient, JsClients
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import DEADLINE

TRANSPORTS = pytest.mark.parametrize(
    "transports", [["polling"], ["websocket"], None], ids=["polling", "websocket", "upgrade"]
)
FIXED_TRANSPORTS = pytest.mark.parametrize(
    "transports", [["polling"], ["websocket"]], ids=["polling", "websocket"]
)
LONG_PAUSE = 30.0  # seconds


@pytest.fixture
async def front() -> AsyncIterator[TcpProxy]:
    """The way to an instance, to be closed while a client is away: see `aim`."""
    async with TcpProxy(1) as proxy:
        yield proxy


async def connect(js_clients: JsClients, url: str, transports: list[str] | None = None) -> JsClient:
    client = await js_clients.connect(url, transports=transports, recovery=True)
    await client.wait_for(transport="polling" if transports == ["polling"] else "websocket", sessions=1)
    return client


async def lose_while(front: TcpProxy, client: JsClient, *instances: Instance, texts: str) -> None:
    """Drop the client, publish while it is away, let it come back."""
    front.refuse()
    await client.drop()
    for text in texts:
        await instances[0].publish(text)
    connects = len((await client.state()).connects)
    await front.accept()
    await client.wait_for(connects=connects + 1, connected=True)


async def assert_seen_once(client: JsClient, last: int, *, first: int = 1) -> None:
    """All ids came, in order, each with its own offset."""
    assert await client.wait_for_ids(last) == list(range(first, last + 1))
    state = await client.state()
    assert state.raw_ids == state.ids
    epoch = state.sessions[-1]["epoch"]
    records = await client.records()
    assert [record["extra"] for record in records] == [[f"{epoch}:{id_}"] for id_ in state.ids]
    assert state.offset == f"{epoch}:{last}"


async def assert_recovered(client: JsClient, times: int) -> None:
    state = await client.state()
    assert [connect["recovered"] for connect in state.connects] == [False] + [True] * times
    assert len({connect["pid"] for connect in state.connects}) == 1
    assert [session["recovered"] for session in state.sessions] == [None] + [True] * times
    assert state.recovered is (times > 0)
    # A pid and an offset is all that it sends, and the transport's own id is new each time.
    assert len({connect["id"] for connect in state.connects}) == times + 1
    assert state.connect_errors == [] or all(
        error["message"] in ("xhr poll error", "websocket error") for error in state.connect_errors
    )


@FIXED_TRANSPORTS
async def test_everything_carries_the_offset(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    await instance.publish("before")
    client = await connect(js_clients, instance.base_url, transports)
    state = await client.state()
    assert state.pid
    (session,) = state.sessions
    assert session["extra"] == [f"{session['epoch']}:1"]
    assert state.offset == f"{session['epoch']}:1"
    assert session["recovered"] is None
    assert await client.emit("message", "a") == {"ok": True, "id": 2, "duplicate": False}
    await instance.publish("b")
    await assert_seen_once(client, 3, first=2)
    assert await client.order() == ["connect", "session", "message:2", "message:3"]


@TRANSPORTS
async def test_after_a_drop(
    instances: StartInstances, js_clients: JsClients, front: TcpProxy, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    front.retarget(instance.port)
    client = await connect(js_clients, front.url, transports)
    await instance.publish("a")
    await client.wait_for_ids(1)
    await lose_while(front, client, instance, texts="bcd")
    await instance.publish("e")
    await assert_seen_once(client, 5)
    await assert_recovered(client, 1)
    state = await client.state()
    assert state.sessions[1]["replayed"] == 3
    assert state.connects[1]["auth"] == {
        "recovery": True,
        "pid": state.pid,
        "offset": f"{state.sessions[0]['epoch']}:1",
    }


@FIXED_TRANSPORTS
async def test_before_any_message_was_seen(
    instances: StartInstances, js_clients: JsClients, front: TcpProxy, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    await instance.publish("before")
    front.retarget(instance.port)
    client = await connect(js_clients, front.url, transports)
    await lose_while(front, client, instance, texts="ab")
    await assert_seen_once(client, 3, first=2)
    await assert_recovered(client, 1)


@FIXED_TRANSPORTS
async def test_twice_in_a_row(
    instances: StartInstances, js_clients: JsClients, front: TcpProxy, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    front.retarget(instance.port)
    client = await connect(js_clients, front.url, transports)
    await lose_while(front, client, instance, texts="ab")
    await lose_while(front, client, instance, texts="")
    await lose_while(front, client, instance, texts="cd")
    await assert_seen_once(client, 4)
    await assert_recovered(client, 3)


@TRANSPORTS
async def test_at_once(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    client = await js_clients.connect(
        instance.base_url, transports=transports, recovery=True, options={"reconnectionDelay": 1}
    )
    await client.wait_for(sessions=1)
    drops = 5
    for _ in range(drops):
        await asyncio.gather(client.drop(reconnected=True), instance.publish("a"), instance.publish("b"))
        # A place in the room that is not there yet is lost with the next drop.
        await client.wait_for(connected=True)
    await assert_seen_once(client, 2 * drops)
    await assert_recovered(client, drops)
    state = await client.state()
    pauses = [
        back["at"] - gone["at"] for gone, back in zip(state.disconnects, state.connects[1:], strict=True)
    ]
    assert min(pauses) < 0.05


async def test_on_another_instance_after_a_kill(instances: StartInstances, js_clients: JsClients) -> None:
    first, second = await instances(2)
    clients = [
        await connect(js_clients, first.base_url, transports)
        for transports in (["polling"], ["websocket"], None)
    ]
    await first.publish("a")
    for client in clients:
        await client.wait_for_ids(1)
    await first.kill()
    await second.publish("b")
    for client in clients:
        await client.reconnect_to(second.base_url)
    await second.publish("c")
    for client in clients:
        await assert_seen_once(client, 3)
        await assert_recovered(client, 1)
    # And back, to another life of the first.
    await first.start()
    for client in clients:
        await client.reconnect_to(first.base_url)
    await second.publish("d")
    for client in clients:
        await assert_seen_once(client, 4)
        await assert_recovered(client, 2)


@pytest.mark.timeout(120)
async def test_after_a_long_pause(instances: StartInstances, js_clients: JsClients, front: TcpProxy) -> None:
    (instance,) = await instances()
    front.retarget(instance.port)
    clients = [
        await connect(js_clients, front.url, transports) for transports in (["polling"], ["websocket"])
    ]
    await instance.publish("a")
    for client in clients:
        await client.wait_for_ids(1)
    front.refuse()
    for client in clients:
        await client.drop()
    await instance.publish("b")
    await asyncio.sleep(LONG_PAUSE)
    await front.accept()
    for client in clients:
        await assert_seen_once(client, 2)
        await assert_recovered(client, 1)


@FIXED_TRANSPORTS
async def test_redis_that_lost_its_data_ends_it(
    redis_server: RedisServer,
    instances: StartInstances,
    js_clients: JsClients,
    front: TcpProxy,
    transports: list[str] | None,
) -> None:
    (instance,) = await instances()
    front.retarget(instance.port)
    client = await connect(js_clients, front.url, transports)
    await instance.publish("a")
    await client.wait_for_ids(1)
    front.refuse()
    await client.drop()
    async with redis_server.client() as redis:
        await redis.flushall()
    await instance.publish("b")
    await front.accept()
    await client.wait_for(connects=2, sessions=2)
    first, second = (await client.state()).connects
    assert second["recovered"] is False
    assert second["pid"] not in (None, first["pid"])
    state = await client.state()
    old, new = state.sessions
    assert new["recovered"] is False
    assert new["epoch"] != old["epoch"]
    assert new["last_id"] == 1
    assert new["extra"] == [f"{new['epoch']}:1"]
    # From here on it works as from the beginning.
    await lose_while(front, client, instance, texts="c")
    await client.wait_for_ids(2)
    state = await client.state()
    assert state.ids == [1, 2]
    assert state.connects[2]["recovered"] is True
    assert state.connects[2]["pid"] == second["pid"]


async def test_who_missed_too_much_is_not_recovered(
    instances: StartInstances, js_clients: JsClients, front: TcpProxy
) -> None:
    (instance,) = await instances(HISTORY_LIMIT=5)
    front.retarget(instance.port)
    client = await connect(js_clients, front.url, ["websocket"])
    await instance.publish("a")
    await client.wait_for_ids(1)
    await lose_while(front, client, instance, texts="bcdef")
    assert await client.wait_for_ids(6) == [1, 2, 3, 4, 5, 6]
    await assert_recovered(client, 1)
    await lose_while(front, client, instance, texts="ghijkl")
    await client.wait_for(sessions=3)
    state = await client.state()
    assert state.connects[2]["recovered"] is False
    assert state.connects[2]["pid"] not in (None, state.connects[1]["pid"])
    assert state.sessions[2]["recovered"] is False
    assert state.sessions[2]["replayed"] == 0
    await instance.publish("m")
    assert await client.wait_for_ids(13) == [1, 2, 3, 4, 5, 6, 13]


async def test_a_reset_carries_the_new_offset(
    redis_server: RedisServer, instances: StartInstances, js_clients: JsClients, front: TcpProxy
) -> None:
    (instance,) = await instances()
    front.retarget(instance.port)
    client = await connect(js_clients, front.url, ["websocket"])
    await instance.publish("a")
    await client.wait_for_ids(1)
    async with redis_server.client() as redis:
        await redis.flushall()
    await client.wait_for(resets=1)
    (reset,) = (await client.state()).resets
    assert reset["extra"] == [f"{reset['epoch']}:{reset['last_id']}"]
    await lose_while(front, client, instance, texts="b")
    await client.wait_for(raw_count=2)
    state = await client.state()
    assert state.raw_ids == [1, 1]
    assert state.connects[1]["recovered"] is True


@FIXED_TRANSPORTS
async def test_without_it_there_is_no_pid_and_no_extra_argument(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    client = await js_clients.connect(instance.base_url, transports=transports)
    await client.wait_for(sessions=1)
    await instance.publish("a")
    await client.wait_for_ids(1)
    state = await client.state()
    assert state.pid is None
    assert state.offset is None
    assert state.recovered is False
    assert state.sessions[0]["extra"] == []
    assert [record["extra"] for record in await client.records()] == [[]]


async def test_a_python_client_has_handlers_of_one_argument(instances: StartInstances) -> None:
    (instance,) = await instances()
    received: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
    client = socketio.AsyncClient()

    @client.on("session")  # type: ignore[untyped-decorator]
    async def session(data: dict[str, object]) -> None:
        await received.put(("session", data["last_id"]))

    @client.on("message")  # type: ignore[untyped-decorator]
    async def message(data: dict[str, object]) -> None:
        await received.put(("message", data["id"]))

    await client.connect(instance.base_url, transports=["websocket"])
    try:
        await instance.publish("a")
        async with asyncio.timeout(DEADLINE):
            assert [await received.get() for _ in range(2)] == [("session", 0), ("message", 1)]
    finally:
        await client.shutdown()
