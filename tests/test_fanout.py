"""The room: who gets what, in which order, and who is closed."""

import asyncio
from collections.abc import Sequence

import pytest

from ditochat.fanout import Closing, Encoding, Member, Reset, Room, Session
from ditochat.message import StoredMessage
from ditochat.metrics import Metrics
from ditochat.timeline import Timeline

EPOCH = "e1"
LIMIT = 100  # bytes


class Words:
    """An encoding that people can read; counts how often each message is encoded."""

    def __init__(self, *, resettable: bool = True) -> None:
        self.encoded: list[int] = []
        self.resettable = resettable

    def session(self, session: Session) -> Sequence[str]:
        return [f"session {session.last_id} {session.recovered} {session.replayed}"]

    def message(self, message: StoredMessage, epoch: str) -> str:
        self.encoded.append(message.id)
        return f"{epoch}:{message.id}"

    def reset(self, reset: Reset) -> Sequence[str] | None:
        return [f"reset {reset.epoch} {reset.last_id} {reset.reason}"] if self.resettable else None

    def event(self, name: str, args: Sequence[object], offset: str, ack_id: int | None) -> Sequence[str]:
        return [f"event {name} {list(args)} {offset} {ack_id}"]

    def pack(self, payloads: Sequence[str]) -> Sequence[str]:
        return payloads


class Client:
    """Keeps what it is sent; `reads` says whether anybody takes it out again."""

    def __init__(self, encoding: Words, *, reads: bool = True) -> None:
        self.encoding: Encoding = encoding
        self.reads = reads
        self.got: list[str] = []
        self.handed_over: list[Sequence[str]] = []
        self.waiting = 0
        self.closed: Closing | None = None

    def send(self, payloads: Sequence[str]) -> int:
        self.got += payloads
        self.handed_over.append(payloads)
        if not self.reads:
            self.waiting += sum(map(len, payloads))
        return self.waiting

    def close(self, why: Closing) -> None:
        self.closed = why


class Chat:
    """A room and its timeline, fed as the follower does it."""

    def __init__(self, capacity: int = 50) -> None:
        self.metrics = Metrics()
        self.timeline = Timeline(capacity)
        self.timeline.replace(EPOCH, 0, [])
        self.room = Room(
            self.timeline, self.metrics, instance="i", max_message_bytes=4096, send_buffer_bytes=LIMIT
        )
        self.words = Words()

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            message_id = self.timeline.last_id + 1
            message = StoredMessage(message_id, 0, b'{"id":%d,"ts":0}' % message_id)
            self.timeline.append(message)
            self.room.appended(message)

    def join(
        self, client: Client | None = None, after: int | None = None, epoch: str | None = None
    ) -> Client:
        client = client or Client(self.words)
        self.room.join(client, after=after, epoch=epoch)
        return client


@pytest.fixture
async def chat() -> Chat:
    return Chat()


async def a_turn_of_the_loop() -> None:
    await asyncio.sleep(0)


async def test_a_new_client_is_greeted_and_then_gets_what_is_live(chat: Chat) -> None:
    chat.append(2)
    client = chat.join()
    chat.append()
    await a_turn_of_the_loop()
    assert client.got == ["session 2 None 0", "e1:3"]


async def test_a_client_that_comes_back_gets_what_it_missed_before_what_is_live(chat: Chat) -> None:
    chat.append(3)
    client = chat.join(after=1, epoch=EPOCH)
    chat.append()
    await a_turn_of_the_loop()
    assert client.got == ["session 3 True 2", "e1:2", "e1:3", "e1:4"]


async def test_a_client_that_joins_between_append_and_flush_gets_nothing_twice(chat: Chat) -> None:
    early = chat.join()
    chat.append(2)
    late = chat.join(after=0, epoch=EPOCH)
    await a_turn_of_the_loop()
    assert early.got == ["session 0 None 0", "e1:1", "e1:2"]
    assert late.got == ["session 2 True 2", "e1:1", "e1:2"]


async def test_what_arrives_in_one_turn_is_handed_over_at_once_and_encoded_once(chat: Chat) -> None:
    clients = [chat.join() for _ in range(3)]
    chat.append(5)
    await a_turn_of_the_loop()
    assert chat.words.encoded == [1, 2, 3, 4, 5]
    first, second, third = (client.handed_over[-1] for client in clients)
    assert first is second is third
    assert len(first) == 5


