"""What SPEC promises in section 7, of several real instances on one real Valkey, seen by real clients."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio

from tests.conftest import StartInstances
from tests.harness.go_frontend import GoFrontend
from tests.harness.instance import Instance
from tests.harness.js_clients import JsClient, JsClients
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

TRANSPORTS: tuple[list[str] | None, ...] = (["websocket"], ["polling"], None)


class PythonClient:
    """A frontend in Python that takes what comes."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncClient(reconnection=False)
        self.sessions: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.sio.on("session", self.sessions.append)
        self.sio.on("message", self.messages.append)

    @property
    def ids(self) -> list[int]:
        return [message["id"] for message in self.messages]

    async def wait_for_last(self, last: int) -> None:
        async def arrived() -> bool:
            assert self.sio.connected
            return bool(self.messages) and self.ids[-1] >= last

        await eventually(arrived, otherwise=lambda: f"{last} as the last of {self.ids[-5:]}")


@asynccontextmanager
async def python_client(instance: Instance, transport: str) -> AsyncIterator[PythonClient]:
    client = PythonClient()
    await client.sio.connect(instance.base_url, transports=[transport])

    async def greeted() -> bool:
        return bool(client.sessions)

    try:
        await eventually(greeted, otherwise=lambda: "no session")
        yield client
    finally:
        await client.sio.disconnect()
        await client.sio.shutdown()


def message(name: str, number: int) -> dict[str, Any]:
    """Return a message that nobody else sends, with a nonce."""
    text = f"{name}-{number}"
    return {"text": text, "nonce": text}


async def connected(
    js_clients: JsClients,
    instances: Sequence[Instance],
    transports: Iterable[list[str] | None],
    **options: Any,
) -> list[JsClient]:
    """Connect a client for each of `transports`, at one instance after the other, and have them greeted."""
    clients = await asyncio.gather(
        *(
            js_clients.connect(instance.base_url, transports=each, **options)
            for each, instance in zip(transports, itertools.cycle(instances), strict=False)
        )
    )
    await asyncio.gather(*(client.wait_for(sessions=1) for client in clients))
    return clients


async def emit_all(client: JsClient, messages: Sequence[dict[str, Any]]) -> list[int]:
    """Have all of them stored, whatever happens to the connection; return their ids."""
    answers = await client.emit_many(messages, retry=True, attempt=2.0)
    assert all(answer.get("ok") is True for answer in answers), answers
    return [answer["id"] for answer in answers]


async def histories(instances: Sequence[Instance], last: int) -> list[list[dict[str, Any]]]:
    """Return the history of each instance, once it has `last`."""
    return list(await asyncio.gather(*(instance.messages(at_least=last) for instance in instances)))


