"""The append script and the appender, against a real server: order, nonces, limits, atomicity."""

import asyncio
import json

import pytest

from ditochat.errors import TooLarge, Unavailable
from ditochat.log import appender as appender_module
from ditochat.log import envelope
from ditochat.log.keys import CHANNEL, EPOCH_KEY, ID_KEY, LIST_KEY, LOG_KEYS, nonce_key
from ditochat.log.scripts import APPEND
from ditochat.message import StoredMessage
from tests.harness.redis_server import RedisServer
from tests.log.conftest import LIMIT, Log, StartLog, draft


@pytest.fixture
async def log(start_log: StartLog) -> Log:
    return await start_log(history_limit=5)


async def test_messages_are_numbered_from_one_without_a_hole(log: Log) -> None:
    appended = [await log.appender.append(draft(str(number))) for number in range(3)]
    assert [one.id for one in appended] == [1, 2, 3]
    assert [one["id"] for one in await log.stored()] == [3, 2, 1]


async def test_the_stored_text_has_id_and_ts_first_then_the_fields_as_given(log: Log) -> None:
    appended = await log.appender.append(draft("é", uid="u", x=[1.5], date="2026-01-31"))
    assert appended.text is not None
    stored = StoredMessage.parse(appended.text)
    seconds, _ = await log.redis.time()
    assert abs(stored.ts - int(seconds) * 1000) < 10_000
    assert appended.text == (
        f'{{"id":1,"ts":{stored.ts},"text":"é","uid":"u","x":[1.5],"date":"2026-01-31"}}'.encode()
    )


async def test_a_date_is_made_from_ts_where_there_is_none(log: Log) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415  # only this test speaks of dates

    appended = await log.appender.append(draft("a"))
    message = json.loads(appended.text or b"")
    expected = datetime.fromtimestamp(message["ts"] / 1000, UTC)
    assert datetime.fromisoformat(message["date"]) == expected.replace(
        microsecond=expected.microsecond // 1000 * 1000
    )
    assert message["date"].endswith("Z")


async def test_calls_in_one_turn_are_stored_in_their_order(log: Log) -> None:
    appended = await asyncio.gather(*(log.appender.append(draft(str(n))) for n in range(600)))
    assert [one.id for one in appended] == list(range(1, 601))
    assert [json.loads(one.text or b"")["text"] for one in appended] == [str(n) for n in range(600)]


async def test_the_list_keeps_the_newest(log: Log) -> None:
    for number in range(8):
        await log.appender.append(draft(str(number)))
    assert [one["id"] for one in await log.stored()] == [8, 7, 6, 5, 4]


async def test_a_nonce_is_stored_once_and_answered_with_the_first_id(log: Log) -> None:
    first = await log.appender.append(draft("a", nonce="n"))
    await log.appender.append(draft("b"))
    again = await log.appender.append(draft("another text", nonce="n"))
    assert (first.id, first.duplicate) == (1, False)
    assert (again.id, again.duplicate, again.text) == (1, True, first.text)
    assert len(await log.stored()) == 2
    assert 590_000 < await log.redis.pttl(nonce_key("n")) <= 600_000


async def test_a_nonce_twice_in_one_batch_is_stored_once(log: Log) -> None:
    first, again, other = await asyncio.gather(
        log.appender.append(draft("a", nonce="n")),
        log.appender.append(draft("a", nonce="n")),
        log.appender.append(draft("b")),
    )
    assert (first.id, again.id, other.id) == (1, 1, 2)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.text == first.text


async def test_a_repeat_of_what_is_no_longer_kept_has_its_id_and_no_text(log: Log) -> None:
    await log.appender.append(draft("a", nonce="n"))
    for number in range(6):
        await log.appender.append(draft(str(number)))
    again = await log.appender.append(draft("a", nonce="n"))
    assert (again.id, again.duplicate, again.text) == (1, True, None)