async def test_who_left_gets_nothing_more(chat: Chat) -> None:
    client = chat.join()
    chat.room.leave(client)
    chat.room.leave(client)
    chat.append()
    await a_turn_of_the_loop()
    assert client.got == ["session 0 None 0"]
    assert len(chat.room) == 0


async def test_a_slow_client_is_closed_and_the_others_get_everything(chat: Chat) -> None:
    slow, fast = chat.join(Client(chat.words, reads=False)), chat.join()
    for _ in range(40):
        chat.append()
        await a_turn_of_the_loop()
    assert slow.closed is Closing.SLOW
    # What is handed over last is not held against it, so it may have two messages more than the limit.
    assert LIMIT < slow.waiting <= LIMIT + 2 * len(b'{"id":40,"ts":0}')
    assert fast.closed is None
    assert fast.got[1:] == [f"e1:{number}" for number in range(1, 41)]
    members: list[Member] = [fast]
    assert chat.room.members() == members


async def test_a_burst_over_the_limit_closes_nobody_who_reads(chat: Chat) -> None:
    client = chat.join(Client(chat.words, reads=False))
    chat.append(40)
    await a_turn_of_the_loop()
    assert client.waiting > LIMIT
    assert client.closed is None
    client.waiting = 0
    chat.append(40)
    await a_turn_of_the_loop()
    assert client.closed is None
    chat.append()
    await a_turn_of_the_loop()
    assert client.closed is Closing.SLOW


async def test_a_long_replay_is_granted_on_top_of_the_limit_until_it_is_caught_up(chat: Chat) -> None:
    chat.append(40)
    client = chat.join(Client(chat.words, reads=False), after=0, epoch=EPOCH)
    assert client.waiting > LIMIT
    chat.append()
    await a_turn_of_the_loop()
    assert client.closed is None
    client.waiting = 0  # it has caught up
    chat.append()
    await a_turn_of_the_loop()
    client.waiting = 2 * LIMIT
    chat.append()
    await a_turn_of_the_loop()
    assert client.closed is Closing.SLOW


async def test_a_reset_comes_after_what_was_pending_and_names_the_new_epoch(chat: Chat) -> None:
    client = chat.join()
    chat.append()
    chat.timeline.replace("e2", 7, [])
    chat.room.reset("lost")
    chat.append()
    await a_turn_of_the_loop()
    assert client.got == ["session 0 None 0", "e1:1", "reset e2 7 lost", "e2:8"]


async def test_a_client_whose_protocol_has_no_reset_is_closed(chat: Chat) -> None:
    client = chat.join(Client(Words(resettable=False)))
    chat.room.reset("lost")
    assert client.closed is Closing.LOST
    assert len(chat.room) == 0


async def test_a_foreign_event_comes_in_order_with_the_messages_and_carries_the_offset(chat: Chat) -> None:
    client, other = chat.join(), chat.join()
    chat.append()
    chat.room.emit([client], "notice", ["a"])
    await a_turn_of_the_loop()
    assert client.got[1:] == ["e1:1", "event notice ['a'] e1:1 None"]
    assert other.got[1:] == ["e1:1"]


async def test_draining_closes_everybody(chat: Chat) -> None:
    clients = [chat.join() for _ in range(5)]
    await chat.room.drain(0.05)
    assert {client.closed for client in clients} == {Closing.DRAINING}


async def test_nobody_joins_before_the_log_was_read() -> None:
    chat = Chat()
    chat.timeline.epoch = None
    with pytest.raises(ValueError, match="before the log was read"):
        chat.join()


async def test_deliveries_and_replays_are_counted(chat: Chat) -> None:
    chat.append(2)
    for _ in range(3):
        chat.join(after=1, epoch=EPOCH)
    chat.join(after=99, epoch=EPOCH)
    chat.append()
    await a_turn_of_the_loop()
    text = chat.metrics.render().decode()
    assert "ditochat_deliveries_total 4.0" in text
    assert 'ditochat_replays_total{recovered="true"} 3.0' in text
    assert 'ditochat_replays_total{recovered="false"} 1.0' in text
    assert "ditochat_replayed_messages_total 3.0" in text
