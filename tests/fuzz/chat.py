"""Socket.IO under clients that send anything: each event has its answer, and nothing is left of who has gone."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

from ditochat.engine.server import Connection
from tests.fuzz.engine import left_in, script
from tests.fuzz.instance import LIMIT, SEND_BUFFER_BYTES, FuzzedInstance, instance
from tests.fuzz.mutation import JSON_TOKENS, Mutator
from tests.fuzz.sessions import SEPARATOR, Player, packets_of_server
from tests.fuzz.target import Check, Target

__all__ = ["TARGET"]

# What may wait for a client on top of the limit: what it is given on joining, and what goes out in one turn.
MAX_WAITING_BYTES: Final = SEND_BUFFER_BYTES + 32 * LIMIT
_EVENT: Final = re.compile(rb"42([0-9]{1,15})(\[.*)", re.DOTALL)
_ACK: Final = re.compile(rb"43([0-9]+)\[(.*)\]", re.DOTALL)
# What answers it may be anything; the emit itself is another program's of ours, and as python-socketio writes it.
_EMIT: Final = (
    b'{"method":"emit","event":"news","data":[1,{"a":2}],"namespace":"/","room":"chat","skip_sid":null,'
    b'"callback":["chat","/",7],"host_id":"elsewhere","binary":false}'
)
_CODES: Final = {"invalid", "too_large", "unavailable"}


class _Audience:
    """Plays scripts on a chat server and counts what has to be answered."""

    def __init__(self, run: FuzzedInstance) -> None:
        self._run = run
        self._chat = run.chat
        self._player = self._new_player()
        self._asked: Counter[int] = Counter()
        self._asked_by: object | None = None

    def _new_player(self) -> Player:
        return Player(self._chat.eio, self._say, self._sending)

    def _say(self, _sid: str, data: bytes) -> None:
        """Redis goes and comes, and other processes emit."""
        if data in (b"away", b"back"):
            self._run.log.away = data == b"away"
        else:
            self._run.manager.receive(_EMIT)

    def _sending(self, connection: Connection, packets: list[bytes]) -> None:
        client = self._chat._clients.get(connection.sid)  # noqa: SLF001 - who is in is the question
        if client is not self._asked_by:
            self._asked.clear()
            self._asked_by = client
        if client is not None:
            self._asked.update(_acks_due(packets))

    def _between(self) -> None:
        self._run.raise_escaped()
        connection = self._player.connection
        if connection is not None:
            assert connection.queued_bytes <= MAX_WAITING_BYTES, "the queue of a client that polls grows"
        for socket, wire in self._player.sockets:
            waiting = socket.backlog_bytes + wire.get_write_buffer_size()
            assert waiting <= MAX_WAITING_BYTES, f"{waiting} bytes wait for a client that does not read"

    async def play(self, data: bytes) -> None:
        self._player = player = self._new_player()
        self._asked.clear()
        self._asked_by = None
        self._run.log.away = False
        await player.play(data, self._between)
        await player.settle()
        self._between()
        missing = self._asked - Counter(_acks(packets_of_server(player)))
        assert not missing or not self._can_be_answered(), f"not answered: {missing}"
        await player.end()
        self._run.raise_escaped()
        assert self._left() == []

    def _can_be_answered(self) -> bool:
        """Tell whether who asked is still connected, and nothing hid the questions."""
        connection = self._player.connection
        if connection is None or connection.probing or self._player.sent_raw:
            return False
        client = self._chat._clients.get(connection.sid)  # noqa: SLF001
        return client is not None and client is self._asked_by

    def _left(self) -> list[str]:
        chat, manager = self._chat, self._run.manager
        tables: dict[str, Any] = {
            "begun packets": chat._begun,  # noqa: SLF001
            "clients": chat._clients,  # noqa: SLF001
            "connecting": chat._connecting,  # noqa: SLF001
            "environments": chat.environ,
            "members": manager.members,
            "transports": manager._eio_sids,  # noqa: SLF001
            "rooms": manager.other_rooms,
            "callbacks": manager.callbacks,
            "room": self._run.room.members(),
            "grants": self._run.room._granted,  # noqa: SLF001
        }
        return [*left_in(chat.eio), *(f"{name}: {table}" for name, table in tables.items() if table)]


def _acks_due(packets: list[bytes]) -> Iterator[int]:
    """Yield the ids of well-formed events that ask for an acknowledgement."""
    for packet in packets:
        found = _EVENT.fullmatch(packet)
        if found is None:
            continue
        try:
            event = json.loads(found[2].decode())
        except RecursionError:
            yield int(found[1])  # nested too deeply to be read is an answer, too
            continue
        except ValueError:
            continue
        if event and isinstance(event[0], str):
            yield int(found[1])


def _acks(packets: list[bytes]) -> Iterator[int]:
    """Yield the ids of acknowledgements, which have the form that is promised."""
    for packet in packets:
        found = _ACK.fullmatch(packet)
        if found is not None:
            answer = json.loads(found[2])
            if answer["ok"]:
                assert answer.keys() == {"ok", "id", "duplicate"}
            else:
                assert answer["error"]["code"] in _CODES
                assert answer["error"]["message"]
            yield int(found[1])


@contextmanager
def _opened() -> Iterator[Check]:
    with instance() as (loop, run):
        audience = _Audience(run)
        yield lambda data: loop.run_until_complete(audience.play(data))


def _draws(random: Random) -> Callable[[], bytes]:
    message = '420["message",{"text":"hello","nonce":"n1"}]'
    seeds = [
        script("W", "<40", f"<{message}", "t1", '<4212["message","again"]', "t2"),
        script(
            "W",
            '<40{"after":3,"epoch":"epoch"}',
            '<421["message",{"text":"a"}]\x1e422["message",{"text":"b"}]',
        ),
        script(
            "W",
            '<40{"recovery":true,"pid":"p","offset":"epoch:2"}',
            f"<{message}",
            "<41",
            "<40",
            f"<{message}",
        ),
        script("W", '<40{"after":99,"epoch":"epoch"}', f"<{message}", "t11"),
        script("P", "g", "<40", "g", f'<{message}\x1e42["message","no answer"]', "g", "t2", "g"),
        script("P", "<40", "u", ">2probe", f"<{message}", ">5", f"<{message}", "t1"),
        script("W", "<40", '<451-3["message",{"_placeholder":true,"num":0}]\x1ebAQID', "t1"),
        script(
            "W",
            "<40",
            "s",
            '<431["received"]',
            "<43-1[]",
            "s",
            "<432",
            "s",
            "<4333",
            '<437["x"]',
            '<4617["x"]',
            '<461-7[{"_placeholder":true,"num":0}]\x1ebAA==',
        ),
        script("W", "<40", "saway", f"<{message}", "t3", "sback", f"<{message}"),
        script("W", "<40", "z", f"<{message}", '<420["nothing"]', "t2", "y", f"<{message}"),
        script(
            "W", "<40/admin,", "<40/admin,{}", '<420/admin,["message",{}]', '<4212/,["message",{"text":"a"}]'
        ),
        script("W", "<40", "s", '<461-1[{"_placeholder":true,"num":0}]\x1ebAA=='),
        script("W", '<40{"after":"x"}', "<40[]", '<44{"message":"mine"}', "<40"),
        script(
            "W",
            "<40",
            '<420["message"]',
            '<421["message",1,2]',
            "<422[]",
            '<423["other",{}]',
            '<424[7,{"a":1}]',
        ),
        script("P", "<40", *['<427["message",{"text":"flood"}]'] * 3, "z", "g", "t40"),
        script("W", "<40", "z", *["<" + "\x1e".join(['420["x"]'] * 60)] * 12, "y"),
        script("W", "z", *["<" + "\x1e".join(["40/x,"] * 60)] * 12, "y"),
        script("P", "<40", *["<" + "\x1e".join(['420["x"]'] * 60)] * 12, "g"),
        script("W", "<40", "z", *[b"r" + (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 60] * 8, "y"),
    ]
    tokens = [
        *JSON_TOKENS, b"\x1d", b"\x1e", b"\x1d<40", b"\x1d<41", b"\x1dt99", b"\x1dg", b"\x1dz", b"\x1dy", b"\x1dx",
        b"\x1dsaway", b"\x1dsback", b"\x1du\x1d>2probe\x1d>5", b"40", b"41", b"42", b"43", b"44", b"45",
        b"46", b"47",
        b"0-", b"1-", b"10-", b"11-", b"99999999999-", b"/,", b"/x,", b"/?a=b,", "\u00b2".encode(),
        "\u0663".encode(),
        b'{"_placeholder":true,"num":0}', b'{"_placeholder":true,"num":-1}', b'{"_placeholder":true,"num":5}',
        b'{"_placeholder":true}', b"bAAAA", b"\x1ds",
        b'\x1d<' + b'420["x"]\x1e' * 120, b'\x1d<' + b"40/x,\x1e" * 200,
        b"\x1dr" + b"\x89\xfd\0\0\0\0" + b"p" * 125,
    ]  # fmt: skip
    return Mutator(random, seeds, tokens, SEPARATOR).draw


TARGET: Final = Target("chat", 80, _opened, _draws)
