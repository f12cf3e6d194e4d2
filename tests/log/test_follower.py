"""The follower against a real server: what the channel says late, twice, wrongly or not at all."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from ditochat.log import envelope, follower
from ditochat.log.keys import CHANNEL, EPOCH_KEY, ID_KEY, LIST_KEY, LOG_KEYS, nonce_key
from ditochat.log.scripts import APPEND
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import until
from tests.log.conftest import LIMIT, Log, StartLog, draft

NOBODY = "a channel that nobody listens to"
_batches = itertools.count()


@pytest.fixture
async def log(start_log: StartLog) -> Log:
    return await opened(await start_log())


async def opened(log: Log) -> Log:
    assert await log.follower.wait_for(lambda: log.timeline.epoch is not None, 10)
    return log


async def append(redis: Redis, *texts: str, channel: str = CHANNEL) -> list[int]:
    """Append as an instance would that knows nothing of the log; by default all are told."""
    head: list[str | bytes | int] = [
        1000, LIMIT, channel, "", 0, 600_000, 30_000, envelope.BEFORE, envelope.AFTER
    ]  # fmt: skip
    rows = [each for text in texts for each in (draft(text).body, 0, 0)]
    keys = [*LOG_KEYS, nonce_key(f"batch-of-the-test-{next(_batches)}")]
    status, _, *reply = await APPEND.run(redis, keys, [*head, *rows])
    assert status == b"OK"
    ids: list[int] = reply[::3]
    return ids


async def tell(log: Log, text: bytes, *, epoch: str | None = None) -> None:
    """Publish a text of the log again, or a wrong one."""
    name = (epoch or log.timeline.epoch or "").encode()
    await log.redis.publish(CHANNEL, envelope.BEFORE + text + envelope.AFTER + name + b'"}')


async def go_back(redis: Redis, newest: int, lost: int) -> None:
    """Lose the newest messages, as a failover to a replica that lagged does."""
    async with redis.pipeline(transaction=True) as commands:
        commands.set(ID_KEY, newest)
        commands.ltrim(LIST_KEY, lost, -1)
        await commands.execute()


def texts(log: Log) -> list[str]:
    """Return what the timeline holds, oldest first."""
    newest_first = log.timeline.newest_first(log.timeline.capacity)
    return [json.loads(message.text)["text"] for message in newest_first[::-1]]


async def commands(redis: Redis, name: str) -> int:
    """Return how often the server has run a command."""
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {}).get("calls", 0))


# ---- following


async def test_what_is_appended_is_heard_in_order(log: Log) -> None:
    await append(log.redis, "a", "b")
    await append(log.redis, "c")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 3, 10)
    assert log.listener.ids == [1, 2, 3]
    assert texts(log) == ["a", "b", "c"]
    assert log.listener.resets == []


async def test_a_hole_is_filled_before_what_comes_after_it(log: Log) -> None:
    await append(log.redis, "told")
    await append(log.redis, *(f"untold {number}" for number in range(50)), channel=NOBODY)
    await append(log.redis, "told", "told")
    assert await log.follower.wait_for(lambda: log.timeline.last_id >= 53, 10)
    assert log.listener.ids == list(range(1, 54))
    assert texts(log)[1] == "untold 0"


async def test_a_lost_last_message_is_noticed(log: Log) -> None:
    await append(log.redis, "told")
    await append(log.redis, "untold", channel=NOBODY)
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 2, 2)
    assert log.listener.ids == [1, 2]


async def test_what_was_heard_before_is_not_heard_again(log: Log) -> None:
    await append(log.redis, "a", "b", "c")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 3, 10)
    for message in log.timeline.newest_first(3) * 2:
        await tell(log, message.text)
    await append(log.redis, "d")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 4, 10)
    assert log.listener.ids == [1, 2, 3, 4]
    assert log.listener.resets == []


async def test_a_message_of_another_epoch_is_not_heard(log: Log) -> None:
    await append(log.redis, "a")
    for message_id in (1, 2, 3):
        forged = f'{{"id":{message_id},"ts":1,"text":"of another epoch"}}'.encode()
        await tell(log, forged, epoch="another")
    await append(log.redis, "b")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 2, 10)
    assert (log.listener.ids, texts(log), log.listener.resets) == ([1, 2], ["a", "b"], [])


async def test_another_message_under_a_known_id_is_looked_up_and_not_believed(log: Log) -> None:
    await append(log.redis, "a")
    await tell(log, b'{"id":1,"ts":1,"text":"forged"}')
    await append(log.redis, "b")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 2, 10)
    assert (log.listener.ids, texts(log), log.listener.resets) == ([1, 2], ["a", "b"], [])


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'{"id":2}', b'{"id":"2","ts":1,"text":"a"}', b"[2]", b"\xff", b"[" * 2000]
)
async def test_what_is_no_message_is_dropped(log: Log, text: bytes) -> None:
    await append(log.redis, "a")
    await tell(log, text)
    await append(log.redis, "b")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 2, 10)
    assert (log.listener.ids, log.listener.resets) == ([1, 2], [])


async def test_what_others_emit_is_handed_on(log: Log) -> None:
    foreign = b'{"method":"emit","event":"news","data":[1],"namespace":"/","room":"chat"}'
    await log.redis.publish(CHANNEL, foreign)
    await log.redis.publish(CHANNEL, b"\x80pickle")
    await until(lambda: len(log.listener.foreign) == 2)
    assert log.listener.foreign == [foreign, b"\x80pickle"]
    assert log.listener.ids == []


# ---- strangers in the list


STRANGERS: Sequence[bytes] = (b"plain text", b'{"uid":"u","text":"from the Go backend"}', b"\xff", b"")


async def test_strangers_in_the_list_are_passed_over_when_a_hole_is_filled(log: Log) -> None:
    await append(log.redis, "a", "b")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 2, 10)
    await log.redis.lpush(LIST_KEY, *STRANGERS)
    await append(log.redis, "untold", "untold", channel=NOBODY)
    await log.redis.lpush(LIST_KEY, *STRANGERS)
    await append(log.redis, "c")
    assert await log.follower.wait_for(lambda: log.timeline.last_id >= 5, 10)
    assert (log.listener.ids, log.listener.resets) == ([1, 2, 3, 4, 5], [])


async def test_strangers_in_the_list_are_passed_over_at_the_start(log: Log, start_log: StartLog) -> None:
    await append(log.redis, "a", "b")
    await log.redis.lpush(LIST_KEY, *STRANGERS)
    await append(log.redis, "c")
    await log.redis.lpush(LIST_KEY, *STRANGERS)
    late = await opened(await start_log())
    assert texts(late) == ["a", "b", "c"]
    assert late.timeline.epoch == log.timeline.epoch


async def test_a_repeated_nonce_is_never_answered_with_a_strangers_text(log: Log) -> None:
    first = await log.appender.append(draft("a", nonce="n"))
    await log.appender.append(draft("b"))
    for stranger in STRANGERS:
        await log.redis.lpush(LIST_KEY, stranger)
        again = await log.appender.append(draft("a", nonce="n"))
        assert (again.id, again.duplicate) == (1, True)
        assert again.text in (first.text, None)


# ---- losing continuity


async def test_more_missed_than_kept_is_a_reset_to_what_is_there(start_log: StartLog) -> None:
    log = await opened(await start_log(history_limit=5))
    await log.appender.append(draft("a"))
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 1, 10)
    epoch = log.timeline.epoch
    await append(log.redis, *(f"untold {number}" for number in range(10)), channel=NOBODY)
    await log.redis.ltrim(LIST_KEY, 0, 4)
    await append(log.redis, "told")
    await until(lambda: bool(log.listener.resets))
    assert log.listener.ids == [1]
    assert log.listener.resets == ["more messages were missed than are kept"]
    assert (log.timeline.epoch, log.timeline.last_id, len(log.timeline)) == (epoch, 12, 5)


async def test_a_log_that_started_over_is_a_reset(log: Log) -> None:
    await append(log.redis, "a", "b")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 2, 10)
    old = log.timeline.epoch
    await log.redis.flushall()
    await until(lambda: bool(log.listener.resets))
    assert (log.timeline.last_id, len(log.timeline)) == (0, 0)
    assert log.timeline.epoch not in (None, old)
    again = await log.appender.append(draft("new"))
    assert again.id == 1
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 1, 10)
    assert (log.listener.ids, len(log.listener.resets)) == ([1, 2, 1], 1)


@pytest.mark.parametrize("appended", [0, 1, 2, 3])
async def test_followers_of_a_log_that_went_back_agree_on_one_new_epoch(
    start_log: StartLog, appended: int
) -> None:
    logs = [await opened(await start_log()) for _ in range(3)]
    redis = logs[0].redis
    await append(redis, "a", "b", "lost", "lost too")
    for log in logs:
        assert await log.follower.wait_for(lambda: log.timeline.last_id == 4, 10)  # noqa: B023
    old = logs[0].timeline.epoch
    await go_back(redis, newest=2, lost=2)
    new = [f"new {number}" for number in range(appended)]
    if new:
        await append(redis, *new)
    for log in logs:
        await until(lambda: bool(log.listener.resets))  # noqa: B023
    # A tick of everybody's tail check, in which nothing may happen any more.
    assert not await logs[0].follower.wait_for(lambda: len(logs[0].listener.resets) > 1, 1.2)
    (epoch,) = {log.timeline.epoch for log in logs}
    assert epoch not in (None, old)
    assert await redis.get(EPOCH_KEY) == (epoch or "").encode()
    for log in logs:
        assert texts(log) == ["a", "b", *new]
        assert log.listener.ids == [1, 2, 3, 4]
        assert len(log.listener.resets) == 1


async def test_an_append_does_not_number_on_top_of_a_log_that_went_back(log: Log) -> None:
    await append(log.redis, "a", "b", "lost")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 3, 10)
    old = log.timeline.epoch
    await go_back(log.redis, newest=2, lost=1)
    appended = await log.appender.append(draft("new"))
    assert appended.id == 3
    assert log.timeline.epoch != old
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 3, 10)
    assert (texts(log), len(log.listener.resets)) == (["a", "b", "new"], 1)


# ---- opening


async def test_followers_that_open_at_once_agree_on_one_epoch(
    start_log: StartLog, any_redis_server: RedisServer
) -> None:
    logs = await asyncio.gather(*(start_log() for _ in range(8)))
    for log in logs:
        await opened(log)
    (epoch,) = {log.timeline.epoch for log in logs}
    async with any_redis_server.client() as redis:
        assert await redis.get(EPOCH_KEY) == epoch
        assert await redis.get(ID_KEY) == "0"
    assert all(log.listener.resets == [] for log in logs)
    assert all(log.timeline.last_id == 0 for log in logs)


async def test_followers_that_open_at_once_give_ids_to_a_list_once(
    start_log: StartLog, any_redis_server: RedisServer
) -> None:
    async with any_redis_server.client() as redis:
        await redis.rpush(LIST_KEY, *(json.dumps({"uid": "u", "text": f"{n}"}) for n in range(300, 0, -1)))
        logs = await asyncio.gather(*(start_log() for _ in range(5)))
        for log in logs:
            await opened(log)
            assert texts(log) == [str(number) for number in range(1, 301)]
            assert log.timeline.last_id == 300
        assert await redis.llen(LIST_KEY) == 300
        assert await redis.get(ID_KEY) == "300"
    assert len({log.timeline.epoch for log in logs}) == 1


async def test_a_follower_whose_redis_comes_later_begins_then(
    start_log: StartLog, any_redis_server: RedisServer
) -> None:
    await any_redis_server.stop()
    log = await start_log()
    assert not await log.follower.wait_for(lambda: log.timeline.epoch is not None, 0.5)
    assert "not read yet" in (log.follower.trouble or "")
    await any_redis_server.start()
    assert await log.follower.wait_for(lambda: log.timeline.epoch is not None, 2.5)
    assert log.follower.trouble is None
    assert log.listener.resets == []  # nobody was there to be told


# ---- can_decide


async def test_redis_is_asked_about_a_position_that_is_not_known_yet(log: Log) -> None:
    await append(log.redis, "a")
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 1, 10)
    await append(log.redis, "untold", "untold", channel=NOBODY)
    assert await log.follower.can_decide(3, log.timeline.epoch, 5)
    assert log.timeline.can_replay(3, log.timeline.epoch)
    assert log.listener.ids == [1, 2, 3]


async def test_a_position_that_redis_does_not_know_is_decided_too(log: Log) -> None:
    await append(log.redis, "a")
    assert await log.follower.can_decide(99, log.timeline.epoch, 5)
    assert await log.follower.can_decide(1, "another epoch", 5)
    assert not log.timeline.can_replay(99, log.timeline.epoch)
    assert not log.timeline.can_replay(1, "another epoch")


@pytest.mark.parametrize("way", ["kill", "pause"])
async def test_without_redis_only_what_is_known_is_decided(
    start_log: StartLog, any_redis_server: RedisServer, way: str
) -> None:
    log = await opened(await start_log(history_limit=5))
    for number in range(8):
        await log.appender.append(draft(f"{number}"))
    assert await log.follower.wait_for(lambda: log.timeline.last_id == 8, 10)
    epoch = log.timeline.epoch
    if way == "kill":
        await any_redis_server.kill()
    else:
        any_redis_server.pause()
    try:
        begin = time.monotonic()
        for after, of in ((None, None), (8, epoch), (3, epoch), (5, None), (1, epoch)):
            assert await log.follower.can_decide(after, of, 5)
        assert time.monotonic() - begin < 0.5
        for after, of in ((9, epoch), (5, "another"), (99, None)):
            begin = time.monotonic()
            assert not await log.follower.can_decide(after, of, 0.5)
            assert 0.4 < time.monotonic() - begin < 1.0
        # Who waits longer is told once Redis is back.
        deciding = asyncio.create_task(log.follower.can_decide(9, epoch, 10))
        _, waiting = await asyncio.wait([deciding], timeout=1)
        assert waiting
    finally:
        if way == "kill":
            await any_redis_server.start()
        else:
            any_redis_server.resume()
    async with asyncio.timeout(2.5):
        assert await deciding


# ---- synchronize


async def test_who_asks_at_the_same_time_shares_one_reading(log: Log) -> None:
    await append(log.redis, "a", "b", channel=NOBODY)
    before = await commands(log.redis, "evalsha")
    await asyncio.gather(*(log.follower.synchronize() for _ in range(100)))
    # One, perhaps a second of the tail check's.
    assert 1 <= await commands(log.redis, "evalsha") - before <= 2
    assert log.listener.ids == [1, 2]


async def test_who_asks_during_a_reading_gets_the_next_one(log: Log) -> None:
    for number in range(1, 31):
        early = asyncio.create_task(log.follower.synchronize())
        await asyncio.sleep(0)
        await append(log.redis, "untold", channel=NOBODY)
        await log.follower.synchronize()
        assert log.timeline.last_id == number
        await early


async def test_who_gives_up_takes_nobody_along(log: Log) -> None:
    await append(log.redis, "a", channel=NOBODY)
    asking = [asyncio.create_task(log.follower.synchronize()) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.gather(*asking[1:])
    assert asking[0].cancelled()
    assert log.timeline.last_id == 1


async def test_all_who_ask_are_told_that_redis_is_away(log: Log, any_redis_server: RedisServer) -> None:
    await any_redis_server.kill()
    outcomes = await asyncio.gather(*(log.follower.synchronize() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    await any_redis_server.start()
    await log.follower.synchronize()


# ---- a subscription that ends


async def test_an_instance_that_stood_still_gives_its_subscription_up_and_goes_on(
    start_log: StartLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "TAIL_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(follower, "SILENCE_SECONDS", 0.1)
    log = await opened(await start_log())
    for _ in range(10):
        await until(lambda: b"ditochat_subscribed 1.0" in log.metrics.render())
        # When the process goes on, all that was due comes in one turn of the loop: the question whether the
        # subscription lives, and the end of the patience with it.
        time.sleep(0.3)  # noqa: ASYNC251 - that is the point
    assert (await log.appender.append(draft("after all that"))).id == 1
    await until(lambda: log.listener.ids == [1])
