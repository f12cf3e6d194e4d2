"""The session machine: every state and answer, and that nothing said is lost or overtaken on any way."""

import json
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ditochat.engine.packets import BadPacket, Packet, PacketType
from ditochat.engine.session import MAX_PACKETS_IN_A_POLL, CloseReason, Config, Poll, Session

PROBE: Packet = (PacketType.PING, "probe")
UPGRADE: Packet = (PacketType.UPGRADE, "")


def polling() -> Session:
    return Session("sid", on_websocket=False)


def probing() -> Session:
    session = polling()
    assert session.probe(PROBE) is False
    return session


def on_websocket() -> Session:
    session = probing()
    assert session.probe(UPGRADE) is True
    assert session.take_all() == []
    return session


def closed() -> Session:
    session = polling()
    assert session.close(CloseReason.SERVER)
    return session


def say(session: Session, *packets: str) -> None:
    for packet in packets:
        session.say(packet, len(packet))


class NothingIsLost(RuleBasedStateMachine):
    """Server and client do as they like; what reaches the client is what was said, from the first on."""

    def __init__(self) -> None:
        super().__init__()
        self.session = polling()
        self.said: list[str] = []
        self.received: list[str] = []

    def take_poll(self) -> None:
        packets = self.session.take_payload().decode().split("\x1e")
        assert 1 <= len(packets) <= MAX_PACKETS_IN_A_POLL
        self.received += packets

    @rule(count=st.integers(1, 40))
    def the_server_says(self, count: int) -> None:
        """As the shell does it: a held GET is answered, on a WebSocket it is written."""
        packets = [f"4{len(self.said) + number}" for number in range(count)]
        if self.session.closed is None:
            self.said += packets
        if self.session.on_websocket:
            if self.session.closed is None:
                self.received += packets
            return
        say(self.session, *packets)
        if self.session.polling and self.session.closed is None:
            self.take_poll()

    @rule()
    def the_client_polls(self) -> None:
        was_open = self.session.closed is None
        held = self.session.polling
        answer = self.session.poll()
        if not was_open or self.session.on_websocket:
            assert answer is Poll.REFUSED
        elif held:
            assert answer is Poll.CONFLICT
            assert self.session.closed is CloseReason.TRANSPORT_ERROR
        elif self.session.probing:
            assert answer is Poll.NOOP
        elif self.said == self.received:
            assert answer is Poll.WAIT
            assert self.session.polling
        else:
            assert answer is Poll.DATA
            self.take_poll()

    @rule()
    def the_client_probes(self) -> None:
        if self.session.closed is not None or self.session.on_websocket or self.session.probing:
            if not self.session.on_websocket:
                with pytest.raises(BadPacket):
                    self.session.probe(PROBE)
            return
        assert self.session.probe(PROBE) is False
        self.session.polling = False  # the shell answers the GET by NOOP

    @precondition(lambda self: self.session.probing)
    @rule()
    def the_client_upgrades(self) -> None:
        assert self.session.probe(UPGRADE) is True
        self.received += self.session.take_all()

    @precondition(lambda self: self.session.probing)
    @rule()
    def the_client_gives_the_upgrade_up(self) -> None:
        self.session.probing = False

    @rule()
    def the_client_answers_a_ping(self) -> None:
        if self.session.closed is None:
            self.session.awaiting_pong = True
            assert self.session.receive((PacketType.PONG, "")) is None
            assert not self.session.awaiting_pong

    @precondition(lambda self: len(self.said) > 200)
    @rule(reason=st.sampled_from(CloseReason))
    def somebody_closes(self, reason: CloseReason) -> None:
        before = self.session.closed
        assert self.session.close(reason) is (before is None)
        assert self.session.closed is (before or reason)

    @invariant()
    def arrived_in_order(self) -> None:
        assert self.received == self.said[: len(self.received)]
        if self.session.on_websocket and self.session.closed is None:
            assert self.received == self.said
        waiting = [] if self.session.queue is None else [packet for packet, _ in self.session.queue]
        assert self.session.queued_bytes == sum(map(len, waiting))
        assert self.received + waiting == self.said


TestNothingIsLost = NothingIsLost.TestCase


def test_a_poll_that_finds_nothing_waits() -> None:
    session = polling()
    assert session.poll() is Poll.WAIT
    assert session.polling


