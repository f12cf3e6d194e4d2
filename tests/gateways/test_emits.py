"""Emits of other processes, by a stock write-only ``AsyncRedisManager`` of python-socketio."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import socketio

from tests.conftest import StartInstances
from tests.harness.instance import Instance
from tests.harness.js_clients import JsClient, JsClients
from tests.harness.raw_client import RawHttp, RawWebSocket
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import DEADLINE, eventually, until

CHANNEL = "socketio"
# A line is (method, positional arguments, keyword arguments), as Python writes them.
SCRIPT = """
import ast, asyncio, sys
import socketio

async def main():
    manager = socketio.AsyncRedisManager(sys.argv[1], write_only=True)
    for line in sys.stdin:
        method, args, kwargs = ast.literal_eval(line)
        await getattr(manager, method)(*args, **kwargs)
        print("done", flush=True)

asyncio.run(main())
"""


class OtherProcess:
    """A program that has nothing of ours but Redis."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        self._process.stdin.write(f"{(method, args, kwargs)!r}\n".encode())
        async with asyncio.timeout(DEADLINE):
            assert await self._process.stdout.readline() == b"done\n"

    async def emit(self, event: str, data: Any = None, **kwargs: Any) -> None:
        await self.call("emit", event, data, **kwargs)


@pytest.fixture
async def other(redis_server: RedisServer) -> AsyncIterator[OtherProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        redis_server.url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield OtherProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def clients(instances: StartInstances, js_clients: JsClients) -> list[JsClient]:
    """Of each kind, on each of two instances."""
    return [
        await connect(js_clients, instance, transports, recovery=recovery)
        for instance in await instances(2)
        for transports in (["polling"], ["websocket"], None)
        for recovery in (False, True)
    ]


async def connect(
    js_clients: JsClients, instance: Instance, transports: list[str] | None, *, recovery: bool = False
) -> JsClient:
    client = await js_clients.connect(instance.base_url, transports=transports, recovery=recovery)
    await client.wait_for(transport="polling" if transports == ["polling"] else "websocket", sessions=1)
    return client


async def events(client: JsClient, count: int) -> list[list[Any]]:
    """Wait for events; return each as [name, *args], without the offset that recovery adds."""
    await client.wait_for(events=count)
    state = await client.state()
    own = 0 if state.pid is None else 1
    if own:
        epoch = state.sessions[0]["epoch"]
        assert all(event["args"][-1].startswith(f"{epoch}:") for event in state.events)
    return [[event["event"], *event["args"][: len(event["args"]) - own]] for event in state.events]


def warnings(instance: Instance) -> list[str]:
    return [line["message"] for line in instance.log_lines() if line.get("level") == "warning"]


async def wait_for_warnings(instance: Instance, count: int) -> list[str]:
    async def there() -> bool:
        return len(warnings(instance)) >= count

    await eventually(there, otherwise=lambda: instance.explain(f"has not {count} warnings"))
    return warnings(instance)


def faults(instance: Instance) -> list[dict[str, Any]]:
    """What no client may cause: errors, tracebacks, text on stderr."""
    # python-engineio calls a poll that comes late an error, once in its life.
    return [
        line
        for line in instance.log_lines()
        if "exception" in line
        or "text" in line
        or (line["level"] == "error" and "Session is disconnected" not in line["message"])
    ]


# ---- what arrives


async def test_an_emit_reaches_everybody_and_offsets_stay_valid(
    instances: StartInstances, clients: list[JsClient], other: OtherProcess
) -> None:
    (third,) = await instances()
    await third.publish("a")
    for client in clients:
        await client.wait_for_ids(1)
    emitted: list[tuple[Any, list[Any]]] = [
        ({"a": [1, None]}, [{"a": [1, None]}]),
        ("a string", ["a string"]),
        ("first:1", ["first:1"]),
        (["a", "list"], [["a", "list"]]),
        (("several", {"arguments": 2}, "here"), ["several", {"arguments": 2}, "here"]),
        (None, []),
        (b"\x00\xff", [b"\x00\xff"]),
        ({"x": b"1", "y": [b"2"]}, [{"x": b"1", "y": [b"2"]}]),
        ((b"1", "text", b"2"), [b"1", "text", b"2"]),
    ]
    for data, _ in emitted:
        await other.emit("news", data, room="chat")
    expected = [["news", *args] for _, args in emitted]
    for client in clients:
        assert await events(client, len(expected)) == expected

    for client in clients:
        state = await client.state()
        assert state.offset == (None if state.pid is None else f"{state.sessions[0]['epoch']}:1")
    await asyncio.gather(*(client.drop() for client in clients), third.publish("b"))
    await third.publish("c")
    for client in clients:
        assert await client.wait_for_ids(3) == [1, 2, 3]
        state = await client.state()
        assert state.recovered is (state.pid is not None)
        assert [session["recovered"] for session in state.sessions] == [None, True]
        assert state.duplicates_dropped == 0


async def test_events_and_messages_arrive_in_the_order_of_the_channel(
    instances: StartInstances, js_clients: JsClients, other: OtherProcess
) -> None:
    (instance,) = await instances()
    client = await connect(js_clients, instance, ["websocket"], recovery=True)
    for number in range(5):
        await instance.publish(str(number))
        await other.emit("news", number, room="chat")
    await client.wait_for(events=5, count=5)
    state = await client.state()
    epoch = state.sessions[0]["epoch"]
    # A position behind what was sent is safe; one ahead of it would lose messages.
    assert all(
        int(event["args"][1].removeprefix(f"{epoch}:")) <= number + 1
        for number, event in enumerate(state.events)
    )
    order = await client.order()
    assert [what for what in order if what == "news"] == ["news"] * 5
    for number in range(5):
        news = [index for index, what in enumerate(order) if what == "news"][number]
        offset = state.events[number]["args"][1]
        assert offset == f"{epoch}:{sum(what.startswith('message:') for what in order[:news])}"


async def test_emits_to_some(instances: StartInstances, js_clients: JsClients, other: OtherProcess) -> None:
    first, second = await instances(2)
    one = await connect(js_clients, first, ["websocket"])
    two = await connect(js_clients, first, ["polling"], recovery=True)
    three = await connect(js_clients, second, ["websocket"])
    sids = [(await client.state()).id for client in (one, two, three)]

    await other.emit("to one", 1, to=sids[0])
    await other.emit("to one", 2, room=sids[1])
    await other.emit("to two", 3, room=[sids[1], sids[2]])
    await other.emit("skip one", 4, room="chat", skip_sid=sids[2])
    await other.emit("skip two", 5, skip_sid=[sids[0], sids[1]])
    await other.emit("other namespace", 6, namespace="/other")
    await other.emit("no room", 7, room="nobody is in it")
    await other.emit("everybody", 8, namespace="/")
    assert await events(one, 3) == [["to one", 1], ["skip one", 4], ["everybody", 8]]
    assert await events(two, 4) == [["to one", 2], ["to two", 3], ["skip one", 4], ["everybody", 8]]
    assert await events(three, 3) == [["to two", 3], ["skip two", 5], ["everybody", 8]]


async def test_rooms_of_other_processes(
    instances: StartInstances, js_clients: JsClients, other: OtherProcess
) -> None:
    first, second = await instances(2)
    one = await connect(js_clients, first, ["websocket"])
    two = await connect(js_clients, second, ["websocket"])
    sids = [(await client.state()).id for client in (one, two)]
    await other.call("enter_room", sids[0], "/", "vip")
    await other.emit("a", 1, room="vip")
    await other.call("enter_room", sids[1], "/", "vip")
    await other.emit("b", 2, room="vip")
    await other.call("leave_room", sids[0], "/", "vip")
    await other.emit("c", 3, room="vip")
    await other.call("close_room", "vip", "/")
    await other.emit("d", 4, room="vip")
    await other.emit("e", 5, room="chat")
    assert await events(one, 3) == [["a", 1], ["b", 2], ["e", 5]]
    assert await events(two, 3) == [["b", 2], ["c", 3], ["e", 5]]


# ---- what does not


async def test_the_log_s_own_events_are_refused(
    instances: StartInstances, js_clients: JsClients, other: OtherProcess
) -> None:
    running = await instances(2)
    clients = [
        await connect(js_clients, instance, ["websocket"], recovery=recovery)
        for instance in running
        for recovery in (False, True)
    ]
    sid = (await clients[0].state()).id
    for event in ("message", "session", "reset"):
        await other.emit(event, {"id": 1, "epoch": "x", "last_id": 9, "text": "forged"}, room="chat")
    await other.emit("message", {"id": 1, "text": "forged"}, to=sid)
    for instance in running:
        texts = await wait_for_warnings(instance, 4)
        for text, name in zip(texts, ("message", "session", "reset", "message"), strict=True):
            assert f"dropped an emit of {name!r}" in text
        assert (await instance.metrics())['ditochat_foreign_emits_total{outcome="refused"}'] == 4
    await other.emit("end", room="chat")
    await running[0].publish("true")
    for client in clients:
        assert await events(client, 1) == [["end"]]
        assert await client.wait_for_ids(1) == [1]
        assert [message["text"] for message in await client.messages()] == ["true"]
        state = await client.state()
        assert (len(state.sessions), state.resets) == (1, [])


GARBAGE = {
    "not JSON": b"nonsense",
    "not UTF-8": b"\xff\xfe",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.",
    "nothing": b"",
    "a number": b"5",
    "null": b"null",
    "an array": b'["method"]',
    "a string": b'"method"',
    "no method": b'{"event":"x"}',
    "nested too deeply": b"[" * 100_000,
    "no event": b'{"method":"emit","data":[1]}',
    "no data": b'{"method":"emit","event":"x"}',
    "an event that is no string": b'{"method":"emit","event":{},"data":[1]}',
    "a forged envelope": (
        b'{"method":"emit","event":"message","data":[{"id":"x","text":"forged"}],"binary":false,'
        b'"namespace":"/","room":"chat","skip_sid":null,"callback":null,"host_id":"log:x"}'
    ),
    "an envelope of nothing": (
        b'{"method":"emit","event":"message","data":[],"binary":false,'
        b'"namespace":"/","room":"chat","skip_sid":null,"callback":null,"host_id":"log:x"}'
    ),
    "half an envelope": b'{"method":"emit","event":"message","data":["host_id":"log:x"}',
}


async def test_garbage_on_the_channel_is_dropped_with_a_warning(
    redis_server: RedisServer, instances: StartInstances, js_clients: JsClients, other: OtherProcess
) -> None:
    (instance,) = await instances()
    client = await connect(js_clients, instance, ["websocket"])
    async with redis_server.client() as redis:
        for count, (name, payload) in enumerate(GARBAGE.items(), start=1):
            await redis.publish(CHANNEL, payload)
            texts = await wait_for_warnings(instance, count)
            assert len(texts) == count, name
            assert "dropped" in texts[-1], name
            assert len(texts[-1]) < 500, name
    # What no message can look like: another epoch's, or one that the log has not stored, is looked up there.
    async with redis_server.client() as redis:
        await redis.publish(
            CHANNEL,
            '{"method":"emit","event":"message","data":[{"id":1,"ts":1,"text":"forged"}],"binary":false,'
            '"namespace":"/","room":"chat","skip_sid":null,"callback":null,"host_id":"log:another"}',
        )
    await instance.publish("a")
    await other.emit("news", room="chat")
    assert await client.wait_for_ids(1) == [1]
    assert await events(client, 1) == [["news"]]
    assert [message["text"] for message in await client.messages()] == ["a"]
    state = await client.state()
    assert (len(state.connects), state.resets) == (1, [])
    assert faults(instance) == []


# ---- and what disturbs


async def test_a_killed_subscription_comes_back_for_emits_and_messages(
    redis_server: RedisServer, instances: StartInstances, js_clients: JsClients, other: OtherProcess
) -> None:
    first, second = await instances(2)
    clients = [await connect(js_clients, instance, ["websocket"]) for instance in (first, second)]
    for count in (1, 2):
        async with redis_server.client() as redis:
            killed = await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert killed == 2
            await first.publish("meanwhile")
            await eventually(
                lambda: _subscribed(redis, first, second), otherwise=lambda: first.explain("is not back")
            )
        await other.emit("news", count, room="chat")
        await second.publish("live")
        for client in clients:
            assert await events(client, count) == [["news", number] for number in range(1, count + 1)]
            assert await client.wait_for_ids(2 * count) == list(range(1, 2 * count + 1))
    for client in clients:
        assert (await client.state()).disconnects == []


async def _subscribed(redis: Any, *instances: Instance) -> bool:
    ((_, count),) = await redis.pubsub_numsub(CHANNEL)
    return count == len(instances) and all(
        [(await instance.metrics())["ditochat_subscribed"] == 1 for instance in instances]
    )


async def test_other_processes_can_not_take_clients_from_the_room(
    redis_server: RedisServer, instances: StartInstances, js_clients: JsClients, other: OtherProcess
) -> None:
    (instance,) = await instances()
    client = await connect(js_clients, instance, ["websocket"])
    sid = (await client.state()).id
    await other.call("enter_room", sid, "/", "chat")
    await other.call("leave_room", sid, "/", "chat")
    await other.call("close_room", "chat", "/")
    for room in (None, sid):
        await other.call("leave_room", sid, "/", room)
        await other.call("close_room", room, "/")
    await other.call("enter_room", "nobody", "/", "chat")
    async with redis_server.client() as redis:
        for method in ("enter_room", "leave_room", "close_room", "disconnect", "callback", "unknown"):
            await redis.publish(CHANNEL, json.dumps({"method": method}))
            await redis.publish(CHANNEL, json.dumps({"method": method, "sid": {}, "room": [], "host_id": 5}))
            await redis.publish(CHANNEL, json.dumps({"method": method, "sid": sid, "room": {"a": []}}))
            await redis.publish(CHANNEL, json.dumps({"method": method, "sid": "nobody", "room": "x"}))
    await other.emit("news", 1, room="chat")
    await other.emit("news", 2, to=sid)
    assert await events(client, 2) == [["news", 1], ["news", 2]]
    assert (await client.emit("message", "a")) == {"ok": True, "id": 1, "duplicate": False}
    await instance.publish("b")
    assert await client.wait_for_ids(2) == [1, 2]
    assert len((await client.state()).connects) == 1


async def test_a_foreign_disconnect_is_one_and_leaves_nothing_behind(
    redis_server: RedisServer, instances: StartInstances, js_clients: JsClients, other: OtherProcess
) -> None:
    (instance,) = await instances()
    client = await connect(js_clients, instance, ["websocket"])
    for count in (1, 2):
        state = await client.state()
        await other.call("can_disconnect", state.id, "/")  # how a stock manager asks for it
        await client.wait_for(disconnects=count, connected=False)
        state = await client.state()
        assert state.disconnects[-1]["reason"] == "io server disconnect"
        before = (await instance.metrics())["ditochat_deliveries_total"]
        await instance.publish("nobody is there")
        await asyncio.gather(instance.messages(at_least=count))
        assert (await instance.metrics())["ditochat_deliveries_total"] == before
        await client.connect()
        await client.wait_for_ids(count)
    await other.emit("news", room="chat")
    assert await events(client, 1) == [["news"]]
    assert faults(instance) == []


async def test_who_was_disconnected_may_connect_again_on_the_same_transport(
    instances: StartInstances, other: OtherProcess
) -> None:
    (instance,) = await instances()
    async with (
        instance.http() as http,
        http.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket,
        asyncio.timeout(DEADLINE),
    ):
        await socket.receive_str()
        for last in (0, 1):
            await socket.send_str("40")
            sid = json.loads((await socket.receive_str()).removeprefix("40"))["sid"]
            assert f'"last_id":{last}' in await socket.receive_str()
            await other.call("can_disconnect", sid, "/")
            assert await socket.receive_str() == "41"
            await instance.publish("not for those who left")


def question(room: str) -> dict[str, object]:
    """An emit that wants an acknowledgement."""
    return {
        "method": "emit", "event": "question", "data": [5], "binary": False, "namespace": "/",
        "room": room, "skip_sid": None, "callback": ["a room", "/", 7], "host_id": "elsewhere",
    }  # fmt: skip


async def test_acknowledgements_of_emits_find_their_way_back(
    redis_server: RedisServer, instances: StartInstances
) -> None:
    (instance,) = await instances()
    client = socketio.AsyncClient()

    @client.on("question")  # type: ignore[untyped-decorator]
    async def answer(data: object) -> object:
        return {"answer to": data}

    await client.connect(instance.base_url, transports=["websocket"])
    emit = question(client.get_sid())
    try:
        async with asyncio.timeout(DEADLINE), redis_server.client() as redis, redis.pubsub() as channel:
            await channel.subscribe(CHANNEL)
            returned = None
            await redis.publish(CHANNEL, json.dumps(emit))
            async for heard in channel.listen():
                if heard["type"] == "message" and '"callback",' in heard["data"]:
                    returned = json.loads(heard["data"])
                    break
        assert returned == {
            "method": "callback", "host_id": "elsewhere", "sid": "a room", "namespace": "/", "id": 7,
            "args": [{"answer to": 5}],
        }  # fmt: skip
    finally:
        await client.shutdown()


async def test_an_acknowledgement_with_binary_data_is_lost_with_a_warning(
    redis_server: RedisServer, instances: StartInstances
) -> None:
    (instance,) = await instances()
    client = socketio.AsyncClient()

    @client.on("question")  # type: ignore[untyped-decorator]
    async def answer(_data: object) -> bytes:
        return b"\0"

    await client.connect(instance.base_url, transports=["websocket"])
    try:
        async with redis_server.client() as redis:
            await redis.publish(CHANNEL, json.dumps(question(client.get_sid())))
        await until(lambda: any("lost a 'callback'" in line["message"] for line in instance.log_lines()))
        assert not [line for line in instance.log_lines() if line["level"] == "error"]
    finally:
        await client.shutdown()


async def test_an_acknowledgement_without_an_array_acknowledges_nothing(
    redis_server: RedisServer, instances: StartInstances
) -> None:
    (instance,) = await instances()
    async with (
        redis_server.client() as redis,
        redis.pubsub() as channel,
        await RawHttp.open(instance.port) as http,
    ):
        await channel.subscribe(CHANNEL)
        assert (await http.handshake("/socket.io/?EIO=4&transport=websocket")).status == 101
        socket = RawWebSocket(http)
        socket.say("40")
        _, connected, _ = await socket.packets(3)
        await redis.publish(CHANNEL, json.dumps(question(json.loads(str(connected)[2:])["sid"])))
        assert str(await socket.packet()) == '421["question",5]'
        socket.say("431")
        async with asyncio.timeout(DEADLINE):
            async for heard in channel.listen():
                if heard["type"] == "message" and '"callback",' in heard["data"]:
                    assert json.loads(heard["data"])["args"] == []
                    break


async def test_an_acknowledgement_of_the_id_0_does_no_harm_to_the_emits_that_follow(
    redis_server: RedisServer, instances: StartInstances
) -> None:
    (instance,) = await instances()
    async with redis_server.client() as redis, await RawHttp.open(instance.port) as http:
        assert (await http.handshake("/socket.io/?EIO=4&transport=websocket")).status == 101
        socket = RawWebSocket(http)
        socket.say("40")
        await socket.packets(3)
        for number in (1, 2):
            await redis.publish(CHANNEL, json.dumps(question("chat")))
            assert str(await socket.packet()) == f'42{number}["question",5]'
            socket.say("430[]", '420["unknown"]')
            assert str(await socket.packet()).startswith("430[")
