"""Socket.IO from outside: real instances, a real Valkey, real clients on every transport."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import socketio

from tests.conftest import StartInstances
from tests.gateways.conftest import serving
from tests.harness.instance import Instance
from tests.harness.js_clients import JsClient, JsClients
from tests.harness.redis_server import RedisServer
from tests.harness.tcp_proxy import TcpProxy
from tests.harness.waiting import DEADLINE, eventually, until

LIMIT = 4096
TRANSPORTS = pytest.mark.parametrize(
    "transports", [["polling"], ["websocket"], None], ids=["polling", "websocket", "upgrade"]
)
FIXED_TRANSPORTS = pytest.mark.parametrize("transport", ["polling", "websocket"])

# Beyond every Python's parser: 3.11 takes 1000 levels, 3.13 some thousands.
DEEP = "[" * 50_000 + "]" * 50_000


class RawSocket:
    """Socket.IO packets over an Engine.IO WebSocket, each as it is."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, packet: str) -> None:
        await self._socket.send_str(f"4{packet}")

    async def receive(self) -> str | None:
        """Return the next packet, None at the end of the connection."""
        async with asyncio.timeout(DEADLINE):
            while True:
                frame = await self._socket.receive()
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    return None
                if frame.data[0] == "4":
                    return str(frame.data[1:])
                if frame.data[0] == "1":
                    return None

    async def receive_all(self, count: int) -> set[str]:
        """Return the next packets, in any order."""
        return {str(await self.receive()) for _ in range(count)}

    async def connect(self, auth: str = "") -> dict[str, Any]:
        """Return the data of `session`."""
        await self.send(f"0{auth}")
        answer, greeting = await self.receive(), await self.receive()
        assert answer is not None
        assert greeting is not None
        assert answer.startswith('0{"sid":')
        name, session = json.loads(greeting.removeprefix("2"))
        assert name == "session"
        return dict(session)


@asynccontextmanager
async def raw_socket(instance: Instance) -> AsyncIterator[RawSocket]:
    async with (
        instance.http() as http,
        http.ws_connect("/socket.io/?EIO=4&transport=websocket", max_msg_size=0) as socket,
    ):
        opened = await socket.receive_str()
        assert opened.startswith("0{")
        yield RawSocket(socket)


async def settle(client: JsClient, transports: list[str] | None) -> None:
    """Wait until the client has its session, and has upgraded if it is going to."""
    await client.wait_for(transport="polling" if transports == ["polling"] else "websocket", sessions=1)


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


def bare(session: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in session.items() if name not in ("extra", "at")}


# ---- connecting and publishing