def test_a_poll_gets_what_was_said_at_most_16_packets_of_it() -> None:
    session = polling()
    say(session, *(f"4{number}" for number in range(20)))
    assert session.poll() is Poll.DATA
    assert session.take_payload() == "\x1e".join(f"4{number}" for number in range(16)).encode()
    assert session.poll() is Poll.DATA
    assert session.take_payload() == b"416\x1e417\x1e418\x1e419"
    assert session.poll() is Poll.WAIT


def test_a_second_poll_ends_the_session() -> None:
    session = polling()
    session.poll()
    assert session.poll() is Poll.CONFLICT
    assert session.closed is CloseReason.TRANSPORT_ERROR
    assert session.poll() is Poll.REFUSED


def test_during_the_upgrade_a_poll_gets_noop_whatever_waits() -> None:
    session = probing()
    say(session, "4a")
    assert session.poll() is Poll.NOOP
    assert session.probe(UPGRADE)
    assert session.take_all() == ["4a"]


@pytest.mark.parametrize("state", [on_websocket, closed])
def test_elsewhere_there_is_nothing_to_poll(state: Callable[[], Session]) -> None:
    assert state().poll() is Poll.REFUSED


def test_what_is_said_to_nobody_is_not_kept() -> None:
    for session in (closed(), on_websocket(), Session("sid", on_websocket=True)):
        say(session, "4a")
        assert not session.queue
        assert session.queued_bytes == 0


@pytest.mark.parametrize(("data", "expected"), [("a", "a"), ("", ""), (b"\x00", b"\x00")])
def test_a_message_is_handed_on(data: str | bytes, expected: str | bytes) -> None:
    assert polling().receive((PacketType.MESSAGE, data)) == expected


def test_close_ends_the_session() -> None:
    session = polling()
    assert session.receive((PacketType.CLOSE, "")) is None
    assert session.closed is CloseReason.CLIENT


@pytest.mark.parametrize("kind", [PacketType.UPGRADE, PacketType.NOOP, PacketType.PONG])
def test_what_means_nothing_here_is_passed_over(kind: PacketType) -> None:
    session = polling()
    assert session.receive((kind, "")) is None
    assert session.closed is None


@pytest.mark.parametrize("kind", [PacketType.OPEN, PacketType.PING])
def test_what_only_a_server_sends_is_refused(kind: PacketType) -> None:
    with pytest.raises(BadPacket, match=f"{kind.name} is the server's"):
        polling().receive((kind, ""))


@pytest.mark.parametrize(
    "packet",
    [
        UPGRADE,
        (PacketType.PING, ""),
        (PacketType.PING, b"probe"),
        (PacketType.PING, "probe "),
        (PacketType.MESSAGE, "probe"),
    ],
)
def test_a_move_begins_with_the_probe(packet: Packet) -> None:
    session = polling()
    with pytest.raises(BadPacket, match="probe, then UPGRADE"):
        session.probe(packet)
    assert (session.probing, session.on_websocket, session.closed) == (False, False, None)


@pytest.mark.parametrize("packet", [PROBE, (PacketType.MESSAGE, "a"), (PacketType.PONG, "")])
def test_after_the_probe_there_is_upgrade_alone(packet: Packet) -> None:
    session = probing()
    with pytest.raises(BadPacket, match="probe, then UPGRADE"):
        session.probe(packet)
    assert (session.on_websocket, session.closed) == (False, None)


def test_a_session_that_ended_does_not_move() -> None:
    session = probing()
    session.close(CloseReason.CLIENT)
    for packet in (PROBE, UPGRADE):
        with pytest.raises(BadPacket):
            session.probe(packet)


def test_a_session_ends_once_and_for_one_reason() -> None:
    session = polling()
    assert session.close(CloseReason.PING_TIMEOUT) is True
    assert session.close(CloseReason.CLIENT) is False
    assert session.closed is CloseReason.PING_TIMEOUT


@pytest.mark.parametrize(
    ("on_polling", "transports", "upgrades"),
    [
        (True, ("polling", "websocket"), ["websocket"]),
        (True, ("polling",), []),
        (False, ("polling", "websocket"), []),
    ],
)
def test_the_handshake_says_what_the_settings_are(
    on_polling: bool, transports: tuple[str, ...], upgrades: list[str]
) -> None:
    config = Config(0.3, 0.2, 4096, transports)
    handshake = config.handshake("abc", polling=on_polling)
    assert handshake[0] == "0"
    assert json.loads(handshake[1:]) == {
        "sid": "abc",
        "upgrades": upgrades,
        "pingInterval": 300,
        "pingTimeout": 200,
        "maxPayload": 4096,
    }
    assert " " not in handshake
