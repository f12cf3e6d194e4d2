"""HTTP, seen from outside: section 5 of the contract, request by request."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.conftest import StartInstances
from tests.harness.go_frontend import GoFrontend
from tests.harness.instance import Instance
from tests.harness.raw_client import RawHttp
from tests.harness.redis_server import RedisServer
from tests.harness.waiting import eventually

JSON = {"Content-Type": "application/json"}
LIMIT = 4096  # MAX_MESSAGE_BYTES, its default
BODY_LIMIT = 1_000_000  # the largest body at that limit
OTHER = "http://other.example"


@pytest.fixture
async def http(instance: Instance) -> AsyncIterator[aiohttp.ClientSession]:
    async with instance.http(auto_decompress=False) as session:
        yield session


async def problem(answer: aiohttp.ClientResponse, status: int, code: str = "invalid") -> dict[str, Any]:
    """Return the problem document that the answer must be."""
    text = await answer.text()
    assert answer.status == status, text
    assert answer.content_type == "application/problem+json"
    document: dict[str, Any] = json.loads(text)
    assert document["type"] == "about:blank"
    assert document["status"] == status
    assert document["code"] == code
    assert isinstance(document["title"], str)
    assert document["title"]
    assert isinstance(document["detail"], str)
    assert document["detail"]
    return document


async def publish(instance: Instance, *texts: str) -> list[int]:
    return [(await instance.publish(text))["id"] for text in texts]


# ---- GET /messages


async def test_the_history_is_newest_first(instance: Instance) -> None:
    ids = await publish(instance, "one", "two", "three")
    assert ids == [ids[0], ids[0] + 1, ids[0] + 2]
    messages = await instance.messages(at_least=ids[-1])
    assert [(message["id"], message["text"]) for message in messages[:3]] == [
        (ids[2], "three"), (ids[1], "two"), (ids[0], "one"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"limit": 2}, [5, 4]),
        ({"limit": 1}, [5]),
        ({"after": 2}, [5, 4, 3]),
        ({"after": 5}, []),
        ({"after": 500}, []),
        ({"after": 2, "limit": 2}, [5, 4]),
        ({"before": 4, "limit": 2}, [3, 2]),
        ({"before": 4, "after": 1}, [3, 2]),
        ({"before": 4, "after": 1, "limit": 1}, [3]),
        ({"before": 4, "after": 3}, []),
        ({"before": 2, "after": 4}, []),
        ({"before": 500, "limit": 1}, [5]),
        ({"after": 3, "limit": 100_000, "at_least": 5}, [5, 4]),
    ],
)
async def test_a_part_of_the_history(instance: Instance, params: dict[str, int], expected: list[int]) -> None:
    first, *_, last = await publish(instance, "1", "2", "3", "4", "5")
    await instance.messages(at_least=last)
    base = first - 1
    asked = {name: value if name == "limit" else base + value for name, value in params.items()}
    assert [message["id"] - base for message in await instance.messages(**asked)] == expected


async def test_before_the_first_message_there_is_nothing(instance: Instance) -> None:
    assert await instance.messages(before=0) == await instance.messages(before=1) == []


@pytest.mark.parametrize("name", ["limit", "before", "after", "at_least"])
@pytest.mark.parametrize(
    "value", ["", "-1", "abc", "1.5", "1e3", "+1", " 1", "0x10", "\u0663", "\u00b2", "9" * 17, "9" * 5000]
)
async def test_a_bad_number_is_refused_and_named(http: aiohttp.ClientSession, name: str, value: str) -> None:
    async with http.get("/messages", params={name: value}) as answer:
        document = await problem(answer, 400)
    assert document["field"] == name
    assert name in document["detail"]
    assert len(document["detail"]) < 200


async def test_a_limit_of_none_at_all_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.get("/messages", params={"limit": 0}) as answer:
        assert (await problem(answer, 400))["field"] == "limit"


async def test_no_more_is_kept_than_the_history_limit(instances: StartInstances) -> None:
    [small] = await instances(HISTORY_LIMIT=3)
    ids = await publish(small, *"abcdefg")
    for params in ({}, {"limit": 100}, {"after": 0}):
        messages = await small.messages(at_least=ids[-1], **params)
        assert [message["text"] for message in messages] == ["g", "f", "e"]


async def test_at_least_waits_for_what_is_on_its_way(instance: Instance, http: aiohttp.ClientSession) -> None:
    [known] = await publish(instance, "known")
    waiting = asyncio.create_task(instance.messages(at_least=known + 1, limit=1))
    async with http.get("/messages", params={"at_least": known}) as answer:  # the other asks meanwhile
        assert answer.status == 200
    assert not waiting.done()
    [awaited] = await publish(instance, "awaited")
    assert [message["id"] for message in await waiting] == [awaited]


async def test_what_was_published_on_one_instance_is_read_on_another(instances: StartInstances) -> None:
    one, other = await instances(2)
    for number in range(10):
        [published] = await publish(one, f"message {number}")
        messages = await other.messages(at_least=published, limit=1)
        assert [message["text"] for message in messages] == [f"message {number}"]


async def test_at_least_gives_up_after_two_seconds(http: aiohttp.ClientSession) -> None:
    begin = time.monotonic()
    async with http.get("/messages", params={"at_least": 2**53 - 1}) as answer:
        await problem(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert 1.9 < time.monotonic() - begin < 4


async def test_an_unchanged_history_is_not_sent_again(
    instance: Instance, http: aiohttp.ClientSession
) -> None:
    [known] = await publish(instance, "known")
    async with http.get("/messages", params={"at_least": known}) as answer:
        etag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "no-cache"
    strong = etag.removeprefix("W/")
    for header in (etag, strong, "*", f'"other", {etag}', f'W/"a",{strong} , "b"'):
        for method in ("GET", "HEAD"):
            async with http.request(method, "/messages", headers={"If-None-Match": header}) as answer:
                assert answer.status == 304, header
                assert answer.headers["ETag"] == etag
                assert "Accept-Encoding" in answer.headers["Vary"]
                assert await answer.read() == b""
    for header in ('"other"', 'W/"other", "another"', strong[1:-1], ""):
        async with http.get("/messages", headers={"If-None-Match": header}) as answer:
            assert answer.status == 200, header


async def test_a_changed_history_is_sent_again(instance: Instance, http: aiohttp.ClientSession) -> None:
    [known] = await publish(instance, "known")
    async with http.get("/messages", params={"at_least": known}) as answer:
        etag = answer.headers["ETag"]
    [newer] = await publish(instance, "newer")
    headers = {"If-None-Match": etag}
    async with http.get("/messages", params={"at_least": newer, "limit": 1}, headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["ETag"] != etag
        assert (await answer.json())[0]["id"] == newer


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5, *;q=0", True),
        ("deflate, gzip; q=1.0", True),
        ("*", True),
        ("*;q=0, gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, deflate", False),
        ("*, gzip;q=0", False),
        ("*;q=0", False),
        ("identity", False),
        ("br", False),
        ("gzipped", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("params", [{}, {"limit": "10"}], ids=["all", "a part"])
async def test_a_history_is_zipped_for_who_accepts_that(
    instance: Instance, http: aiohttp.ClientSession, accepted: str, zipped: bool, params: dict[str, str]
) -> None:
    ids = await publish(instance, *("\u00e9" * 1000 for _ in range(2)))
    async with http.get(
        "/messages", params={"at_least": ids[-1], **params}, headers={"Accept-Encoding": accepted}
    ) as answer:
        assert answer.headers.get("Content-Encoding") == ("gzip" if zipped else None)
        assert "Accept-Encoding" in answer.headers["Vary"]
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        body = await answer.read()
    messages = json.loads(gzip.decompress(body) if zipped else body)
    assert [message["id"] for message in messages[:2]] == ids[::-1]


async def test_a_history_that_nobody_asked_to_be_zipped_is_not(
    instance: Instance, http: aiohttp.ClientSession
) -> None:
    [last] = await publish(instance, "x" * 3000)
    async with http.get(
        "/messages", params={"at_least": last}, skip_auto_headers=["Accept-Encoding"]
    ) as answer:
        assert "Content-Encoding" not in answer.headers
        assert (await answer.json())[0]["id"] == last


async def test_many_ask_for_the_zipped_history_while_it_changes(instance: Instance) -> None:
    async def read(session: aiohttp.ClientSession) -> None:
        async with session.get("/messages", headers={"Accept-Encoding": "gzip"}) as answer:
            ids = [message["id"] for message in await answer.json()]
            assert ids == sorted(ids, reverse=True)

    async with instance.http() as session, asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(instance.publish(f"{number} " + "x" * 2000))
            for _ in range(5):
                tasks.create_task(read(session))


async def test_head_says_what_get_would(instance: Instance, http: aiohttp.ClientSession) -> None:
    [last] = await publish(instance, "x" * 2000)
    seen = []
    for method in ("GET", "HEAD"):
        async with http.request(method, "/messages", params={"at_least": last}) as answer:
            assert answer.status == 200
            assert bool(await answer.read()) is (method == "GET")
            seen.append({name: answer.headers[name] for name in ("ETag", "Content-Type", "Content-Length")})
    assert seen[0] == seen[1]


# ---- other pages


async def test_the_own_page_may_read_and_write(instance: Instance, http: aiohttp.ClientSession) -> None:
    headers = {"Origin": instance.base_url}
    async with http.get("/messages", headers=headers) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == instance.base_url
        assert sorted(answer.headers["Vary"].split(", ")) == ["Accept-Encoding", "Origin"]
    async with http.post("/messages", json="hello", headers=headers) as answer:
        assert answer.status == 201


async def test_by_default_no_other_page_may(instance: Instance, http: aiohttp.ClientSession) -> None:
    [last] = await publish(instance, "before")
    headers = {"Origin": OTHER}
    async with http.get("/messages", headers=headers) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.headers["Vary"]
    async with http.post("/messages", json="hello", headers=headers) as answer:
        assert OTHER in (await problem(answer, 403, "forbidden_origin"))["detail"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    async with http.options(
        "/messages", headers={**headers, "Access-Control-Request-Method": "POST"}
    ) as answer:
        await problem(answer, 403, "forbidden_origin")
    async with http.post("/messages", json="hello", headers={"Origin": "null"}) as answer:
        await problem(answer, 403, "forbidden_origin")
    [following] = await publish(instance, "after")
    assert following == last + 1


async def test_listed_pages_may_read_and_write(instances: StartInstances) -> None:
    allowed = ("http://app.example", "https://b.example:8443")
    [listing] = await instances(ALLOWED_ORIGIN=", ".join(allowed))
    async with listing.http() as http:
        for origin in allowed:
            headers = {"Origin": origin}
            async with http.get("/messages", headers=headers) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == origin
                assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
                assert sorted(answer.headers["Vary"].split(", ")) == ["Accept-Encoding", "Origin"]
            async with http.post("/messages", json="hello", headers=headers) as answer:
                assert answer.status == 201
                assert answer.headers["Access-Control-Allow-Origin"] == origin
            async with http.get("/messages?limit=x", headers=headers) as answer:  # errors, too
                await problem(answer, 400)
                assert answer.headers["Access-Control-Allow-Origin"] == origin
        for origin in (OTHER, "https://app.example", "http://app.example:81"):
            async with http.get("/messages", headers={"Origin": origin}) as answer:
                assert "Access-Control-Allow-Origin" not in answer.headers
            async with http.post("/messages", json="hello", headers={"Origin": origin}) as answer:
                await problem(answer, 403, "forbidden_origin")
        preflight = {
            "Origin": allowed[0],
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,idempotency-key",
        }
        async with http.options("/messages", headers=preflight) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == allowed[0]
            assert answer.headers["Vary"] == "Origin"
            methods = answer.headers["Access-Control-Allow-Methods"].split(", ")
            assert {"GET", "POST"} <= set(methods)
            names = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert {"content-type", "idempotency-key"} <= set(names)
            assert await answer.read() == b""


async def test_a_star_lets_every_page_read_and_write(instances: StartInstances) -> None:
    [open_to_all] = await instances(ALLOWED_ORIGIN="*")
    async with open_to_all.http() as http:
        for origin in (OTHER, "null", open_to_all.base_url):
            async with http.get("/messages", headers={"Origin": origin}) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
                # The answer is the same for all, and a star with credentials is refused by browsers.
                assert answer.headers["Vary"] == "Accept-Encoding"
                assert "Access-Control-Allow-Credentials" not in answer.headers
            async with http.post("/messages", json="hello", headers={"Origin": origin}) as answer:
                assert answer.status == 201
        preflight = {"Origin": OTHER, "Access-Control-Request-Method": "POST"}
        async with http.options("/messages", headers=preflight) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


# ---- POST /messages


async def test_the_answer_is_the_message_as_stored(instance: Instance, http: aiohttp.ClientSession) -> None:
    sent = {"id": 7, "uid": "u1", "text": "  h\u00e9llo\n", "ts": 1, "x": {"y": [1, 2.5, None]}}
    async with http.post("/messages", json=sent) as answer:
        assert answer.status == 201
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        body = await answer.text()
    stored = json.loads(body)
    assert list(stored)[:2] == ["id", "ts"]
    assert abs(stored["ts"] / 1000 - time.time()) < 60
    assert stored["id"] != 7
    assert stored["date"]
    fields = {"id": stored["id"], "ts": stored["ts"], "date": stored["date"]}
    assert stored == {"uid": "u1", "text": "h\u00e9llo", "x": {"y": [1, 2.5, None]}, **fields}
    assert body == json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
    params = {"limit": 1, "at_least": stored["id"]}
    async with http.get("/messages", params=params) as answer:
        assert await answer.text() == f"[{body}]"


async def test_a_string_is_a_message_with_this_text(instance: Instance) -> None:
    stored = await instance.publish(" hello ")
    assert stored["text"] == "hello"
    assert set(stored) == {"id", "ts", "text", "date"}


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.chat+json"]
)
async def test_a_json_content_type_is_taken(http: aiohttp.ClientSession, content_type: str) -> None:
    async with http.post("/messages", data=b'"hello"', headers={"Content-Type": content_type}) as answer:
        assert answer.status == 201


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json", "json"]
)
async def test_any_other_content_type_is_refused(
    http: aiohttp.ClientSession, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with http.post(
        "/messages", data=b'"hello"', headers=headers, skip_auto_headers=["Content-Type"]
    ) as answer:
        await problem(answer, 415, "unsupported_media_type")


async def test_a_repeat_with_the_same_key_is_answered_with_the_first(
    instance: Instance, http: aiohttp.ClientSession
) -> None:
    key = "k" * 64
    bodies = []
    for text, status in (("first", 201), ("first", 200), ("another", 200)):
        async with http.post("/messages", json=text, headers={"Idempotency-Key": key}) as answer:
            assert answer.status == status
            bodies.append(await answer.text())
    assert bodies[0] == bodies[1] == bodies[2]
    first = json.loads(bodies[0])
    assert first["text"] == "first"
    assert first["nonce"] == key
    async with http.post("/messages", json={"text": "again", "nonce": key}) as answer:
        assert answer.status == 200
        assert (await answer.json())["id"] == first["id"]
    assert await publish(instance, "next") == [first["id"] + 1]


async def test_the_key_takes_the_place_of_the_nonce(instance: Instance) -> None:
    stored = await instance.publish({"text": "hello", "nonce": "body"}, nonce="header")
    assert stored["nonce"] == "header"


@pytest.mark.parametrize("key", ["k" * 65, "", "k" * 5000])
async def test_a_bad_key_is_refused(http: aiohttp.ClientSession, key: str) -> None:
    async with http.post("/messages", json="hello", headers={"Idempotency-Key": key}) as answer:
        assert (await problem(answer, 400))["field"] == "Idempotency-Key"


async def test_the_same_key_at_the_same_time_is_stored_once(instances: StartInstances) -> None:
    both = await instances(2)

    async def post(session: aiohttp.ClientSession) -> tuple[int, int]:
        async with session.post("/messages", json="once", headers={"Idempotency-Key": "same"}) as answer:
            return answer.status, (await answer.json())["id"]

    async with both[0].http() as one, both[1].http() as other:
        answers = await asyncio.gather(*(post(session) for session in (one, other) * 20))
    assert sorted(answers) == [(200, 1)] * 39 + [(201, 1)]
    for instance in both:
        assert [message["id"] for message in await instance.messages(at_least=1)] == [1]


async def test_the_limit_is_that_of_the_message_as_stored(
    instance: Instance, http: aiohttp.ClientSession
) -> None:
    async with http.post("/messages", json="x") as answer:
        before = await answer.read()
    last = json.loads(before)["id"]
    longer_id = len(str(last + 1)) - len(str(last))
    text = "x" * (1 + LIMIT - len(before) - longer_id)
    async with http.post("/messages", json=text + "x") as answer:
        assert str(LIMIT) in (await problem(answer, 413, "too_large"))["detail"]
    # Escapes make the body six times as long, and the message no longer.
    escaped = '"' + "".join(f"\\u{ord(letter):04x}" for letter in text) + '"'
    async with http.post("/messages", data=escaped, headers=JSON) as answer:
        assert answer.status == 201
        assert len(await answer.read()) == LIMIT
    async with http.post("/messages", json=text + "x" * 100) as answer:  # refused before Redis is asked
        await problem(answer, 413, "too_large")


async def test_another_limit_can_be_set(instances: StartInstances) -> None:
    [large] = await instances(MAX_MESSAGE_BYTES=300_000)
    stored = await large.publish("x" * 200_000)
    assert len(stored["text"]) == 200_000
    async with large.http() as http, http.post("/messages", json="x" * 300_000) as answer:
        await problem(answer, 413, "too_large")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_not_read(http: aiohttp.ClientSession, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * (BODY_LIMIT // 10)

    data = chunks() if chunked else b" " * (BODY_LIMIT + 1)
    async with http.post("/messages", data=data, headers=JSON) as answer:
        assert str(BODY_LIMIT) in (await problem(answer, 413, "too_large"))["detail"]


async def test_a_body_may_be_zipped(http: aiohttp.ClientSession) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    async with http.post("/messages", data=gzip.compress(b'"hello"'), headers=headers) as answer:
        assert (answer.status, (await answer.json())["text"]) == (201, "hello")
    async with http.post("/messages", data=gzip.compress(b" " * 20_000_000), headers=headers) as answer:
        await problem(answer, 413, "too_large")
    async with http.post("/messages", data=b"not zipped at all", headers=headers) as answer:
        await problem(answer, 400)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b" ", None),
        (b"hello", None),
        (b"{", None),
        (b'{"text":"a"', None),
        (b'{"text":"a"} {"text":"b"}', None),
        (b"{'text':'a'}", None),
        (b'{"text":NaN}', None),
        (b'{"text":"a","x":NaN}', None),
        (b'{"text":"a","x":-Infinity}', None),
        (b'{"text":"a","x":1e400}', "x"),
        (b'{"text":"a","x":' + b"1" * 5000 + b"}", None),
        (b'\xff"a"', None),
        (b'"\xc3("', None),
        (b'"\xed\xa0\x80"', None),
        (b'\xef\xbb\xbf"a"', None),
        (b"null", None),
        (b"5", None),
        (b"true", None),
        (b'["a"]', None),
        (b'""', "text"),
        (b'" \\t\\n "', "text"),
        (b"{}", "text"),
        (b'{"text":5}', "text"),
        (b'{"text":null}', "text"),
        (b'{"text":["a"]}', "text"),
        (b'{"text":"a\\u0000b"}', "text"),
        (b'{"text":"\\ud800"}', "text"),
        (b'{"text":"a","x":["\\udfff"]}', "x[0]"),
        (b'{"text":"a","\\ud800":1}', "a field's name"),
        (b'{"text":"a","uid":5}', "uid"),
        (b'{"text":"a","uid":"' + b"u" * 129 + b'"}', "uid"),
        (b'{"text":"a","title":{}}', "title"),
        (b'{"text":"a","title":"' + b"t" * 129 + b'"}', "title"),
        (b'{"text":"a","date":"yesterday"}', "date"),
        (b'{"text":"a","date":1700000000}', "date"),
        (b'{"text":"a","nonce":""}', "nonce"),
        (b'{"text":"a","nonce":5}', "nonce"),
        (b'{"text":"a","nonce":"' + b"n" * 65 + b'"}', "nonce"),
        (b"[" * 400_000, None),
        (b'{"text":"a","x":' + b"[" * 100 + b"]" * 100 + b"}", ("x" + "[0]" * 31)[:80]),
        (b'{"text":"a","x":' + b'{"y":' * 50_000 + b"1" + b"}" * 50_000 + b"}", None),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_bad_body_is_refused(http: aiohttp.ClientSession, body: bytes, field: str | None) -> None:
    async with http.post("/messages", data=body, headers=JSON) as answer:
        document = await problem(answer, 400)
    assert document.get("field") == field
    assert len(document["detail"]) < 300


async def test_what_is_refused_reaches_nobody(instance: Instance, http: aiohttp.ClientSession) -> None:
    [before] = await publish(instance, "before")
    async with GoFrontend(instance.base_url) as frontend:
        for body in (b'{"text":""}', b"[" * 1000, b'"' + b"x" * 5000 + b'"'):
            async with http.post("/messages", data=body, headers=JSON) as answer:
                assert answer.status in (400, 413)
        [after] = await publish(instance, "after")
        await frontend.wait_for(last=after)
        assert frontend.ids == [after] == [before + 1]


async def test_a_message_over_http_reaches_the_connected(instance: Instance) -> None:
    async with GoFrontend(instance.base_url) as frontend:
        stored = await instance.publish({"uid": "u1", "text": "hello", "title": "Ann"})
        await frontend.wait_for(count=1)
        assert frontend.messages == [stored]


# ---- what lives where


UNKNOWN = ["/nothing", "/messages/", "/messages/1", "/app.js/x", "/vendor",
           "/%00", "/app.js%00", "/%ff", "/" + "a" * 300]  # fmt: skip
UNKNOWN_SCRIPTS = ["/socket.io/socket.io.min.js.map", "/socket.io/socket.io" + "a" * 300 + ".js"]


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method in ("GET", "POST", "DELETE") for path in UNKNOWN]
    + [("GET", path) for path in UNKNOWN_SCRIPTS],
    ids=lambda value: value[:40],
)
async def test_an_unknown_path_is_not_found(
    instance: Instance, http: aiohttp.ClientSession, method: str, path: str
) -> None:
    async with http.request(method, URL(instance.base_url + path, encoded=True)) as answer:
        await problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/..%2f..%2fpyproject.toml",
        "/..%2fpyproject.toml",
        "/%2e%2e/README.md",
        "/../README.md",
        "/vendor/../../README.md",
        "/vendor/%2e%2e%2f%2e%2e%2fREADME.md",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/..%5c..%5cpyproject.toml",
        "/socket.io/..%2f..%2f..%2fpyproject.toml",
        "/socket.io/%2e%2e/%2e%2e/README.md",
    ],
)
async def test_nothing_outside_the_page_is_served(instance: Instance, path: str) -> None:
    # By hand: a client would clean the path up.
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b'"code":"not_found"}')


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/messages", "GET, HEAD, POST"),
        ("PUT", "/messages", "GET, HEAD, POST"),
        ("PATCH", "/messages", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/ws", "GET"),
        ("HEAD", "/ws", "GET"),
    ],
)
async def test_a_wrong_method_is_refused_and_the_right_ones_named(
    http: aiohttp.ClientSession, method: str, path: str, allowed: str
) -> None:
    async with http.request(method, path) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == allowed
        if method != "HEAD":
            await problem(answer, 405)


async def test_the_page_and_its_client_are_served(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        page = await answer.text()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "<html" in page
    for path in ("/index.html", "/app.js", "/style.css", "/socket.io/socket.io.min.js"):
        async with http.get(path) as answer:
            assert answer.status == 200, path
            assert await answer.read()
    async with http.get("/socket.io/socket.io.min.js") as answer:
        assert "javascript" in answer.content_type
        assert b"Socket.IO v4" in await answer.read()


async def test_alive_and_ready(instance: Instance, http: aiohttp.ClientSession) -> None:
    [last] = await publish(instance, "hello")
    await instance.messages(at_least=last)
    async with http.get("/healthz") as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
    async with http.get("/readyz") as answer:
        assert answer.status == 200
        assert (await answer.json())["last_id"] == last


async def test_the_metrics_count(instance: Instance, http: aiohttp.ClientSession) -> None:
    async with http.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert b"# TYPE ditochat_publishes_total counter" in await answer.read()
    before = await instance.metrics()
    await publish(instance, "one", "two")
    for body in (b"{}", b"nothing", b'"' + b"x" * 5000 + b'"'):
        async with http.post("/messages", data=body, headers=JSON):
            pass
    after = await instance.metrics()

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown('ditochat_publishes_total{gateway="http"}') == 2
    assert grown('ditochat_publish_errors_total{code="invalid",gateway="http"}') == 2
    assert grown('ditochat_publish_errors_total{code="too_large",gateway="http"}') == 1
    assert after["ditochat_redis_up"] == after["ditochat_subscribed"] == 1
    assert 1 < after["ditochat_tasks"] < 20


async def test_the_metrics_tell_who_is_connected_and_how(
    instance: Instance, http: aiohttp.ClientSession
) -> None:
    transports = ("ws", "polling", "websocket")

    async def connected() -> dict[str, float]:
        metrics = await instance.metrics()
        return {name: metrics[f'ditochat_connections{{transport="{name}"}}'] for name in transports}

    async def plain_clients_are(number: int) -> None:
        async def holds() -> bool:
            return (await connected())["ws"] == number

        await eventually(holds, within=5, otherwise=lambda: f"there are not {number} of /ws")

    await plain_clients_are(0)
    async with GoFrontend(instance.base_url), GoFrontend(instance.base_url):
        await plain_clients_are(2)
    await plain_clients_are(0)
    before = await connected()
    async with http.get("/socket.io/?EIO=4&transport=polling") as answer:
        assert answer.status == 200
    async with http.ws_connect("/socket.io/?EIO=4&transport=websocket") as socket:
        await socket.receive_str()
        after = await connected()
    assert {name: after[name] - before[name] for name in transports} == {
        "ws": 0, "polling": 1, "websocket": 1,
    }  # fmt: skip


# ---- while Redis is away


async def test_an_instance_without_redis_waits_for_it(
    redis_server: RedisServer, instances: StartInstances
) -> None:
    await redis_server.stop()
    [waiting] = await instances(ready=False)
    async with waiting.http() as http:
        async with http.get("/healthz") as answer:
            assert answer.status == 200
        async with http.get("/readyz") as answer:
            assert answer.status == 503
            assert "Redis" in (await answer.json())["reason"]
        async with http.get("/messages") as answer:
            await problem(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        begin = time.monotonic()
        async with http.post("/messages", json="hello") as answer:
            document = await problem(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) == document["retry_after"] >= 1
        assert time.monotonic() - begin < 2
        async with http.get("/") as answer:
            assert answer.status == 200
        async with http.get("/metrics") as answer:
            assert answer.status == 200
        await redis_server.start()
        await eventually(waiting.ready, within=5, otherwise=lambda: waiting.explain("is not ready"))
    assert await publish(waiting, "hello") == [1]
    assert [message["text"] for message in await waiting.messages(at_least=1)] == ["hello"]


async def test_the_history_stays_readable_without_redis(
    redis_server: RedisServer, instances: StartInstances
) -> None:
    [instance] = await instances()
    ids = await publish(instance, "one", "two")
    history = await instance.messages(at_least=ids[-1])
    await redis_server.kill()

    async def noticed() -> bool:
        return (await instance.metrics())["ditochat_redis_up"] == 0

    await eventually(noticed, within=5, otherwise=lambda: instance.explain("has not noticed"))
    assert await instance.messages() == await instance.messages(at_least=ids[-1]) == history
    assert await instance.ready()  # for 10 s
    async with instance.http() as http:
        begin = time.monotonic()
        async with http.post("/messages", json="three", headers={"Idempotency-Key": "3"}) as answer:
            await problem(answer, 503, "unavailable")
        assert time.monotonic() - begin < 2
    metrics = await instance.metrics()
    assert metrics['ditochat_publish_errors_total{code="unavailable",gateway="http"}'] == 1
    await redis_server.start()
    three = await instance.publish("three", nonce="3")
    messages = await instance.messages(at_least=three["id"])
    assert [message["text"] for message in messages] == ["three", "two", "one"]


ODD_REQUESTS = {
    "no target": (b"GET \r\n\r\n", 400),
    "no version": (b"GET / HTTP\r\n\r\n", 400),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
    "two lengths": (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a content type that is not UTF-8": (
        b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: \xff\r\nContent-Length: 1\r\n\r\n1", 415
    ),
    "an origin that is not UTF-8": (b"POST /messages HTTP/1.1\r\nHost: a\r\nOrigin: http://\xff\r\n\r\n", 403),
    "an expectation that is not UTF-8": (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: \xff\r\n\r\n", 417),
    "a date with a long number": (
        b"GET / HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: 1 Jan 2026 9999999999:00:00\r\n\r\n", 400
    ),
    "a body that nobody reads and that is not zipped": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", 405
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_bytes", "status"), ODD_REQUESTS.values(), ids=ODD_REQUESTS.keys())
async def test_an_odd_request_is_refused_and_is_no_error_of_ours(
    instance: Instance, request_bytes: bytes, status: int
) -> None:
    logged = len(instance.log_lines())
    async with await RawHttp.open(instance.port) as http:
        http.send(request_bytes)
        assert (await http.answer()).status == status
    assert [line for line in instance.log_lines()[logged:] if line["level"] == "error"] == []


async def test_a_polling_post_that_is_not_encoded_as_it_says_is_refused(instance: Instance) -> None:
    polling = "/socket.io/?EIO=4&transport=polling"
    async with await RawHttp.open(instance.port) as http:
        opened = await http.request("GET", polling)
        sid = json.loads(opened.body[1:])["sid"]
        answer = await http.request("POST", f"{polling}&sid={sid}", b"40", {"Content-Encoding": "gzip"})
    assert (answer.status, answer.body) == (400, b"expected a body that is encoded as its headers say")
