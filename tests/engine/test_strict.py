"""What we lean on in python-socketio, and that python-engineio's server is not in the way."""

import ast
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import socketio
from socketio.packet import Packet

from ditochat.engine.server import EngineServer
from ditochat.engine.strict import MAX_ATTACHMENTS, PRIVATE_NAMES, StrictServer, check_event
from ditochat.gateways.socketio import ChatServer

SOURCES = sorted((Path(__file__).parents[2] / "server" / "ditochat").rglob("*.py"))
LISTED = [(owner, name) for owner, names in PRIVATE_NAMES.items() for name in names]
_PRIVATE = re.compile(r"_[a-z][a-z_]*")


def moved(owner: type, name: str) -> str:
    return (
        f"python-socketio {version('python-socketio')} has no {owner.__name__}.{name} any more. It was "
        "renamed or removed in a new release; ditochat/engine/strict.py and gateways/emits.py override or call "
        "it. Read that release's changes, follow them there, then raise the version in pyproject.toml."
    )


@pytest.mark.parametrize(("owner", "name"), LISTED, ids=lambda part: getattr(part, "__name__", part))
def test_a_private_name_that_we_use_is_still_there(owner: type, name: str) -> None:
    found = getattr(owner, name, None)
    assert found is not None, moved(owner, name)
    assert callable(found), f"{owner.__name__}.{name} is not a method any more: {moved(owner, name)}"


def test_a_name_that_is_gone_is_explained() -> None:
    text = moved(socketio.AsyncServer, "_handle_connect")
    assert "AsyncServer._handle_connect" in text
    assert "strict.py" in text


def bases_from_socketio(path: Path) -> set[str]:
    """The private methods of socketio's classes that a module overrides, or calls on self or super()."""
    tree = ast.parse(path.read_text())
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _PRIVATE.fullmatch(node.attr):
            used.add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _PRIVATE.fullmatch(node.name):
            used.add(node.name)
    return used


@pytest.mark.parametrize("module", ["engine/strict.py", "gateways/emits.py", "gateways/socketio.py"])
def test_no_private_name_of_python_socketio_is_used_unlisted(module: str) -> None:
    path = next(source for source in SOURCES if source.as_posix().endswith(module))
    listed = {name for _, name in LISTED}
    theirs = {name for owner in PRIVATE_NAMES for name in vars(owner) | vars(socketio.AsyncManager)}
    ours = {
        name
        for cls in (StrictServer, ChatServer)
        for name in vars(cls)
        if name not in vars(socketio.AsyncServer)
    }
    unlisted = (bases_from_socketio(path) & theirs) - listed - ours
    assert not unlisted, f"{module} leans on {sorted(unlisted)}: list them in strict.PRIVATE_NAMES"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_python_engineio_s_servers_are_not_used(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        assert not [name for name in names if name.startswith("engineio")], f"{path} imports {names}"


@pytest.mark.parametrize("server", [StrictServer, ChatServer])
def test_the_engine_below_is_ours(server: type[StrictServer]) -> None:
    made = server.__new__(server)
    assert made._engineio_server_class() is EngineServer  # noqa: SLF001 - python-socketio's own hook


async def test_the_engine_at_runtime_is_ours() -> None:
    assert type(StrictServer().eio) is EngineServer


@pytest.mark.parametrize("event", [["a"], ["a", 1], [1], [1.5, "x"]])
def test_an_event_has_a_name(event: object) -> None:
    check_event(event)


@pytest.mark.parametrize("event", [None, "message", [], [None], [[]], [{}], {"0": "a"}, 5])
def test_what_has_no_name_is_no_event(event: object) -> None:
    with pytest.raises(ValueError, match="begins with the event's name"):
        check_event(event)


class Said:
    """An engine that keeps record."""

    def __init__(self, server: StrictServer) -> None:
        self.server = server
        self.received: list[object] = []
        self.closed: list[str] = []
        server.packet_received = self.keep  # type: ignore[method-assign]
        server.has_joined = lambda eio_sid, namespace: True  # type: ignore[method-assign]
        server.eio.close = lambda sid, abort=False: self.closed.append(sid)

    def keep(self, eio_sid: str, received: Packet) -> None:
        self.received.append(received.data)

    def hears(self, *packets: str | bytes) -> None:
        for packet in packets:
            self.server._received("one", packet)  # noqa: SLF001 - what the engine calls


@pytest.fixture
async def said() -> Said:
    return Said(StrictServer())


async def test_attachments_are_put_into_their_packet(said: Said) -> None:
    said.hears('52-["file",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]', b"a", b"b")
    assert (said.received, said.closed) == ([["file", b"b", b"a"]], [])


@pytest.mark.parametrize(
    "packets",
    [
        ("2{broken",),
        (b"an attachment of nothing",),
        ('51-["a",{"_placeholder":true,"num":0}]', "2[1]"),
        (f'5{MAX_ATTACHMENTS + 1}-["a"]',),
        ('50-["a"]',),
        ('51-["a",{"_placeholder":true,"num":1}]', b"x"),
    ],
)
async def test_what_can_not_be_read_closes_the_client(said: Said, packets: tuple[str | bytes, ...]) -> None:
    said.hears(*packets)
    assert (said.received, said.closed) == ([], ["one"])


async def test_nothing_is_kept_of_a_client_that_is_gone(said: Said) -> None:
    said.server.eio.start_background_task = lambda *args: None
    said.hears('51-["a",{"_placeholder":true,"num":0}]')
    assert said.server._begun  # noqa: SLF001 - what is kept
    said.server.transport_closed("one", "transport close")
    assert not said.server._begun  # noqa: SLF001
