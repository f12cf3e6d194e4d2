"""A short round of each target, and what it takes to find something."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest

from ditochat.engine.frames import Frame, FrameParser, Opcode
from ditochat.engine.server import EngineServer
from ditochat.gateways import http
from ditochat.gateways.socketio import ChatServer
from tests.fuzz.__main__ import main
from tests.fuzz.frames import frames
from tests.fuzz.mutation import shrunk
from tests.fuzz.running import Report, failure, run
from tests.fuzz.target import Check, Target
from tests.fuzz.targets import TARGETS

ROUND = {
    "frames": 8000, "packets": 20_000, "messages": 8000, "engine": 4000, "chat": 1500, "front": 3000, "http": 300
}  # fmt: skip


# A request that is cancelled while aiohttp opens its file leaves the file to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_round_finds_nothing(name: str) -> None:
    report = run(TARGETS[name], ROUND[name], seed=1)
    assert report.findings == [], [(finding.error, finding.data) for finding in report.findings]
    assert report.inputs == ROUND[name]


def test_the_shares_are_thousandths() -> None:
    assert sum(target.share for target in TARGETS.values()) == 1000


def test_a_seed_draws_the_same_inputs_again() -> None:
    for target in TARGETS.values():
        one, again, other = (target.draws(Random(seed)) for seed in (1, 1, 2))  # noqa: S311 - to be drawn again
        drawn = [one() for _ in range(50)]
        assert drawn == [again() for _ in range(50)]
        assert drawn != [other() for _ in range(50)]
        assert len(set(drawn)) > 25


# ---- planted faults: each target finds one


class RaisesOnARareByte(FrameParser):
    """A parser that cannot bear a certain byte in a ping."""

    def feed(self, data: bytes) -> list[Frame]:
        found = super().feed(data)
        if any(frame[0] is Opcode.PING and b"\x1f" in frame[1] for frame in found):
            raise KeyError("planted")
        return found


class KeepsTheLastByte(FrameParser):
    """A parser that holds on to what it has dealt with."""

    def feed(self, data: bytes) -> list[Frame]:
        found = super().feed(data)
        if self._rest is None and self._message is None and not self.closed:
            self._rest = b""
        return found


@pytest.mark.parametrize(
    ("parser", "error"), [(RaisesOnARareByte, KeyError), (KeepsTheLastByte, AssertionError)]
)
def test_a_fault_of_the_parser_is_found(parser: type[FrameParser], error: type[Exception]) -> None:
    @contextmanager
    def opened() -> Iterator[Check]:
        with frames(parser) as check:
            yield check

    report = run(Target("frames", 1, opened, TARGETS["frames"].draws), 5000, seed=1)
    assert type(report.findings[0].error) is error
    with frames() as check:
        assert failure(check, report.findings[0].data) is None


def test_a_finding_is_made_short() -> None:
    data = b"a" * 1000 + b"X" + b"b" * 1000 + b"Y" + b"c" * 100
    assert shrunk(data, lambda shorter: b"X" in shorter and b"Y" in shorter) == b"XY"


def no_end(self: EngineServer, *_: object) -> None:
    """Forget nobody."""


def no_answer(*_: object) -> None:
    """Acknowledge nothing."""


def fails(*_: object) -> None:
    raise LookupError("planted")


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "fault"),
    [
        ("packets", "tests.fuzz.packets", "decode_payload", fails),
        ("messages", "tests.fuzz.messages", "adopt", fails),
        ("engine", EngineServer, "_end", no_end),
        ("engine", EngineServer, "_tick", fails),
        ("chat", "ditochat.gateways.socketio", "_acknowledge", no_answer),
        ("chat", ChatServer, "_leave", no_end),
        ("front", http, "_matches", fails),
    ],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: object, attribute: str, fault: Callable[..., None]
) -> None:
    if isinstance(owner, str):
        monkeypatch.setattr(f"{owner}.{attribute}", fault)
    else:
        monkeypatch.setattr(owner, attribute, fault)
    assert run(TARGETS[name], 2000, seed=1, shorten=False).findings


def test_a_finding_is_printed_with_the_way_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("tests.fuzz.packets.decode_payload", fails)
        assert main(["--target", "packets", "--inputs", "10"]) == 1
    out = capsys.readouterr().out
    assert "LookupError: planted" in out
    encoded = out.partition("--target packets --input ")[2].split("\n")[0]
    base64.b64decode(encoded, validate=True)
    assert main(["--target", "packets", f"--input={encoded}"]) == 0
    assert "no finding" in capsys.readouterr().out


def test_a_leak_is_found() -> None:
    kept: list[list[bytes]] = []

    @contextmanager
    def opened() -> Iterator[Check]:
        yield lambda data: kept.append([data])

    report: Report = run(Target("leak", 1, opened, TARGETS["packets"].draws), 20_000, seed=1)
    assert "grew by" in str(report.findings[0].error)
