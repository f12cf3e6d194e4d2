"""G6, and what leads to `reset`: Redis goes away, comes back, does not tell, or forgets."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from ditochat.log import envelope
from ditochat.log.keys import CHANNEL, EPOCH_KEY, ID_KEY, LIST_KEY, LOG_KEYS, nonce_key
from ditochat.log.scripts import APPEND
from tests.conftest import StartInstances
from tests.harness.go_frontend import GoFrontend
from tests.harness.instance import Instance
from tests.harness.js_clients import JsClient, JsClients, JsState
from tests.harness.ports import HOST, free_port
from tests.harness.redis_server import RedisServer
from tests.harness.sentinel import Sentinel, in_sync
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import eventually

TRANSPORTS: tuple[list[str] | None, ...] = (["websocket"], ["polling"], None)
# The SPEC says 2 s in both cases; the rest is for this machine, which has others to serve.
ANSWER_WITHIN = 2.5
LIVE_WITHIN = 2.5


class Load:
    """Readers on every transport, and publishers who try each message until it is stored."""

    def __init__(
        self,
        instances: Sequence[Instance],
        readers: Sequence[JsClient],
        publishers: Sequence[JsClient],
        frontends: Sequence[GoFrontend],
    ) -> None:
        self.instances = instances
        self.readers = readers
        self.publishers = publishers
        self.frontends = frontends
        self.acknowledged: dict[str, int] = {}
        self.unanswered: set[str] = set()  # sent through /ws, which acknowledges nothing
        self.refused: set[str] = set()  # not tried again: `unavailable` does not say that it is not stored
        self.unavailable: list[float] = []
        self.slowest = 0.0
        self.stopping = False

    async def publish(self, publisher: JsClient, name: str) -> None:
        for number in itertools.count():
            if self.stopping:
                return
            await self._publish(publisher, f"{name}-{number}")
            await asyncio.sleep(0.01)

    async def _publish(self, publisher: JsClient, text: str) -> None:
        while True:
            begin = time.monotonic()
            answer = await publisher.emit("message", {"text": text, "nonce": text})
            took = time.monotonic() - begin
            self.slowest = max(self.slowest, took)
            if answer["ok"]:
                self.acknowledged[text] = answer["id"]
                return
            assert answer["error"]["code"] == "unavailable", answer
            self.unavailable.append(took)

    async def send_through_frontends(self) -> None:
        for number, frontend in enumerate(self.frontends):
            text = f"ws-{number}-{len(self.unanswered)}"
            self.unanswered.add(text)
            await frontend.send_raw(json.dumps({"text": text}))

    async def is_refused(self, instance: Instance) -> None:
        """Publish by HTTP, in vain."""
        text = f"refused-{len(self.refused)}"
        self.refused.add(text)
        async with (
            asyncio.timeout(ANSWER_WITHIN),
            instance.http() as http,
            http.post("/messages", json=text) as answer,
        ):
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await answer.json())["code"] == "unavailable"

    async def flows(self, within: float = LIVE_WITHIN) -> None:
        """Have a new message of each publisher reach every reader."""
        async with asyncio.timeout(within):
            count = len(self.acknowledged)
            newest: set[int] = set()
            while len(newest) < 2 * len(self.publishers):
                await asyncio.sleep(0.01)
                newest = set(list(self.acknowledged.values())[count:])
            last = max(newest)
            await asyncio.gather(*(reader.wait_for(last=last, within=within) for reader in self.readers))
            await asyncio.gather(*(frontend.wait_for(last=last) for frontend in self.frontends))

    async def check(self) -> None:
        """Nothing lost, nothing twice, nobody disconnected, and every answer in time."""
        last = max(self.acknowledged.values())
        stored = {message["text"] for message in await self.instances[0].messages(at_least=last)}
        everything = self.acknowledged.keys() | self.unanswered | (self.refused & stored)
        last = len(everything)
        for reader in self.readers:
            await reader.wait_for(last=last)
            state = await reader.state()
            assert state.raw_ids == list(range(1, last + 1))
            assert state.disconnects == []
            self._check_texts(await reader.messages(), everything)
        for frontend in self.frontends:
            await frontend.wait_for(last=last)
            assert frontend.ids == list(range(1, last + 1))
            assert not frontend.closed
            self._check_texts(frontend.messages, everything)
        for instance in self.instances:
            assert (await instance.messages(at_least=last))[::-1] == await self.readers[0].messages()
        assert self.slowest < ANSWER_WITHIN

    def _check_texts(self, messages: Sequence[dict[str, Any]], everything: set[str]) -> None:
        ids = {message["text"]: message["id"] for message in messages}
        assert ids.keys() == everything
        assert len(ids) == len(messages)
        assert {text: ids[text] for text in self.acknowledged} == self.acknowledged


@asynccontextmanager
async def load(instances: Sequence[Instance], js_clients: JsClients) -> AsyncIterator[Load]:
    """Put load on the instances; what became of it is checked at the end."""
    async with AsyncExitStack() as stack:
        readers, publishers, frontends = [], [], []
        for instance in instances:
            readers += [
                await js_clients.connect(instance.base_url, transports=transports, track=False)
                for transports in TRANSPORTS
            ]
            publishers += [
                await js_clients.connect(instance.base_url, transports=transports)
                for transports in (["websocket"], ["polling"])
            ]
            frontends.append(await stack.enter_async_context(GoFrontend(instance.base_url)))
        await asyncio.gather(*(client.wait_for(sessions=1) for client in (*readers, *publishers)))
        running = Load(instances, readers, publishers, frontends)
        async with asyncio.TaskGroup() as tasks:
            for number, publisher in enumerate(publishers):
                tasks.create_task(running.publish(publisher, f"p{number}"))
            await running.flows()
            yield running
            running.stopping = True
        await running.check()


async def answers_history(instances: Sequence[Instance]) -> None:
    for instance in instances:
        async with asyncio.timeout(1):
            assert await instance.messages(limit=10)


@pytest.mark.parametrize("way", ["kill", "stop"])
async def test_redis_ends_under_load_and_comes_back(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer, way: str
) -> None:
    two = await instances(2, HISTORY_LIMIT=20_000)
    async with load(two, js_clients) as running:
        await (redis_server.kill() if way == "kill" else redis_server.stop())
        await running.send_through_frontends()
        for instance in two:
            await running.is_refused(instance)
        await answers_history(two)
        await redis_server.start()
        await running.flows()
        assert len(running.unavailable) >= len(running.publishers)
        for instance in two:
            assert await instance.ready()


async def test_redis_ends_again_and_again_under_load(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2, HISTORY_LIMIT=20_000)
    chance = random.Random(1)  # noqa: S311 - the same run each time
    async with load(two, js_clients) as running:
        for _ in range(5):
            await redis_server.kill()
            await asyncio.sleep(chance.random() / 2)
            await redis_server.start()
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() / 2)
            else:
                await running.flows()
        await running.flows()


async def test_redis_stands_still_under_load_and_goes_on(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2, HISTORY_LIMIT=20_000)
    async with load(two, js_clients) as running:
        redis_server.pause()
        try:
            await running.send_through_frontends()
            # What was sent now may be stored later, once: nobody can know.
            await asyncio.sleep(5)
            await answers_history(two)
        finally:
            redis_server.resume()
        await running.flows()
        assert len(running.unavailable) >= len(running.publishers)


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_connections_to_redis_are_killed_under_load(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer, kind: str
) -> None:
    two = await instances(2, HISTORY_LIMIT=20_000)
    chance = random.Random(2)  # noqa: S311 - the same run each time
    killed = 0
    async with load(two, js_clients) as running, redis_server.client() as redis:
        for _ in range(20):
            killed += await redis.client_kill_filter(_type=kind)
            await asyncio.sleep(chance.random() / 5)
        await running.flows()
    assert killed >= 20


@pytest.mark.parametrize(("end", "seconds"), [("resume", 5), ("cut", 1.5)])  # it notices after 3.5 s
async def test_what_was_stored_while_an_instance_heard_nothing_is_made_up_for(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer, end: str, seconds: float
) -> None:
    async with TcpProxy(redis_server.port) as proxy:
        (deaf,) = await instances(1, REDIS_URL=proxy.redis_url)
        (other,) = await instances(1)
        readers = await asyncio.gather(
            *(js_clients.connect(deaf.base_url, transports=each, track=False) for each in TRANSPORTS)
        )
        await other.publish("before")
        for reader in readers:
            await reader.wait_for_ids(1)
        proxy.blackhole()
        for number in range(2, 52):
            await other.publish(f"{number}")
        await asyncio.sleep(seconds)
        assert await deaf.messages() == (await other.messages())[-1:]
        if end == "cut":
            await proxy.cut()
        proxy.resume()
        for reader in readers:
            assert await reader.wait_for_ids(51, within=LIVE_WITHIN) == list(range(1, 52))
        assert (await deaf.publish("after"))["id"] == 52
        for reader in readers:
            assert await reader.wait_for_ids(52) == list(range(1, 53))
            assert (await reader.state()).disconnects == []
        assert await deaf.messages() == await other.messages()


async def append(redis: Redis, *texts: str, channel: str = CHANNEL) -> list[int]:
    """Append as an instance would that knows nothing of the log, and return the ids."""
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    rows: list[str | bytes | int] = [each for body in bodies for each in (body, 0, 0)]
    batch = nonce_key(f"batch-{random.random()}")  # noqa: S311 - no secret
    head: list[str | bytes | int] = [
        1000, 4096, channel, "", 0, 600_000, 30_000, envelope.BEFORE, envelope.AFTER
    ]  # fmt: skip
    status, _, *reply = await APPEND.run(redis, [*LOG_KEYS, batch], [*head, *rows])
    assert status in (b"OK", "OK")
    ids: list[int] = reply[::3]
    return ids


async def test_a_last_message_that_nobody_was_told_of_is_noticed(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2)
    readers = [await js_clients.connect(instance.base_url, track=False) for instance in two]
    async with redis_server.client() as redis, GoFrontend(two[0].base_url) as frontend:
        await two[0].publish("told")
        assert await append(redis, "untold", channel="elsewhere") == [2]
        for reader in readers:
            assert await reader.wait_for_ids(2, within=LIVE_WITHIN) == [1, 2]
        await frontend.wait_for(last=2)
    for instance in two:
        metrics = await instance.metrics()
        assert metrics["ditochat_gaps_healed_total"] == 1
        assert metrics["ditochat_resets_total"] == 0


# ---- the log starts over


class Witnesses:
    """Clients of each instance that keep their position, and load the history again where they are told."""

    def __init__(self, instances: Sequence[Instance], clients: Sequence[JsClient]) -> None:
        self.instances = instances
        self.clients = clients

    async def states(self) -> list[JsState]:
        return list(await asyncio.gather(*(client.state() for client in self.clients)))

    async def epoch(self) -> str:
        """Return the epoch that all of them know."""
        (epoch,) = {state.epoch for state in await self.states()}
        assert epoch is not None
        return epoch

    async def were_reset(self, *, last_id: int, anew: bool = True) -> str:
        """Wait until each was told, once and the same; return the epoch, a new one if `anew`."""
        before = {state.sessions[-1]["epoch"] for state in await self.states()}
        for client in self.clients:
            await client.wait_for(resets=1, reloads=1)
        epochs = set()
        for state in await self.states():
            (reset,) = state.resets
            assert reset["last_id"] == last_id
            assert reset["reason"]
            epochs.add(reset["epoch"])
        (epoch,) = epochs
        assert isinstance(epoch, str)
        assert (epoch not in before) is anew
        return epoch

    async def agree(self) -> list[dict[str, Any]]:
        """A message of each instance reaches everybody, and all histories are the same; return it."""
        last = 0
        for instance in self.instances:
            last = (await instance.publish("after"))["id"]
        for client in self.clients:
            await client.wait_for(last=last)
        first, *others = [await instance.messages(at_least=last) for instance in self.instances]
        assert all(other == first for other in others)
        for client in self.clients:
            # No id came twice in one epoch: what followed the reset is new, in order, without a hole.
            order = await client.order()
            if "reset" in order:
                at = order.index("reset")
                begin = (await client.state()).resets[0]["last_id"]
                after = [entry for entry in order[at + 1 :] if entry.startswith("message:")]
                assert after == [f"message:{id_}" for id_ in range(begin + 1, last + 1)]
            # With the history it loaded, it has what everybody has.
            assert (await client.messages())[-len(first) :] == first[::-1]
            assert (await client.state()).disconnects == []
        return first


async def witnesses(instances: Sequence[Instance], js_clients: JsClients) -> Witnesses:
    clients = await asyncio.gather(
        *(
            js_clients.connect(instance.base_url, transports=transports, reload=True)
            for instance in instances
            for transports in TRANSPORTS
        )
    )
    await asyncio.gather(*(client.wait_for(sessions=1) for client in clients))
    return Witnesses(instances, clients)


async def ten_messages(witnesses: Witnesses) -> str:
    """Have ten messages reach everybody; return the epoch."""
    for number in range(10):
        await witnesses.instances[number % 2].publish(f"{number}")
    for client in witnesses.clients:
        assert await client.wait_for_ids(10) == list(range(1, 11))
    return await witnesses.epoch()


async def test_flushall_begins_a_new_epoch_everywhere(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2)
    everybody = await witnesses(two, js_clients)
    async with (
        redis_server.client() as redis,
        GoFrontend(two[0].base_url) as stays,
        GoFrontend(two[1].base_url, params={"after": "0"}) as resumable,
    ):
        old = await ten_messages(everybody)
        await redis.flushall()
        new = await everybody.were_reset(last_id=0)
        history = await everybody.agree()
        assert [one["id"] for one in history] == [2, 1]
        await stays.wait_for(count=12)
        assert stays.ids == [*range(1, 11), 1, 2]
        assert not stays.closed
        assert await resumable.wait_closed() == 1013
    for instance in two:
        late = await js_clients.connect(instance.base_url, auth={"after": 1, "epoch": old}, reload=True)
        await late.wait_for(reloads=1)
        (session,) = (await late.state()).sessions
        assert (session["recovered"], session["epoch"], session["last_id"]) == (False, new, 2)
        assert await late.ids() == [1, 2]


async def test_flushall_under_load(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2, HISTORY_LIMIT=20_000)
    everybody = await witnesses(two, js_clients)
    publishers = [await js_clients.connect(instance.base_url) for instance in two]

    async def publish(publisher: JsClient, name: str) -> None:
        for begin in range(0, 400, 10):
            messages = [
                {"text": f"{name}-{number}", "nonce": f"{name}-{number}"}
                for number in range(begin, begin + 10)
            ]
            answers = await publisher.emit_many(messages, retry=True)
            assert all(answer["ok"] for answer in answers)

    async with redis_server.client() as redis, asyncio.TaskGroup() as tasks:
        for publisher, name in zip(publishers, "ab", strict=True):
            tasks.create_task(publish(publisher, name))
        await everybody.clients[0].wait_for(count=100)
        await redis.flushall()
    for client in everybody.clients:
        await client.wait_for(resets=1)
    history = await everybody.agree()
    assert [one["id"] for one in history] == list(range(len(history), 0, -1))


@pytest.mark.parametrize("appended", [0, 8])
async def test_a_log_that_lost_its_newest_messages_begins_a_new_epoch(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer, appended: int
) -> None:
    two = await instances(2)
    everybody = await witnesses(two, js_clients)
    async with redis_server.client(decode=False) as redis:
        old = await ten_messages(everybody)
        async with redis.pipeline(transaction=True) as lost:  # as after a failover to a replica that lagged
            lost.set(ID_KEY, 5)
            lost.ltrim(LIST_KEY, 5, -1)
            await lost.execute()
        if appended:
            texts = [f"other {number}" for number in range(appended)]
            assert await append(redis, *texts) == list(range(6, 6 + appended))
        new = await everybody.were_reset(last_id=5 + appended)
        assert new != old
        history = await everybody.agree()
        assert [one["id"] for one in history] == list(range(7 + appended, 0, -1))


async def test_a_publish_is_what_finds_out_that_the_log_went_back(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2)
    everybody = await witnesses(two, js_clients)
    async with redis_server.client() as redis:
        old = await ten_messages(everybody)
        async with redis.pipeline(transaction=True) as lost:
            lost.set(ID_KEY, 5)
            lost.ltrim(LIST_KEY, 5, -1)
            await lost.execute()
        answers = await asyncio.gather(*(client.emit("message", "at once") for client in everybody.clients))
        assert sorted(answer["id"] for answer in answers) == list(range(6, 12))
        for client in everybody.clients:
            await client.wait_for(resets=1, reloads=1)
        assert await everybody.epoch() != old
        history = await everybody.agree()
        assert [one["id"] for one in history] == list(range(13, 0, -1))


async def test_without_its_list_the_log_goes_on_where_it_was(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2)
    everybody = await witnesses(two, js_clients)
    async with redis_server.client() as redis:
        epoch = await ten_messages(everybody)
        await redis.delete(LIST_KEY)
        # What the instances have in memory they go on serving.
        assert [one["id"] for one in await everybody.agree()] == list(range(12, 0, -1))
        assert await everybody.epoch() == epoch
        assert all(state.resets == [] for state in await everybody.states())
        # One that starts now has the two that are there.
        (late,) = await instances(1)
        assert [one["id"] for one in await late.messages()] == [12, 11]
        # A hole that the list cannot fill is a loss, and said to be one; no id comes again, so no new epoch.
        await append(redis, "untold", channel="elsewhere")
        await redis.delete(LIST_KEY)
        await append(redis, "told")
        await everybody.were_reset(last_id=14, anew=False)
        assert [one["id"] for one in await everybody.agree()] == [16, 15, 14]


async def test_without_its_epoch_the_log_gets_a_new_one_and_keeps_its_messages(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2)
    everybody = await witnesses(two, js_clients)
    async with redis_server.client() as redis:
        await ten_messages(everybody)
        await redis.delete(EPOCH_KEY)
        await everybody.were_reset(last_id=10)
        assert [one["id"] for one in await everybody.agree()] == list(range(12, 0, -1))


async def test_without_its_newest_id_the_log_takes_it_from_the_list(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2)
    everybody = await witnesses(two, js_clients)
    async with redis_server.client() as redis:
        await ten_messages(everybody)
        await redis.delete(ID_KEY)
        await everybody.were_reset(last_id=10)
        assert [one["id"] for one in await everybody.agree()] == list(range(12, 0, -1))
        assert await redis.get(ID_KEY) == "12"


# ---- what an operator sees


async def test_after_ten_seconds_without_redis_an_instance_is_not_ready(
    instances: StartInstances, redis_server: RedisServer
) -> None:
    (instance,) = await instances(1)
    await instance.publish("kept")

    async def gauges(value: float) -> bool:
        metrics = await instance.metrics()
        return metrics["ditochat_redis_up"] == metrics["ditochat_subscribed"] == value

    def reports(text: str) -> int:
        return sum(text in line.get("message", "") for line in instance.log_lines())

    async def not_ready() -> bool:
        return not await instance.ready()

    begin = time.monotonic()
    await redis_server.stop()
    await eventually(lambda: gauges(0), within=LIVE_WITHIN, otherwise=lambda: "the gauges stay up")
    assert await instance.ready()
    await eventually(not_ready, within=13, otherwise=lambda: "ready without Redis")
    assert 9.5 < time.monotonic() - begin < 12.5
    async with instance.http() as http, http.get("/readyz") as answer:
        assert answer.status == 503
        assert "Redis" in (await answer.json())["reason"]
    assert [one["text"] for one in await instance.messages()] == ["kept"]
    assert reports("out of reach") == 1
    await redis_server.start()
    await eventually(instance.ready, within=LIVE_WITHIN, otherwise=lambda: instance.explain("is not ready"))
    await eventually(lambda: gauges(1), within=LIVE_WITHIN, otherwise=lambda: "the gauges stay down")
    assert reports("out of reach") == 1
    assert reports("following the log") == 2


async def test_redis_by_a_unix_socket(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer
) -> None:
    two = await instances(2, REDIS_URL=redis_server.unix_url)
    async with load(two, js_clients) as running:
        await redis_server.kill()
        await redis_server.start()
        await running.flows()


# ---- Sentinel


@pytest.fixture
async def replica(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[RedisServer]:
    async with redis_server.client() as master:
        await master.config_set("repl-diskless-sync-delay", 0)  # not 5 s
        await master.config_set("shutdown-timeout", 0)  # nor 10 s for replicas to catch up
    options = {"replicaof": f"{HOST} {redis_server.port}", "shutdown-timeout": "0"}
    server = RedisServer(tmp_path / "replica", options=options)
    try:
        await server.start()
        yield server
    finally:
        await server.end()


@pytest.fixture
async def sentinel(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer, replica: RedisServer
) -> AsyncIterator[Sentinel]:
    """One that fails over by itself after a second, or after the milliseconds that a test parametrizes."""
    await eventually(lambda: in_sync(replica), otherwise=lambda: replica.explain("is not in sync"))
    server = Sentinel(tmp_path / "sentinel", redis_server, down_after=getattr(request, "param", 1000))
    try:
        await server.start()
        await eventually(server.knows_a_replica, otherwise=lambda: server.explain("knows no replica"))
        yield server
    finally:
        await server.end()


async def test_a_coordinated_failover_under_load_loses_nothing(
    instances: StartInstances, js_clients: JsClients, sentinel: Sentinel, replica: RedisServer
) -> None:
    two = await instances(2, REDIS_URL=sentinel.url, HISTORY_LIMIT=20_000)
    async with load(two, js_clients) as running:
        # Valkey 9: the old master waits for the replica, and takes nothing more.
        await sentinel.fail_over(replica, "COORDINATED")
        await running.flows()
    async with replica.client() as redis:
        assert await redis.get(ID_KEY) == str(len(running.acknowledged))


@pytest.mark.parametrize("way", ["command", "crash"])
async def test_a_failover_under_load_loses_nothing_silently(  # noqa: PLR0917 - fixtures
    instances: StartInstances,
    js_clients: JsClients,
    redis_server: RedisServer,
    sentinel: Sentinel,
    replica: RedisServer,
    way: str,
) -> None:
    """What was stored at the old master and had no copy is lost, with a `reset`: Redis' replication is so.

    After the command that is all that the old master stores until Sentinel makes it a replica, seconds later.
    """
    two = await instances(2, REDIS_URL=sentinel.url, HISTORY_LIMIT=20_000)
    everybody = await witnesses(two, js_clients)
    publishers = [await js_clients.connect(instance.base_url) for instance in two]
    stopping = False

    async def publish(publisher: JsClient, name: str) -> None:
        for number in itertools.count():
            if stopping:
                return
            text = f"{name}-{number}"
            (answer,) = await publisher.emit_many([{"text": text, "nonce": text}], retry=True)
            assert answer["ok"], answer
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as tasks:
        for publisher, name in zip(publishers, "ab", strict=True):
            tasks.create_task(publish(publisher, name))
        await everybody.clients[0].wait_for(count=50)
        if way == "command":
            await sentinel.fail_over(replica)
        else:
            await redis_server.kill()
            await sentinel.taken_over(replica)
        async with replica.client() as redis:
            stored = int(await redis.get(ID_KEY) or 0)

            async def goes_on() -> bool:
                return int(await redis.get(ID_KEY) or 0) > stored + 50

            await eventually(goes_on, otherwise=lambda: "nothing is stored at the new master")
        stopping = True
    history = await everybody.agree()
    last = len(history)
    assert [one["id"] for one in history] == list(range(last, 0, -1))
    assert len({one["text"] for one in history}) == last - 1  # the two of agree() are alike
    resets = {len(state.resets) for state in await everybody.states()}
    if resets == {0}:
        for client in everybody.clients:
            assert await client.ids() == list(range(1, last + 1))
    else:
        assert resets == {1}


async def test_without_a_replica_a_master_with_min_replicas_to_write_takes_nothing(
    instances: StartInstances, redis_server: RedisServer, replica: RedisServer
) -> None:
    await eventually(lambda: in_sync(replica), otherwise=lambda: replica.explain("is not in sync"))
    async with redis_server.client() as master:
        await master.config_set("min-replicas-to-write", 1)
        await master.config_set("min-replicas-max-lag", 2)
    (instance,) = await instances(1)
    await instance.publish("has a copy")
    replica.pause()

    async def is_refused() -> bool:
        async with instance.http() as http, http.post("/messages", json="has none") as answer:
            return answer.status == 503

    await eventually(is_refused, otherwise=lambda: instance.explain("still stores what has no copy"))
    replica.resume()

    async def is_stored() -> bool:
        async with instance.http() as http, http.post("/messages", json="has a copy again") as answer:
            return answer.status == 201

    await eventually(is_stored, otherwise=lambda: instance.explain("stores nothing any more"))


async def test_what_only_clients_of_a_killed_instance_have_is_lost_without_a_word(
    instances: StartInstances, js_clients: JsClients, redis_server: RedisServer, replica: RedisServer
) -> None:
    """A limit that docs/reliability.md names, and no promise: nobody is left who knows that the log went back."""
    await eventually(lambda: in_sync(replica), otherwise=lambda: replica.explain("is not in sync"))
    (old,) = await instances(1)
    client = await js_clients.connect(old.base_url)
    await old.publish("has a copy")
    await client.wait_for_ids(1)
    async with replica.client() as redis:
        await eventually(lambda: has_id(redis, "1"), otherwise=lambda: "the replica does not get it")
    replica.pause()
    assert (await old.publish("has none"))["id"] == 2
    await client.wait_for_ids(2)
    epoch = (await client.state()).epoch
    for program in (old, redis_server, replica):
        await program.kill()
    del replica.options["replicaof"]
    await replica.start()
    (new,) = await instances(1, REDIS_URL=replica.url)
    for number, text in ((2, "another"), (3, "one more")):
        assert (await new.publish(text))["id"] == number
    late = await js_clients.connect(new.base_url, auth={"after": 2, "epoch": epoch})
    assert await late.wait_for_ids(3) == [3]
    (session,) = (await late.state()).sessions
    assert session["recovered"] is True


async def has_id(redis: Redis, newest: str) -> bool:
    return bool(await redis.get(ID_KEY) == newest)


@pytest.mark.parametrize("sentinel", [60_000], indirect=True)  # it fails over when told to
async def test_a_failover_to_a_replica_that_lagged_loses_nothing_that_waited_for_it(
    instances: StartInstances,
    js_clients: JsClients,
    redis_server: RedisServer,
    sentinel: Sentinel,
    replica: RedisServer,
) -> None:
    two = await instances(2, REDIS_URL=sentinel.url, REDIS_WAIT_REPLICAS=1, HISTORY_LIMIT=20_000)
    publishers = [await js_clients.connect(instance.base_url) for instance in two for _ in range(2)]
    acknowledged: list[dict[str, int]] = [{} for _ in publishers]
    answers = [0] * len(publishers)
    stopping = False

    async def publish(index: int) -> None:
        for number in itertools.count():
            text = f"p{index}-{number}"
            while text not in acknowledged[index]:
                if stopping:
                    return
                answer = await publishers[index].emit("message", {"text": text, "nonce": text})
                answers[index] += 1
                if answer["ok"]:
                    acknowledged[index][text] = answer["id"]
                else:
                    assert answer["error"]["code"] == "unavailable", answer
            await asyncio.sleep(0.005)

    async def acknowledges(more: int) -> None:
        enough = [len(each) + more for each in acknowledged]

        async def flows() -> bool:
            return all(len(each) >= least for each, least in zip(acknowledged, enough, strict=True))

        await eventually(flows, otherwise=lambda: f"only {[len(each) for each in acknowledged]} of {enough}")

    async with asyncio.TaskGroup() as tasks:
        for index in range(len(publishers)):
            tasks.create_task(publish(index))
        await acknowledges(20)
        replica.pause()
        async with redis_server.client() as redis:
            newest, before = int(await redis.get(ID_KEY) or 0), [*answers]

            async def stores_more_and_answers() -> bool:
                answered = all(now > then + 1 for now, then in zip(answers, before, strict=True))
                return answered and int(await redis.get(ID_KEY) or 0) > newest

            await eventually(stores_more_and_answers, otherwise=lambda: "the master stores nothing")
        await redis_server.kill()
        # Killed as well: it would read on what waits in the kernel's buffers.
        await replica.kill()
        await replica.start()
        await sentinel.fail_over(replica)
        redis_server.options["replicaof"] = f"{HOST} {replica.port}"
        await redis_server.start()
        await acknowledges(20)
        stopping = True
    everything = {text: id_ for each in acknowledged for text, id_ in each.items()}
    for instance in two:
        history = await instance.messages(at_least=max(everything.values()))
        ids = {message["text"]: message["id"] for message in history}
        assert len(ids) == len(history)
        assert {text: ids.get(text) for text in everything} == everything


@pytest.mark.parametrize("publishes_itself", [False, True])
async def test_an_instance_leaves_a_master_that_was_made_a_replica_though_its_connections_live_on(
    instances: StartInstances,
    js_clients: JsClients,
    redis_server: RedisServer,
    replica: RedisServer,
    publishes_itself: bool,
) -> None:
    """As behind an address that moves, and leaves old connections where they are: a replica answers readers."""
    await eventually(lambda: in_sync(replica), otherwise=lambda: replica.explain("is not in sync"))
    async with (
        TcpProxy(redis_server.port) as proxy,
        redis_server.client() as old,
        replica.client() as new,
    ):
        (staying,) = await instances(1, REDIS_URL=proxy.redis_url)
        reader = await js_clients.connect(staying.base_url, track=False)
        await staying.publish("before")
        assert await reader.wait_for_ids(1) == [1]
        await eventually(lambda: has_id(new, "1"), otherwise=lambda: "the replica does not get it")
        await new.replicaof("NO", "ONE")
        await old.replicaof(HOST, free_port())  # nobody is there: it hears nothing any more
        proxy.retarget(replica.port)
        if publishes_itself:
            assert (await staying.publish("after"))["id"] == 2
        else:
            (other,) = await instances(1, REDIS_URL=replica.url)
            assert (await other.publish("after"))["id"] == 2
        assert await reader.wait_for_ids(2, within=LIVE_WITHIN) == [1, 2]
        assert (await reader.state()).resets == []