@TRANSPORTS
async def test_connect_session_replay_and_live_come_in_this_order(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    stored = [await instance.publish(text) for text in "abc"]
    first = await js_clients.connect(instance.base_url, transports=["websocket"], track=False)
    await first.wait_for(sessions=1)
    epoch = (await first.state()).sessions[0]["epoch"]

    client = await js_clients.connect(
        instance.base_url, transports=transports, auth={"after": 1, "epoch": epoch}, track=False
    )
    await settle(client, transports)
    await client.wait_for_ids(3)
    stored.append(await instance.publish("d"))
    assert await client.wait_for_ids(4) == [2, 3, 4]
    assert await client.order() == ["connect", "session", "message:2", "message:3", "message:4"]
    assert await client.messages() == stored[1:]
    (session,) = (await client.state()).sessions
    assert session["instance"]
    assert bare(session) == {
        "epoch": epoch,
        "last_id": 3,
        "recovered": True,
        "replayed": 2,
        "instance": session["instance"],
        "limits": {"message_bytes": 4096, "history": 1000},
    }
    new = bare((await first.state()).sessions[0])
    assert new == {**bare(session), "recovered": None, "replayed": 0}


async def test_the_packets_on_the_wire(instances: StartInstances) -> None:
    (instance,) = await instances(HISTORY_LIMIT=7, MAX_MESSAGE_BYTES=500)
    async with raw_socket(instance) as socket:
        await socket.send("0")
        answer = json.loads((await socket.receive() or "").removeprefix("0"))
        assert answer.keys() == {"sid"}
        greeting = await socket.receive()
        assert greeting is not None
        assert greeting.startswith('2["session",{"epoch":"')
        assert greeting.endswith(',"limits":{"message_bytes":500,"history":7}}]')
        await socket.send('217["message",{"text":"é"}]')
        acknowledged = '317[{"ok":true,"id":1,"duplicate":false}]'
        packets = await socket.receive_all(2)
        assert acknowledged in packets
        (message,) = packets - {acknowledged}
        assert message == '2["message",' + json.dumps(
            (await instance.messages())[0], ensure_ascii=False, separators=(",", ":")
        ) + "]"  # fmt: skip


@TRANSPORTS
async def test_a_message_is_acknowledged_and_a_nonce_stored_once(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    client = await js_clients.connect(instance.base_url, transports=transports)
    await settle(client, transports)
    sent = {"uid": "u", "title": "t", "date": "2026-01-31", "text": " hi ", "nonce": "n", "x": [1, None]}
    assert await client.emit("message", sent) == {"ok": True, "id": 1, "duplicate": False}
    assert await client.emit("message", sent) == {"ok": True, "id": 1, "duplicate": True}
    assert await client.emit("message", "plain") == {"ok": True, "id": 2, "duplicate": False}
    assert await client.emit("message", {"text": "unasked"}, ack=False) is None
    assert await client.wait_for_ids(3) == [1, 2, 3]
    messages = await client.messages()
    assert messages == (await instance.messages())[::-1]
    assert messages[0] == {"id": 1, "ts": messages[0]["ts"], **sent, "text": "hi"}
    assert [message["text"] for message in messages] == ["hi", "plain", "unasked"]


@FIXED_TRANSPORTS
async def test_python_clients_are_served_too(instances: StartInstances, transport: str) -> None:
    # A heartbeat of a second: python-engineio leaves the last poll of a client that goes open that long.
    (instance,) = await instances(PING_INTERVAL=1, PING_TIMEOUT=1)
    sessions: list[Any] = []
    messages: asyncio.Queue[Any] = asyncio.Queue()
    client = socketio.AsyncClient()
    client.on("session", sessions.append)
    client.on("message", messages.put)
    await client.connect(instance.base_url, transports=[transport])
    try:
        async with asyncio.timeout(DEADLINE):
            assert await client.call("message", {"text": "a"}) == {"ok": True, "id": 1, "duplicate": False}
            assert await messages.get() == (await instance.messages())[0]
            assert (await client.call("message", b"binary"))["error"]["code"] == "invalid"
    finally:
        await client.shutdown()
    assert [session["last_id"] for session in sessions] == [0]


async def test_all_clients_see_the_same_in_the_same_order(
    instances: StartInstances, js_clients: JsClients
) -> None:
    first, second = await instances(2)
    clients = [
        await js_clients.connect(instance.base_url, transports=transports, track=False)
        for instance in (first, second)
        for transports in (["polling"], ["websocket"], None)
    ]
    for number, client in enumerate(clients):
        await settle(client, [["polling"], ["websocket"], None][number % 3])
    python_client = socketio.AsyncClient()
    python_ids: list[int] = []
    python_client.on("message", lambda message: python_ids.append(message["id"]))
    await python_client.connect(second.base_url, transports=["websocket"])
    each = 20
    answers = await asyncio.gather(
        *(
            client.emit_many([f"{number}.{count}" for count in range(each)])
            for number, client in enumerate(clients)
        )
    )
    total = each * len(clients)
    assert sorted(answer["id"] for mine in answers for answer in mine) == list(range(1, total + 1))
    for client in clients:
        assert await client.wait_for_ids(total) == list(range(1, total + 1))
    texts = [message["text"] for message in await clients[0].messages()]
    for client in clients[1:]:
        assert [message["text"] for message in await client.messages()] == texts
    try:
        await until(lambda: len(python_ids) >= total, otherwise=lambda: f"got {python_ids}")
        assert python_ids == list(range(1, total + 1))
    finally:
        await python_client.shutdown()


@FIXED_TRANSPORTS
async def test_200_quick_emits_are_stored_in_order(
    instances: StartInstances, js_clients: JsClients, transport: str
) -> None:
    (instance,) = await instances()
    client = await js_clients.connect(instance.base_url, transports=[transport])
    texts = [str(number) for number in range(200)]
    answers = await client.emit_many(texts)
    assert answers == [{"ok": True, "id": id_, "duplicate": False} for id_ in range(1, 201)]
    assert await client.wait_for_ids(200) == list(range(1, 201))
    assert [message["text"] for message in await client.messages()] == texts


# ---- what clients do wrong


@dataclass
class Stage:
    """One instance with clients on it that go on through all of a class's tests."""

    instance: Instance
    js_clients: JsClients
    culprits: dict[str, JsClient]
    witness: JsClient
    faults_before: int = 0

    async def check_all_is_well(self) -> None:
        """Everybody is connected still, the witness without a break, and gets what is published."""
        stored = await self.instance.publish("all is well")
        for client in (*self.culprits.values(), self.witness):
            await client.wait_for(last=stored["id"], connected=True, within=5)
        state = await self.witness.state()
        assert len(state.connects) == 1
        assert state.disconnects == []
        assert state.ids == list(range(1, stored["id"] + 1))
        new = faults(self.instance)[self.faults_before :]
        self.faults_before += len(new)
        assert new == []


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with serving(tmp_path_factory.mktemp("stage")) as instance, JsClients() as js_clients:
        culprits = {
            transport: await js_clients.connect(instance.base_url, transports=[transport])
            for transport in ("polling", "websocket")
        }
        witness = await js_clients.connect(instance.base_url, transports=["websocket"], track=False)
        yield Stage(instance, js_clients, culprits, witness)


def nested(levels: int) -> object:
    value: object = "leaf"
    for _ in range(levels):
        value = [value]
    return value


BAD_INPUT = {
    "number": ([5], None, "got a number"),
    "array": ([["a"]], None, "got an array"),
    "null": ([None], None, "got null"),
    "boolean": ([True], None, "got a boolean"),
    "no argument": ([], None, "expected one argument"),
    "two arguments": ([{"text": "a"}, {"text": "b"}], None, "got 2"),
    "no text": ([{"uid": "u"}], "text", "required"),
    "empty text": ([{"text": ""}], "text", "white space"),
    "blank text": ([" \n "], "text", "white space"),
    "text of another type": ([{"text": 1}], "text", "a string"),
    "uid of another type": ([{"text": "a", "uid": 1}], "uid", "a string"),
    "title of another type": ([{"text": "a", "title": {}}], "title", "a string"),
    "nonce of another type": ([{"text": "a", "nonce": 1}], "nonce", "a string"),
    "long uid": ([{"text": "a", "uid": "u" * 129}], "uid", "128"),
    "long title": ([{"text": "a", "title": "t" * 129}], "title", "128"),
    "long nonce": ([{"text": "a", "nonce": "n" * 65}], "nonce", "64"),
    "empty nonce": ([{"text": "a", "nonce": ""}], "nonce", "1"),
    "bad date": ([{"text": "a", "date": "yesterday"}], "date", "ISO 8601"),
    "binary": ([b"\x00\x01"], None, "binary data"),
    "binary inside": ([{"text": "a", "x": [{"y": b"\x00"}]}], "x[0].y", "binary data"),
    "binary text": ([{"text": b"a"}], "text", "binary data"),
    "NUL": ([{"text": "a\0b"}], "text", "NUL"),
    "lone surrogate": ([{"text": "\ud800"}], "text", "surrogate"),
    "lone surrogate in a name": ([{"text": "a", "\ud800": 1}], "a field's name", "surrogate"),
    "nested too deeply": ([{"text": "a", "x": nested(100)}], None, "nested deeper"),
}


@pytest.mark.asyncio(loop_scope="class")
class TestBadInput:
    @FIXED_TRANSPORTS
    @pytest.mark.parametrize(("args", "field", "problem"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
    async def test_gets_an_error_and_the_connection_goes_on(
        self, stage: Stage, transport: str, args: list[Any], field: str | None, problem: str
    ) -> None:
        client = stage.culprits[transport]
        answer = await client.emit("message", *args)
        assert answer.keys() == {"ok", "error"}
        assert answer["ok"] is False
        error = answer["error"]
        assert error["code"] == "invalid"
        assert problem in error["message"]
        if field is not None:
            assert error["field"] == field
        assert await client.emit("message", *args, ack=False) is None
        assert (await client.emit("message", {"text": "right"}))["ok"] is True
        await stage.check_all_is_well()
        assert (await client.state()).disconnects == []

    @FIXED_TRANSPORTS
    @pytest.mark.parametrize("text", ["a" * LIMIT, "é" * (LIMIT // 2), "a" * 900_000], ids=len)
    async def test_too_large(self, stage: Stage, transport: str, text: str) -> None:
        client = stage.culprits[transport]
        answer = await client.emit("message", {"text": text})
        assert answer == {
            "ok": False,
            "error": {"code": "too_large", "message": "the message as stored is larger than 4096 bytes"},
        }
        await client.emit("message", {"text": text}, ack=False)
        await stage.check_all_is_well()
        assert (await client.state()).disconnects == []

    @FIXED_TRANSPORTS
    async def test_unknown_event(self, stage: Stage, transport: str) -> None:
        client = stage.culprits[transport]
        for event in ("nonsense", "session", "chat message", "*", "n" * 10_000):
            answer = await client.emit(event, {"text": "a"})
            assert answer["error"]["code"] == "invalid"
            assert "unknown event" in answer["error"]["message"]
            assert len(answer["error"]["message"]) < 200
            await client.emit(event, {"text": "a"}, ack=False)
        await stage.check_all_is_well()
        assert (await client.state()).disconnects == []

    async def test_a_number_for_an_event(self, stage: Stage) -> None:
        async with raw_socket(stage.instance) as socket:
            await socket.connect()
            for ack_id, name in enumerate(("5", "1.5", "-1")):
                await socket.send(f'2{ack_id}[{name},"a"]')
                assert f"unknown event '{name}'" in str(await socket.receive())
        await stage.check_all_is_well()

    async def test_nested_beyond_the_parser(self, stage: Stage) -> None:
        deep = '{"text":"a","x":' + DEEP + "}"
        async with raw_socket(stage.instance) as socket:
            await socket.connect()
            await socket.send(f'212["message",{deep}]')
            answer = await socket.receive()
            assert answer is not None
            (failure,) = json.loads(answer.removeprefix("312"))
            assert failure["ok"] is False
            assert failure["error"]["code"] == "invalid"
            assert "nested deeper" in failure["error"]["message"]
            await socket.send('213["message","usable"]')
            assert any(packet.startswith('313[{"ok":true') for packet in await socket.receive_all(2))
        await stage.check_all_is_well()


BAD_PACKETS = {
    "malformed JSON": '2["message",{',
    "no JSON": "2nonsense",
    "event of an object": '2{"a":1}',
    "event of an empty object": "2{}",
    "event of nothing": "2[]",
    "event without data": "2",
    "event of null": "2null",
    "event of a string": '2"message"',
    "event with an object for a name": '2[{},"a"]',
    "event with an array for a name": '21[["message"],"a"]',
    "event with null for a name": '21[null,"a"]',
    "acknowledgement of a string": '31"a"',
    "acknowledgement of an object": '31{"a":1}',
    "nested too deeply, no acknowledgement": '2["message",' + DEEP + "]",
    "empty": "",
    "unknown type": "9",
    "a letter for a type": "x[]",
    "CONNECT_ERROR": '4{"message":"no"}',
    "an id of many digits": "2" + "1" * 101 + '["message"]',
    "too many attachments": '599999999999-["message",{"_placeholder":true,"num":0}]',
    "no attachments": '50-["message",{"text":"a"}]',
    "11 attachments": '511-["message",{"_placeholder":true,"num":0}]',
}


@pytest.mark.asyncio(loop_scope="class")
class TestBadPackets:
    async def _comes_back(self, stage: Stage, client: JsClient, connects: int) -> None:
        await client.wait_for(connects=connects + 1, connected=True, within=5)
        state = await client.state()
        assert state.disconnects[-1]["reason"] in ("transport close", "transport error")
        assert state.connect_errors == []
        assert (await client.emit("message", "usable"))["ok"] is True
        await stage.check_all_is_well()

    @FIXED_TRANSPORTS
    @pytest.mark.parametrize("packet", BAD_PACKETS.values(), ids=BAD_PACKETS.keys())
    async def test_close_the_client_who_comes_back(self, stage: Stage, transport: str, packet: str) -> None:
        client = stage.culprits[transport]
        connects = len((await client.state()).connects)
        await client.send_packet(packet)
        await self._comes_back(stage, client, connects)

    @pytest.mark.parametrize(
        ("transport", "frame"),
        [("websocket", b"\x00\x01"), ("polling", "bAAE=")],
        ids=["websocket", "polling"],
    )
    async def test_binary_data_that_nobody_announced(
        self, stage: Stage, transport: str, frame: str | bytes
    ) -> None:
        client = stage.culprits[transport]
        connects = len((await client.state()).connects)
        await client.send_frame(frame)
        await self._comes_back(stage, client, connects)

    @pytest.mark.parametrize("number", ["5", '"x"', "null"])
    async def test_an_attachment_that_is_not_there(self, stage: Stage, number: str) -> None:
        client = stage.culprits["websocket"]
        connects = len((await client.state()).connects)
        await client.send_packet('51-["message",{"_placeholder":true,"num":' + number + "}]")
        await client.send_frame(b"\x00")
        await self._comes_back(stage, client, connects)

    async def test_text_where_an_attachment_belongs(self, stage: Stage) -> None:
        client = stage.culprits["websocket"]
        connects = len((await client.state()).connects)
        await client.send_packet('51-["message",{"_placeholder":true,"num":0}]')
        await client.send_packet('2["message","a"]')
        await self._comes_back(stage, client, connects)

    async def test_acknowledgements_of_nothing_are_ignored(self, stage: Stage) -> None:
        client = stage.culprits["websocket"]
        connects = len((await client.state()).connects)
        for packet in ("3", "3[]", "31", "31[]", '3999["a"]'):
            await client.send_packet(packet)
        assert (await client.emit("message", "usable"))["ok"] is True
        await stage.check_all_is_well()
        assert len((await client.state()).connects) == connects


BAD_AUTH: dict[str, tuple[dict[str, Any], str]] = {
    "after a string": ({"after": "7"}, "auth.after"),
    "after negative": ({"after": -1}, "auth.after"),
    "after a fraction": ({"after": 1.5}, "auth.after"),
    "after a boolean": ({"after": True}, "auth.after"),
    "after too large": ({"after": 2**53}, "auth.after"),
    "after an object": ({"after": {}}, "auth.after"),
    "epoch a number": ({"after": 1, "epoch": 5}, "auth.epoch"),
    "epoch too long": ({"after": 1, "epoch": "e" * 65}, "auth.epoch"),
    "recovery a string": ({"recovery": "yes"}, "auth.recovery"),
    "pid a number": ({"recovery": True, "pid": 5, "offset": "e:1"}, "auth.pid"),
    "offset a number": ({"recovery": True, "pid": "p", "offset": 5}, "auth.offset"),
}


@pytest.mark.asyncio(loop_scope="class")
class TestBadHandshake:
    @pytest.mark.parametrize(("auth", "field"), BAD_AUTH.values(), ids=BAD_AUTH.keys())
    async def test_bad_auth_is_a_connect_error_with_a_code(
        self, stage: Stage, auth: dict[str, Any], field: str
    ) -> None:
        client = await stage.js_clients.connect(stage.instance.base_url, auth=auth, track=False, wait=False)
        await client.wait_for(connect_errors=1, active=False)
        state = await client.state()
        (error,) = state.connect_errors
        assert error["data"]["code"] == "invalid"
        assert error["data"]["field"] == field
        assert error["data"]["message"] == error["message"]
        assert state.sessions == state.connects == []
        await client.close()
        await stage.check_all_is_well()

    @pytest.mark.parametrize("auth", ['"text"', "[1]", "true"])
    async def test_auth_that_is_no_object(self, stage: Stage, auth: str) -> None:
        async with raw_socket(stage.instance) as socket:
            await socket.send(f"0{auth}")
            answer = await socket.receive()
            assert answer is not None
            error = json.loads(answer.removeprefix("4"))
            assert error["data"]["code"] == "invalid"
            await socket.connect()
        await stage.check_all_is_well()

    @pytest.mark.parametrize("packet", ["0{", "0" + DEEP, '0{"after":1'])
    async def test_auth_that_is_no_json_closes(self, stage: Stage, packet: str) -> None:
        async with raw_socket(stage.instance) as socket:
            await socket.send(packet)
            assert await socket.receive() is None
        await stage.check_all_is_well()

    async def test_an_unknown_namespace_is_refused_and_the_right_one_is_open(self, stage: Stage) -> None:
        async with raw_socket(stage.instance) as socket:
            await socket.send("0/other,")
            assert await socket.receive() == '4/other,{"message":"Invalid namespace"}'
            await socket.connect()
            await socket.send('0/third,{"after":"x"}')
            assert await socket.receive() == '4/third,{"message":"Invalid namespace"}'
            await socket.send('2/third,1["message","a"]')
            await socket.send('22["message","b"]')
            packets = await socket.receive_all(2)
            assert any(packet.startswith('32[{"ok":true') for packet in packets)
            assert any('"text":"b"' in packet for packet in packets)
        await stage.check_all_is_well()

    async def test_python_clients_are_told_of_an_unknown_namespace(self, stage: Stage) -> None:
        client = socketio.AsyncClient(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError, match="other"):
            await client.connect(stage.instance.base_url, namespaces=["/other"], transports=["websocket"])
        await client.shutdown()
        await stage.check_all_is_well()

    async def test_a_second_connect_is_ignored(self, stage: Stage) -> None:
        async with raw_socket(stage.instance) as socket:
            await socket.connect()
            await socket.send("0")
            await socket.send('0{"after":0}')
            await socket.send('21["message","a"]')
            packets = await socket.receive_all(2)
            assert any(packet.startswith('31[{"ok":true') for packet in packets)
            assert any(packet.startswith('2["message",') for packet in packets)
        await stage.check_all_is_well()

    async def test_two_connects_at_once_are_one(self, stage: Stage) -> None:
        async with raw_socket(stage.instance) as socket:
            await socket.send("0")
            await socket.connect()
            await socket.send('21["message","a"]')
            packets = await socket.receive_all(2)
            assert any(packet.startswith('31[{"ok":true') for packet in packets)
        await stage.check_all_is_well()

    async def test_an_event_before_connect_does_no_harm(self, stage: Stage) -> None:
        newest = (await stage.instance.messages(limit=1) or [{"id": 0}])[0]["id"]
        async with raw_socket(stage.instance) as socket:
            await socket.send('21["message","early"]')
            session = await socket.connect()
            assert session["last_id"] == newest
            await socket.send('22["message","late"]')
            assert '32[{"ok":true' in "".join(await socket.receive_all(2))
        await stage.check_all_is_well()

    async def test_a_binary_event_before_connect_closes(self, stage: Stage) -> None:
        async with raw_socket(stage.instance) as socket:
            await socket.send('51-["message",{"_placeholder":true,"num":0}]')
            assert await socket.receive() is None
        await stage.check_all_is_well()


# ---- leaving and coming back


@TRANSPORTS
async def test_a_socket_that_disconnected_may_connect_again(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    (instance,) = await instances()
    client = await js_clients.connect(instance.base_url, transports=transports)
    await settle(client, transports)
    await client.emit("message", "a")
    await client.wait_for_ids(1)
    await client.close()
    await instance.publish("b")
    await client.connect()
    assert await client.wait_for_ids(2) == [1, 2]
    assert (await client.emit("message", "c"))["ok"] is True
    assert await client.wait_for_ids(3) == [1, 2, 3]
    state = await client.state()
    assert [gone["reason"] for gone in state.disconnects] == ["io client disconnect"]
    assert [session["recovered"] for session in state.sessions] == [None, True]
    assert state.duplicates_dropped == 0


async def test_a_transport_may_be_used_for_one_connection_after_the_other(instances: StartInstances) -> None:
    (instance,) = await instances()
    async with raw_socket(instance) as socket:
        for missed in range(3):
            session = await socket.connect()
            assert session["last_id"] == missed
            await socket.send("1")
            await eventually(
                lambda: _members(instance, 1), otherwise=lambda: instance.explain("lost the transport")
            )
            await instance.publish("not for those who left")
        await socket.connect('{"after":1}')
        for id_ in (2, 3):
            message = await socket.receive()
            assert message is not None
            assert message.startswith(f'2["message",{{"id":{id_},')
    assert faults(instance) == []


async def _members(instance: Instance, count: int) -> bool:
    return (await instance.metrics())['ditochat_connections{transport="websocket"}'] == count


async def test_what_a_position_is_answered_with(instances: StartInstances) -> None:
    first, second = await instances(2, HISTORY_LIMIT=5)
    await asyncio.gather(*(first.publish(str(number)) for number in range(10)))
    async with raw_socket(second) as socket:
        epoch = (await socket.connect())["epoch"]
    cases: list[tuple[dict[str, Any], bool | None, int]] = [
        ({}, None, 0),
        ({"after": None, "epoch": None}, None, 0),
        ({"epoch": epoch}, None, 0),
        ({"after": 10, "epoch": epoch}, True, 0),
        ({"after": 7, "epoch": epoch}, True, 3),
        ({"after": 7}, True, 3),
        ({"after": 5, "epoch": epoch}, True, 5),
        ({"after": 4, "epoch": epoch}, False, 0),
        ({"after": 0}, False, 0),
        ({"after": 10, "epoch": "another"}, False, 0),
        ({"after": 7, "epoch": ""}, False, 0),
        ({"after": 11, "epoch": epoch}, False, 0),
        ({"after": 2**53 - 1}, False, 0),
    ]
    for auth, recovered, replayed in cases:
        for instance in (first, second):
            async with raw_socket(instance) as socket:
                session = await socket.connect(json.dumps(auth))
                assert (auth, session["recovered"], session["replayed"]) == (auth, recovered, replayed)
                assert (session["epoch"], session["last_id"]) == (epoch, 10)
                for id_ in range(10 - replayed + 1, 11):
                    message = await socket.receive()
                    assert message is not None
                    assert message.startswith(f'2["message",{{"id":{id_},')


@TRANSPORTS
async def test_an_instance_that_is_behind_does_not_take_a_client_for_lost(
    redis_server: RedisServer,
    instances: StartInstances,
    js_clients: JsClients,
    transports: list[str] | None,
) -> None:
    async with TcpProxy(redis_server.port) as to_redis:
        (ahead,) = await instances()
        (behind,) = await instances(REDIS_URL=to_redis.redis_url)
        client = await js_clients.connect(ahead.base_url, transports=transports)
        await settle(client, transports)
        to_redis.blackhole()
        for text in "abc":
            await ahead.publish(text)
        await client.wait_for_ids(3)
        moving = asyncio.create_task(client.reconnect_to(behind.base_url))
        await eventually(
            lambda: _has_clients(behind, 1), otherwise=lambda: behind.explain("has no new client")
        )
        await ahead.publish("d")
        state = await client.state()
        assert not state.connected
        assert len(state.sessions) == 1
        to_redis.resume()
        await moving
        assert await client.wait_for_ids(4) == [1, 2, 3, 4]
        state = await client.state()
        assert [session["recovered"] for session in state.sessions] == [None, True]
        assert state.duplicates_dropped == 0
        assert state.connect_errors == []
    assert faults(behind) == []


async def _has_clients(instance: Instance, count: int) -> bool:
    metrics = await instance.metrics()
    transports = ("polling", "websocket")
    return sum(metrics[f'ditochat_connections{{transport="{name}"}}'] for name in transports) >= count


@FIXED_TRANSPORTS
async def test_who_comes_before_redis_waits_and_is_let_in(
    redis_server: RedisServer,
    instances: StartInstances,
    js_clients: JsClients,
    transport: str,
) -> None:
    await redis_server.stop()
    (instance,) = await instances(ready=False)
    client = await js_clients.connect(instance.base_url, transports=[transport], wait=False)
    await eventually(
        lambda: _has_clients(instance, 1), otherwise=lambda: instance.explain("has no new client")
    )
    assert not (await client.state()).connected
    await redis_server.start()
    await client.wait_for(connected=True, sessions=1)
    assert await client.emit("message", "a") == {"ok": True, "id": 1, "duplicate": False}
    assert await client.wait_for_ids(1) == [1]
    state = await client.state()
    assert state.connect_errors == []
    assert [bare(session)["last_id"] for session in state.sessions] == [0]
    assert faults(instance) == []


# ---- slow clients


async def test_a_slow_client_is_closed_and_comes_back(
    instances: StartInstances, js_clients: JsClients
) -> None:
    (instance,) = await instances(SEND_BUFFER_BYTES=65536, MAX_MESSAGE_BYTES=32768)
    slow = await js_clients.connect(instance.base_url, transports=["websocket"])
    others = [
        await js_clients.connect(instance.base_url, transports=transports, track=False)
        for transports in (["polling"], ["websocket"])
    ]
    await slow.emit("message", "first")
    await slow.wait_for_ids(1)
    await slow.pause_reading()
    sent = 1
    # As much as the system's own buffers take, and more.
    while not (await instance.metrics())["ditochat_slow_clients_closed_total"]:
        assert sent < 900, "the slow client is not closed"
        for _ in range(10):
            sent += 1
            assert (await others[1].emit("message", "x" * 30_000))["id"] == sent
            for client in others:
                await client.wait_for(last=sent)
    assert not (await slow.state()).disconnects
    await slow.resume_reading()
    assert await slow.wait_for_ids(sent) == list(range(1, sent + 1))
    for client in others:
        assert await client.ids() == list(range(1, sent + 1))
        assert (await client.state()).disconnects == []
    state = await slow.state()
    assert len(state.connects) == 2
    assert state.sessions[1]["recovered"] is True
    assert (state.duplicates_dropped, state.out_of_order) == (0, [])
    assert (await instance.metrics())["ditochat_slow_clients_closed_total"] == 1
    assert faults(instance) == []


@TRANSPORTS
async def test_a_replay_may_be_larger_than_the_buffer(
    instances: StartInstances, js_clients: JsClients, transports: list[str] | None
) -> None:
    (instance,) = await instances(SEND_BUFFER_BYTES=65536)
    writer = await js_clients.connect(instance.base_url, transports=["websocket"])
    for _ in range(10):
        await writer.emit_many(["x" * 4000] * 8)
    client = await js_clients.connect(
        instance.base_url, transports=transports, auth={"after": 0}, track=False
    )
    await writer.emit_many(["live"] * 10)
    assert await client.wait_for_ids(90) == list(range(1, 91))
    state = await client.state()
    assert len(state.connects) == 1
    assert state.sessions[0]["recovered"] is True
    assert state.sessions[0]["replayed"] >= 80
    assert (await instance.metrics())["ditochat_slow_clients_closed_total"] == 0


# ---- stopping


@FIXED_TRANSPORTS
async def test_sigterm_moves_all_clients_to_another_instance(
    redis_server: RedisServer, instances: StartInstances, js_clients: JsClients, transport: str
) -> None:
    async with TcpProxy(redis_server.port) as to_redis:
        (leaving,) = await instances(REDIS_URL=to_redis.redis_url, DRAIN_SECONDS=2)
        (staying,) = await instances()
        async with TcpProxy(leaving.port) as front:
            writer = await js_clients.connect(front.url, transports=[transport])  # first to be closed
            clients = [writer]
            for transports in (["polling"], ["websocket"], None) * 2:
                clients.append(await js_clients.connect(front.url, transports=transports))
                await settle(clients[-1], transports)
            await clients[1].emit("message", "before")

            to_redis.blackhole()
            publishing = asyncio.create_task(writer.emit_many(["under way"] * 10))
            # Its answer needs no Redis, and comes when those before it have been taken. A task, too: tasks begin
            # in the order in which they are made.
            asked = asyncio.create_task(writer.emit("are they there?"))
            assert "unknown event" in str(await asked)
            stopping = asyncio.create_task(leaving.terminate())
            await eventually(
                lambda: _draining(leaving), otherwise=lambda: leaving.explain("does not say that it drains")
            )
            to_redis.resume()
            answers = await publishing
            assert answers == [{"ok": True, "id": id_, "duplicate": False} for id_ in range(2, 12)]
            # Only now: a session that polls lives on one instance, where a load balancer keeps it.
            front.retarget(staying.port)
            assert await stopping == 0

            for client in clients:
                await client.wait_for(connects=2, connected=True)
            for text in "ab":
                await staying.publish(text)
            for client in clients:
                assert await client.wait_for_ids(13) == list(range(1, 14))
                state = await client.state()
                assert len(state.connects) == 2
                assert state.disconnects[0]["reason"] in ("transport close", "transport error")
                assert state.sessions[1]["recovered"] is True
                assert (state.duplicates_dropped, state.out_of_order) == (0, [])
            assert faults(leaving) == []


async def _draining(instance: Instance) -> bool:
    async with instance.http() as http, http.get("/readyz") as answer:
        return answer.status == 503 and "shutting down" in await answer.text()


@FIXED_TRANSPORTS
async def test_who_would_join_a_leaving_instance_is_sent_elsewhere(
    instances: StartInstances, js_clients: JsClients, transport: str
) -> None:
    leaving, staying = await instances(2, DRAIN_SECONDS=20)
    there = [await js_clients.connect(leaving.base_url, transports=["websocket"]) for _ in range(3)]
    async with TcpProxy(leaving.port) as front:
        stopping = asyncio.create_task(leaving.terminate())
        await eventually(
            lambda: _draining(leaving), otherwise=lambda: leaving.explain("does not say that it drains")
        )
        client = await js_clients.connect(front.url, transports=[transport], wait=False)
        await client.wait_for(connect_errors=1)
        assert (await client.state()).active
        front.retarget(staying.port)
        await client.wait_for(connected=True)
        assert (await client.emit("message", "a"))["ok"] is True
        # Some are still there, and follow the log.
        await eventually(
            lambda: _some_have(there, 1), otherwise=lambda: leaving.explain("delivers nothing any more")
        )
        # A second signal cuts the draining short.
        assert await leaving.terminate() == 0
        assert await stopping == 0


async def _some_have(clients: list[JsClient], last: int) -> bool:
    return any([last in await client.ids() for client in clients])