class Wreckage:
    """The big one: clients that are dropped and sent elsewhere all the time, most of which also publish."""

    MESSAGES = 5000
    CHUNK = 25
    RECONNECTIONS = 220
    WRECKERS = 4

    def __init__(self, instances: Sequence[Instance], clients: Sequence[JsClient]) -> None:
        self.instances = instances
        self.clients = clients
        self.acknowledged: list[int] = []
        self.reconnections = 0
        # A chunk for a reconnection, and a few ahead: neither is over before the other.
        self._allowed = asyncio.Semaphore(10)
        self._chunks = iter(range(self.MESSAGES // self.CHUNK))

    async def run(self, *, publishers: Sequence[JsClient]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for publisher in publishers:
                tasks.create_task(self._publish(publisher))
            for number in range(self.WRECKERS):
                tasks.create_task(self._wreck(number))

    async def _publish(self, publisher: JsClient) -> None:
        for chunk in self._chunks:
            await self._allowed.acquire()
            begin = chunk * self.CHUNK
            messages = [message("m", number) for number in range(begin, begin + self.CHUNK)]
            self.acknowledged += await emit_all(publisher, messages)

    async def _wreck(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - the same run each time
        victims = self.clients[number :: self.WRECKERS]
        while self.reconnections < self.RECONNECTIONS:
            victim, reset = chance.choice(victims), chance.random() < 0.5
            if chance.random() < 0.3:
                await victim.drop(reset=reset, reconnected=True)
            else:
                await victim.reconnect_to(chance.choice(self.instances).base_url, reset=reset)
            self.reconnections += 1
            self._allowed.release()


async def test_thirty_clients_see_each_of_5000_messages_once_through_200_reconnections(
    instances: StartInstances, js_clients: JsClients
) -> None:
    three = await instances(3, HISTORY_LIMIT=6000)
    clients = await connected(js_clients, three, TRANSPORTS * 10)
    wreckage = Wreckage(three, clients)
    await wreckage.run(publishers=clients[:9])  # three of each transport, and dropped like all others

    everything = list(range(1, Wreckage.MESSAGES + 1))
    assert sorted(wreckage.acknowledged) == everything
    await asyncio.gather(*(client.wait_for(last=Wreckage.MESSAGES, connected=True) for client in clients))
    states = await asyncio.gather(*(client.state() for client in clients))
    for state in states:
        assert state.ids == everything
        assert state.out_of_order == []
        assert [session["recovered"] for session in state.sessions[1:]] == [True] * (len(state.sessions) - 1)
    assert sum(len(state.connects) - 1 for state in states) >= 200
    # They were dropped while messages flowed, not before or after.
    assert sum(session["replayed"] > 0 for state in states for session in state.sessions) >= 100
    first, *others = await histories(three, Wreckage.MESSAGES)
    assert [one["id"] for one in first] == everything[::-1]
    assert {one["text"] for one in first} == {f"m-{number}" for number in range(Wreckage.MESSAGES)}
    assert all(other == first for other in others)


async def test_g1_everybody_sees_one_order(instances: StartInstances, js_clients: JsClients) -> None:
    first, second = two = await instances(2)
    readers = await connected(js_clients, two, (*TRANSPORTS, *TRANSPORTS), track=False)
    publishers = await connected(js_clients, two, TRANSPORTS[:2] * 2, track=False)
    async with (
        GoFrontend(first.base_url) as go_first,
        GoFrontend(second.base_url) as go_second,
        python_client(first, "websocket") as python_first,
        python_client(second, "websocket") as python_second,
    ):
        others = (go_first, go_second, python_first, python_second)

        async def post(instance: Instance, name: str) -> None:
            for number in range(20):
                await instance.publish(message(name, number))

        async with asyncio.TaskGroup() as tasks:
            for name, publisher in enumerate(publishers):
                tasks.create_task(
                    emit_all(publisher, [message(f"emit-{name}", number) for number in range(100)])
                )
            tasks.create_task(post(first, "post-1"))
            tasks.create_task(post(second, "post-2"))
            for name, frontend in enumerate((go_first, go_second)):
                for number in range(30):
                    await frontend.send(f"go-{name}-{number}", date="2026-01-31T12:00:00Z")
        last = 4 * 100 + 2 * 20 + 2 * 30
        for frontend in (go_first, go_second):
            await frontend.wait_for(last=last)
        for python in (python_first, python_second):
            await python.wait_for_last(last)
        for reader in (*readers, *publishers):
            await reader.wait_for(last=last)

        (history, other_history) = await histories(two, last)
        assert [one["id"] for one in history] == list(range(last, 0, -1))
        assert other_history == history
        for reader in (*readers, *publishers):
            assert await reader.messages() == history[::-1]
        for other in others:
            assert other.messages == history[::-1]
    # Everybody's own messages are in the order in which they were sent.
    for own_name in ("post-1", "post-2", "go-0", "go-1"):
        own = [one["text"] for one in history[::-1] if one["text"].startswith(f"{own_name}-")]
        assert own == sorted(own, key=lambda text: int(text.rpartition("-")[2]))


async def test_g2_a_python_client_on_polling_gets_a_burst(
    instances: StartInstances, js_clients: JsClients
) -> None:
    (instance,) = await instances(1)
    (publisher,) = await connected(js_clients, [instance], [["websocket"]])
    async with python_client(instance, "polling") as client:
        await emit_all(publisher, [message("m", number) for number in range(200)])
        await client.wait_for_last(200)
        assert client.ids == list(range(1, 201))


async def test_g2_who_joins_while_messages_flow_sees_all_that_follow(
    instances: StartInstances, js_clients: JsClients
) -> None:
    two = await instances(2)
    publishers = await connected(js_clients, two, [["websocket"]] * 2)
    joined: list[JsClient] = []

    async def join() -> None:
        for _ in range(8):
            joined.extend(await connected(js_clients, two, TRANSPORTS, track=False))

    async def publish(publisher: JsClient, name: str) -> None:
        for begin in range(0, 600, 10):
            await emit_all(publisher, [message(name, number) for number in range(begin, begin + 10)])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(join())
        for publisher, name in zip(publishers, "ab", strict=True):
            tasks.create_task(publish(publisher, name))
    began = set()
    for client in joined:
        (session,) = (await client.state()).sessions
        began.add(session["last_id"])
        assert await client.wait_for_ids(1200) == list(range(session["last_id"] + 1, 1201))
    assert len(began) > 3  # they did join in between


@pytest.mark.parametrize("transports", TRANSPORTS, ids=["websocket", "polling", "upgrade"])
async def test_g3_a_client_whose_instance_was_killed_goes_on_elsewhere(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    first, second = await instances(2)
    client, recovering = await asyncio.gather(
        js_clients.connect(first.base_url, transports=transports),
        js_clients.connect(first.base_url, transports=transports, recovery=True),
    )
    publisher = await js_clients.connect(second.base_url)
    await client.wait_for(sessions=1)
    await recovering.wait_for(sessions=1)
    await emit_all(publisher, [message("before", number) for number in range(10)])
    await client.wait_for(last=10)
    await recovering.wait_for(last=10)
    await first.kill()
    await emit_all(publisher, [message("missed", number) for number in range(300)])
    await asyncio.gather(client.reconnect_to(second.base_url), recovering.reconnect_to(second.base_url))
    await emit_all(publisher, [message("after", number) for number in range(10)])
    for each in (client, recovering):
        await each.wait_for(last=320)
        state = await each.state()
        assert state.raw_ids == list(range(1, 321))
        assert [session["recovered"] for session in state.sessions] == [None, True]
    assert (await recovering.state()).recovered is True


async def test_g3_a_client_that_missed_more_than_is_kept_is_told(
    instances: StartInstances, js_clients: JsClients
) -> None:
    first, second = await instances(2, HISTORY_LIMIT=50)
    client = await js_clients.connect(first.base_url)
    await client.wait_for(sessions=1)
    publisher = await js_clients.connect(second.base_url)
    await emit_all(publisher, [message("seen", number) for number in range(5)])
    await client.wait_for(last=5)
    epoch = (await client.state()).epoch
    await client.close()
    await emit_all(publisher, [message("missed", number) for number in range(51)])
    # Reading from 6 on is one too late, reading from 7 on is what is still there.
    late = await js_clients.connect(second.base_url, auth={"after": 5, "epoch": epoch}, reload=True)
    in_time = await js_clients.connect(first.base_url, auth={"after": 6, "epoch": epoch})
    await late.wait_for(reloads=1)
    assert await late.ids() == await in_time.wait_for_ids(56) == list(range(7, 57))
    assert (await late.state()).sessions[0]["recovered"] is False
    session = (await in_time.state()).sessions[0]
    assert (session["recovered"], session["replayed"]) == (True, 50)


async def test_g4_acknowledged_is_stored_and_reaches_everybody_once(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    first, second = two = await instances(2)
    readers = await connected(js_clients, two, (*TRANSPORTS, *TRANSPORTS), track=False)
    async with redis_server.client() as redis:
        for number in range(1, 21):
            answer = await readers[number % 6].emit("message", message("m", number))
            assert answer == {"ok": True, "id": number, "duplicate": False}
            (text,) = await redis.lrange("messages", 0, 0)
            stored = json.loads(text)
            assert (stored["id"], stored["text"]) == (number, f"m-{number}")
            # Also at the instance that has to hear of it first.
            for instance in (first, second):
                assert (await instance.messages(at_least=number))[0] == stored
    for reader in readers:
        assert await reader.wait_for_ids(20) == list(range(1, 21))


async def test_g5_a_nonce_sent_through_all_instances_at_once_is_stored_once(
    instances: StartInstances, js_clients: JsClients
) -> None:
    three = await instances(3)
    clients = await connected(js_clients, three, (*TRANSPORTS, *TRANSPORTS), track=False)
    rounds = 25
    for number in range(rounds):
        answers = await asyncio.gather(
            *(
                client.emit("message", {"text": f"from {at}", "nonce": f"n{number}"})
                for at, client in enumerate(clients)
            )
        )
        assert {answer["id"] for answer in answers} == {number + 1}
        assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 5
    # One more, so that a second delivery would come before it.
    last = (await three[0].publish("the end", nonce="end"))["id"]
    assert last == rounds + 1
    assert (await three[1].publish("the end again", nonce="end"))["text"] == "the end"
    for client in clients:
        assert await client.wait_for_ids(last) == list(range(1, last + 1))


async def test_g5_a_batch_repeated_elsewhere_has_the_first_ids(
    instances: StartInstances, js_clients: JsClients
) -> None:
    first, second = await connected(js_clients, await instances(2), [["websocket"], ["polling"]])
    messages = [message("m", number) for number in range(100)]
    ids = await emit_all(first, messages)
    again = await second.emit_many(messages[::-1])
    assert again == [{"ok": True, "id": id_, "duplicate": True} for id_ in ids[::-1]]


BAD_MESSAGES: tuple[Any, ...] = (
    None, 5, True, [], ["text"], {}, "", "  ", {"text": ""}, {"text": 5}, {"text": None},
    {"text": "a", "uid": 1}, {"text": "a", "title": "x" * 129}, {"text": "a", "nonce": ""},
    {"text": "a", "nonce": "n" * 65}, {"text": "a", "date": "yesterday"}, {"text": "x" * 5000},
    b"bytes", {"text": b"bytes"}, "\ud800",
)  # fmt: skip
BAD_PACKETS = ("2[", "2", "9", "2{}", '2["message"', "51-[]", "x", '20["message",' + "[" * 5000, "3999[]")
BAD_BODIES = (b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"text":""}', b'{"text":"a","uid":{}}')
# What is no object and no string is plain text here, so "5" and "[]" would be messages.
BAD_FRAMES: tuple[str | bytes, ...] = (b"\x00", "", " ", '{"text":1}', '""', "x" * 5000, "[" * 5000)


async def test_g9_bad_input_disturbs_nobody(instances: StartInstances, js_clients: JsClients) -> None:
    first, second = two = await instances(2)
    bystanders = await connected(js_clients, two, (*TRANSPORTS, *TRANSPORTS), track=False)
    async with GoFrontend(first.base_url) as frontend:
        good = 0
        (bad,) = await connected(js_clients, [first], [["websocket"]])
        for value in BAD_MESSAGES:
            answer = await bad.emit("message", value)
            assert answer["ok"] is False, value
            assert answer["error"]["code"] in ("invalid", "too_large")
        assert (await bad.state()).disconnects == []
        for packet in BAD_PACKETS:
            for transport in ("websocket", "polling"):
                client = await js_clients.connect(first.base_url, transports=[transport])
                await client.send_packet(packet)
                # Whatever becomes of that client, the next message is everybody's next one.
                good += 1
                assert (await second.publish(f"{good}"))["id"] == good
                await client.close()
        async with first.http() as http:
            for body in BAD_BODIES:
                async with http.post(
                    "/messages", data=body, headers={"Content-Type": "application/json"}
                ) as answer:
                    assert answer.status == 400, body
                    assert (await answer.json())["code"] == "invalid"
        for frame in BAD_FRAMES:
            async with GoFrontend(first.base_url) as other:
                await other.send_raw(frame)
                assert await other.wait_closed() in (1007, 1008, 1009), frame
        good += 1
        assert (await bad.emit("message", "good"))["id"] == good
        for client in bystanders:
            assert await client.wait_for_ids(good) == list(range(1, good + 1))
            assert (await client.state()).disconnects == []
        await frontend.wait_for(last=good)
        assert frontend.ids == list(range(1, good + 1))
        assert not frontend.closed
    assert first.running
    assert await first.ready()


async def test_the_go_backends_list_is_adopted_once_by_instances_that_start_at_once(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    old: list[dict[str, str]] = [
        {"uid": f"u{number}", "text": f"text {number}", "date": "2021-03-04T05:06:07Z", "title": "Anna"}
        for number in range(400)
    ]
    async with redis_server.client() as redis:
        for one in old:
            await redis.lpush("messages", json.dumps(one))
        await redis.lpush("messages", "just text")
    three = await instances(3)
    first, *others = await histories(three, 401)
    assert all(other == first for other in others)
    assert [one["id"] for one in first] == list(range(401, 0, -1))
    assert first[0]["text"] == "just text"
    for one, adopted in zip(old[::-1], first[1:], strict=True):
        assert {name: adopted[name] for name in one} == one
    clients = await connected(js_clients, three, TRANSPORTS)
    assert {(await client.state()).epoch for client in clients} == {
        (await clients[0].state()).sessions[0]["epoch"]
    }
    answers = await asyncio.gather(*(instance.publish("new") for instance in three))
    assert sorted(answer["id"] for answer in answers) == [402, 403, 404]
    for client in clients:
        assert await client.wait_for_ids(404) == [402, 403, 404]
    # A fourth that comes later finds a log like any other.
    (fourth,) = await instances(1)
    assert await fourth.messages() == (await histories(three, 404))[0]


async def test_no_more_than_history_limit_is_kept_and_served(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2, HISTORY_LIMIT=10)
    (publisher,) = await connected(js_clients, two, [["websocket"]])
    stored: list[dict[str, Any]] = []
    async with redis_server.client() as redis:
        for begin in range(0, 60, 20):
            ids = await emit_all(publisher, [message("m", number) for number in range(begin, begin + 20)])
            stored = [json.loads(text) for text in await redis.lrange("messages", 0, -1)]
            assert [one["id"] for one in stored] == list(range(ids[-1], ids[-1] - 10, -1))
            assert await histories(two, ids[-1]) == [stored, stored]
    (late,) = await instances(1, HISTORY_LIMIT=10)
    assert await late.messages() == stored
    assert await late.messages(limit=1000) == stored
