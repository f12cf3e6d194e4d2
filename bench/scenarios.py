"""What is measured: the one table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from bench.peers.peer import Can

__all__ = ["SCENARIOS", "Column", "Scenario", "quick"]

Mode = Literal["fanout", "idle", "storm", "publish", "http"]

_EVERYBODY: Final = ("floor", "ditochat", "ditochat-ws", "node", "stock")
_CHATS: Final = ("ditochat", "node", "stock")


@dataclass(frozen=True)
class Column:
    """One column of a table: a field of what load.c prints."""

    key: str
    title: str
    digits: int = 1


@dataclass(frozen=True)
class Scenario:
    """One run of load.c, the same for each server."""

    name: str
    title: str
    what: str  # for the report: what is done
    mode: Mode
    peers: Sequence[str]  # others are measured too where they are added on the command line
    columns: Sequence[Column]
    clients: int
    secs: float
    warm: float = 1.0
    publishers: int = 1
    rate: float = 0.0  # messages a second; fanout
    window: int = 1  # publishes under way for each publisher
    instances: int = 1
    replay: int = 0  # messages that a client gets on joining, from servers that can
    history: int = 0  # messages that are published before
    if_none_match: bool = False
    needs: Can | None = None
    rounds: int | None = None  # None: as many as asked for
    ratio_to: Sequence[str] = ()  # the first column is given as a multiple of these servers', where measured

    @property
    def seconds_at_most(self) -> float:
        """How long load.c may take before it is given up."""
        return self.warm + self.secs + 70


_CPU: Final = Column("cpu_us_per_delivery", "CPU, us per delivery", 2)
_RATE: Final = Column("deliveries_per_s", "deliveries/s", 0)
_P50: Final = Column("p50_ms", "p50, ms")
_P99: Final = Column("p99_ms", "p99, ms")
_SERVER: Final = Column("server_cores", "server, cores", 2)
_LOAD: Final = Column("load_cores", "load, cores", 2)

SCENARIOS: Final = (
    Scenario(
        name="fanout-100",
        title="Fan-out, 100 messages a second",
        what="1000 clients; 10 of them publish 100 messages a second together, and everybody gets each: "
        "100,000 deliveries a second are offered.",
        mode="fanout",
        peers=_EVERYBODY,
        columns=(_CPU, _RATE, _P50, _P99, _SERVER, _LOAD),
        clients=1000,
        publishers=10,
        rate=100,
        secs=4,
        ratio_to=("floor", "go", "node"),
    ),
    Scenario(
        name="fanout-10",
        title="Fan-out, 10 messages a second",
        what="The same with 10 messages a second: what all of them can do.",
        mode="fanout",
        peers=_CHATS,
        columns=(_CPU, _RATE, _P50, _P99, _SERVER, _LOAD),
        clients=1000,
        publishers=10,
        rate=10,
        secs=4,
        ratio_to=("go", "node"),
    ),
    Scenario(
        name="fanout-2000",
        title="Fan-out, 2000 messages a second",
        what="The same with 2000 messages a second: 2,000,000 deliveries a second are offered.",
        mode="fanout",
        peers=_EVERYBODY,
        columns=(_RATE, _CPU, _P50, _P99, _SERVER, _LOAD),
        clients=1000,
        publishers=10,
        rate=2000,
        secs=4,
    ),
    Scenario(
        name="two-instances",
        title="Two instances",
        what="Two instances on one Redis share the servers' core; 500 clients on each, 5 of them publish, "
        "100 messages a second together.",
        mode="fanout",
        peers=_CHATS,
        columns=(_CPU, _RATE, _P50, _P99, Column("disordered", "out of order or twice", 0), _SERVER),
        clients=1000,
        publishers=10,
        rate=100,
        secs=4,
        instances=2,
        needs="cluster",
        ratio_to=("go", "node"),
    ),
    Scenario(
        name="storm",
        title="Connecting",
        what="3000 clients connect as fast as they can, 64 at a time, from TCP to CONNECT (Socket.IO) or to "
        "101 (plain WebSocket). ditochat over Socket.IO goes on to `session` and a replay of 10 messages.",
        mode="storm",
        peers=_EVERYBODY,
        columns=(
            Column("cpu_us_per_connect", "CPU, us per connect", 0),
            Column("connects_per_s", "connects/s", 0),
            _P50,
            _P99,
            Column("replayed", "messages replayed", 0),
        ),
        clients=3000,
        secs=1,
        replay=10,
        history=20,
        ratio_to=("go", "node"),
    ),
    Scenario(
        name="idle-10000",
        title="10,000 idle clients",
        what="10,000 clients are connected and say nothing.",
        mode="idle",
        peers=_CHATS,
        columns=(
            Column("rss_kb_per_client", "memory, KB per client", 1),
            Column("rss_mb", "memory, MB"),
            Column("clients", "clients", 0),
        ),
        clients=10_000,
        secs=1,
        warm=1.5,
        ratio_to=("go", "node"),
    ),
    Scenario(
        name="idle-50000",
        title="50,000 idle clients",
        what="50,000 clients are held for 30 s, which is longer than a heartbeat (25 s) takes to come round.",
        mode="idle",
        peers=("ditochat",),
        columns=(
            Column("rss_mb", "memory, MB"),
            Column("rss_kb_per_client", "memory, KB per client"),
            Column("server_cores", "server, cores", 3),
            Column("clients", "clients", 0),
        ),
        clients=50_000,
        secs=30,
        warm=1.5,
        rounds=1,
    ),
    Scenario(
        name="publish",
        title="Acknowledged publishes",
        what="10 clients, each with 16 publishes under way; a publish is stored in Redis, then acknowledged. "
        "All 10 get all messages.",
        mode="publish",
        peers=_CHATS,
        columns=(
            Column("acks_per_s", "acknowledged/s", 0),
            _P50,
            _P99,
            Column("cpu_us_per_ack", "CPU, us per publish", 0),
            _SERVER,
        ),
        clients=10,
        publishers=10,
        window=16,
        secs=3,
        needs="publish",
        ratio_to=("go", "node"),
    ),
    Scenario(
        name="history",
        title="`GET /messages`",
        what="1000 messages, 16 kept-alive connections, one request under way on each.",
        mode="http",
        peers=_CHATS,
        columns=(
            Column("responses_per_s", "answers/s", 0),
            _P50,
            _P99,
            Column("mean_body_bytes", "body, bytes", 0),
            _LOAD,
        ),
        clients=16,
        secs=3,
        warm=0.5,
        history=1100,
        needs="history",
        ratio_to=("go", "node"),
    ),
    Scenario(
        name="history-304",
        title="`GET /messages` with If-None-Match",
        what="The same, asking with the ETag of the first answer.",
        mode="http",
        peers=("ditochat",),
        columns=(
            Column("responses_per_s", "answers/s", 0),
            _P50,
            _P99,
            Column("status_304", "of them 304", 0),
            _LOAD,
        ),
        clients=16,
        secs=3,
        warm=0.5,
        history=1100,
        if_none_match=True,
        needs="etag",
    ),
)


def quick(scenario: Scenario) -> Scenario:
    """Return a version that takes a second or two: for trying the runner, not for numbers."""
    return replace(
        scenario,
        clients=min(scenario.clients, max(10, scenario.clients // 10)),
        secs=1.0,
        warm=0.3,
        rounds=1,
    )