async def test_the_limit_holds_for_the_message_as_stored_to_the_byte(log: Log) -> None:
    exact = draft("a", date="2026-01-31")
    stored = await log.appender.append(exact)
    padding = LIMIT - len(stored.text or b"")
    fits = await log.appender.append(draft("a" + "x" * padding, date="2026-01-31"))
    assert len(fits.text or b"") == LIMIT
    with pytest.raises(TooLarge):
        await log.appender.append(draft("a" + "x" * (padding + 1), date="2026-01-31"))
    after = await log.appender.append(draft("next"))
    assert after.id == 3


async def test_a_batch_whose_answer_was_lost_is_answered_again_and_stored_once(log: Log) -> None:
    await log.appender.append(draft("known", nonce="old"))
    keys = [*LOG_KEYS, nonce_key("batch-1"), nonce_key("n1"), nonce_key("old"), nonce_key("n1")]
    head: list[str | bytes | int] = [
        100,
        LIMIT,
        CHANNEL,
        "",
        0,
        600_000,
        30_000,
        envelope.BEFORE,
        envelope.AFTER,
    ]
    rows: list[str | bytes | int] = [
        b'{"text":"a"}', 0, 0,
        b'{"text":"b"}', 0, 1,
        b'{"text":"known"}', 0, 1,
        b'{"text":"b"}', 0, 1,
        b'{"text":"' + b"x" * LIMIT + b'"}', 0, 0,
        b'{"text":"c"}', 0, 0,
    ]  # fmt: skip
    first = await APPEND.run(log.redis, keys, [*head, *rows])
    again = await APPEND.run(log.redis, keys, [*head, *rows])
    assert again == first
    assert first[2::3] == [2, 3, 1, 3, 4, 4]
    assert first[3::3] == [0, 0, 1, 1, 2, 0]
    assert [one["id"] for one in await log.stored()] == [4, 3, 2, 1]


async def test_what_is_published_is_what_is_stored(log: Log) -> None:
    pubsub = log.redis.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(CHANNEL)
    await pubsub.get_message(timeout=5)
    appended = await log.appender.append(draft("a"))
    published = None
    while published is None:
        published = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
    await pubsub.aclose()
    epoch = (await log.redis.execute_command("GET", EPOCH_KEY)).decode()
    assert envelope.open_envelope(published["data"]) == (epoch, appended.text)


async def test_a_list_of_another_type_is_left_alone(log: Log) -> None:
    await log.appender.append(draft("a"))
    await log.redis.delete(LIST_KEY)
    await log.redis.set(LIST_KEY, "not a list")
    with pytest.raises(Unavailable):
        await log.appender.append(draft("b"))
    assert await log.redis.get(ID_KEY) == b"1"


async def test_without_redis_a_publish_fails_in_time_and_is_not_stored_later(
    log: Log, any_redis_server: RedisServer
) -> None:
    await log.appender.append(draft("a"))
    await any_redis_server.kill()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    with pytest.raises(Unavailable):
        await log.appender.append(draft("lost", nonce="n"))
    assert loop.time() - begin < 2.0
    await any_redis_server.start()
    after = await log.appender.append(draft("b"))
    assert after.id == 2
    assert [one["text"] for one in await log.stored()] == ["b", "a"]


async def test_a_redis_that_does_not_answer_is_unavailable_too(
    log: Log, any_redis_server: RedisServer
) -> None:
    await log.appender.append(draft("a"))
    any_redis_server.pause()
    try:
        with pytest.raises(Unavailable):
            await log.appender.append(draft("b", nonce="n"))
    finally:
        any_redis_server.resume()
    # Whether it was stored nobody knows; under its nonce it is there once, in any case.
    again = await log.appender.append(draft("b", nonce="n"))
    assert again.id == 2
    assert [one["text"] for one in await log.stored()] == ["b", "a"]


async def test_too_many_waiting_messages_are_refused_at_once(
    log: Log, any_redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender_module, "MAX_UNANSWERED", 3)
    await log.appender.append(draft("a"))
    any_redis_server.pause()
    try:
        waiting = [asyncio.create_task(log.appender.append(draft("w"))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many"):
            await log.appender.append(draft("one more"))
        await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        any_redis_server.resume()
