"""Runs the scenarios: for each, the servers take turns, A B C A B C, each time a fresh process."""

import http.client
import json
import logging
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench import generator
from bench.generator import Failed, Target
from bench.machine import Cores, busy_seconds, descriptor_limit, pin, used_seconds
from bench.peers.external import External
from bench.peers.peer import Peer
from bench.processes import HOST, NotStarted, Redis, run_peer
from bench.scenarios import Scenario
from bench.summary import Outcome, Row, summarize

__all__ = ["Bench", "measure_all"]

logger = logging.getLogger(__name__)

#: name of a scenario to name of a server to its row
Results = dict[str, dict[str, Row]]

_FILL_SECONDS = 20.0
_FAILURES = (
    Failed,
    NotStarted,
    OSError,
    ValueError,
    LookupError,
    subprocess.SubprocessError,
    http.client.HTTPException,
)


@dataclass(frozen=True)
class Bench:
    """What is measured, and where."""

    peers: Sequence[Peer]
    externals: Sequence[External]
    redis: Redis
    cores: Cores
    rounds: int
    origin: str | None = None  # what the clients of added servers say


def measure_all(bench: Bench, scenarios: Sequence[Scenario]) -> Results:
    """Measure each scenario with each of its servers; what fails gets a row that says so."""
    return {scenario.name: _measure_scenario(bench, scenario) for scenario in scenarios}


def _measure_scenario(bench: Bench, scenario: Scenario) -> dict[str, Row]:
    by_name = {peer.name: peer for peer in bench.peers}
    peers = [by_name[name] for name in scenario.peers if name in by_name]
    externals = bench.externals if scenario.instances == 1 else ()
    servers: list[Peer | External] = [*peers, *externals]
    outcomes: dict[str, list[Outcome]] = {server.name: [] for server in servers}
    for number in range(scenario.rounds or bench.rounds):
        for server in servers:
            outcome = _measure(bench, scenario, server)
            outcomes[server.name].append(outcome)
            logger.info(
                "%s, round %d, %s: %s", scenario.name, number + 1, server.name, _brief(scenario, outcome)
            )
    return {name: summarize(several) for name, several in outcomes.items()}


def _measure(bench: Bench, scenario: Scenario, server: Peer | External) -> Outcome:
    clients = min(scenario.clients, descriptor_limit(scenario.clients))
    try:
        with _target(bench, scenario, server) as target:
            if scenario.history:
                _fill(target, scenario.history, bench.cores.load)
            joining = _joining(target, server, scenario)
            words = [*generator.arguments(scenario, target, clients=clients), *joining]
            others = _Others([*target.pids, bench.redis.pid])
            fields = generator.run(words, core=bench.cores.load, seconds=scenario.seconds_at_most)
            fields["others_cores"] = others.cores()
    except _FAILURES as error:
        return Outcome(failure=str(error) or type(error).__name__)
    return Outcome(fields)


@contextmanager
def _target(bench: Bench, scenario: Scenario, server: Peer | External) -> Iterator[Target]:
    """Have the server run, with an empty Redis."""
    if isinstance(server, External):
        pids = [] if server.pid is None else [server.pid]
        for pid in pids:
            pin(pid, bench.cores.server)
        yield Target(server.protocol, [server.port], pids, path=server.path, origin=bench.origin)
        return
    bench.redis.empty()
    with run_peer(server, scenario.instances, bench.redis.url, bench.cores) as running:
        yield Target(server.protocol, [one.port for one in running], [one.pid for one in running])


def _fill(target: Target, count: int, core: int | None) -> None:
    """Publish so many messages."""
    words = ["publish", "--protocol", target.protocol, "--port", str(target.ports[0])]
    words += ["--path", target.path] if target.path else []
    words += ["--origin", target.origin] if target.origin else []
    words += ["--clients", "4", "--publishers", "4", "--window", "16", "--warm", "0"]
    words += ["--count", str(count), "--secs", str(_FILL_SECONDS)]
    generator.run(words, core=core, seconds=_FILL_SECONDS + 10)


def _joining(target: Target, server: Peer | External, scenario: Scenario) -> list[str]:
    """Have the clients of a server that speaks of sessions wait for theirs, and for the replay."""
    if isinstance(server, External) or "session" not in server.can or scenario.mode == "http":
        return []
    if not scenario.replay:
        return ["--session"]
    session = _session(target.ports[0])
    auth = {"after": session["last_id"] - scenario.replay, "epoch": session["epoch"]}
    return ["--session", "--replay", str(scenario.replay), "--auth", json.dumps(auth)]


class _Others:
    """What else ran on the machine meanwhile: it is in the numbers of a server that had to wait."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._began = time.monotonic()
        self._before = self._used()

    def cores(self) -> float:
        """Return how many cores others used, on average."""
        return max(0.0, (self._used() - self._before) / (time.monotonic() - self._began))

    def _used(self) -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)  # the load, after its end
        own = time.process_time() + children.ru_utime + children.ru_stime
        return busy_seconds() - used_seconds(self._pids) - own


@dataclass
class _Polling:
    """As much of a Socket.IO client as it takes to see one event."""

    connection: http.client.HTTPConnection
    path: str = field(default="/socket.io/?EIO=4&transport=polling")

    def exchange(self, method: str, body: str | None = None) -> str:
        self.connection.request(method, self.path, body)
        return self.connection.getresponse().read().decode()


def _session(port: int) -> dict[str, int]:
    """Return the payload of the event `session`."""
    polling = _Polling(http.client.HTTPConnection(HOST, port, timeout=5))
    polling.path += f"&sid={json.loads(polling.exchange('GET')[1:])['sid']}"
    polling.exchange("POST", "40")
    for _ in range(5):
        for packet in polling.exchange("GET").split("\x1e"):
            if packet.startswith('42["session"'):
                session: dict[str, int] = json.loads(packet[2:])[1]
                polling.exchange("POST", "1")
                polling.connection.close()
                return session
    raise Failed("there was no event `session`")


def _brief(scenario: Scenario, outcome: Outcome) -> str:
    if outcome.failure is not None:
        return outcome.failure
    shown = (column for column in scenario.columns if column.key in outcome.fields)
    return ", ".join(f"{column.title} {outcome.fields[column.key]:,.{column.digits}f}" for column in shown)
