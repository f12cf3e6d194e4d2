"""Holds load.c against another load generator: both must see the same server alike."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import generator
from bench.machine import Cores
from bench.peers.ditochat import OVER_SOCKETIO
from bench.peers.floor import FLOOR
from bench.peers.peer import Peer
from bench.processes import Redis, Server, run_peer

__all__ = ["self_check"]

_ROUNDS: Final = 3
_SECONDS: Final = 3.0
_CLIENTS, _PUBLISHERS = 1000, 10
_RATES: Final = (100, 2000)
_MESSAGE_BYTES: Final = 150
#: What the reference generator's message is long without its padding.
_REFERENCE_BYTES: Final = 95
#: What each generator calls what is compared.
_FIELDS: Final = (
    ("deliveries/s", "deliveries_per_s", "deliveries_per_s", 0),
    ("CPU, us per delivery", "cpu_us_per_delivery", "server_cpu_us_per_delivery", 2),
    ("p50, ms", "p50_ms", "p50_ms", 1),
    ("p99, ms", "p99_ms", "p99_ms", 1),
)
_SECONDS_AT_MOST: Final = 60.0


def self_check(reference: Path, redis: Redis, cores: Cores) -> list[str]:
    """Measure with both in turn; return the lines of a table.

    Args:
        reference: the C source of the other generator; it takes the options that `_reference_words` has.
        redis: for the servers that need one.
        cores: which core is whose.

    """
    other = generator.build(reference)
    lines = [
        f"| server, messages/s | generator | {' | '.join(str(field[0]) for field in _FIELDS)} | its cores |",
        f"| --- | --- |{' ---: |' * (len(_FIELDS) + 1)}",
    ]
    for peer in (FLOOR, OVER_SOCKETIO):
        for rate in _RATES:
            ours: list[Mapping[str, float]] = []
            theirs: list[Mapping[str, float]] = []
            for _ in range(_ROUNDS):
                for words, program, seen in (
                    (_our_words, generator.LOAD, ours),
                    (_reference_words, other, theirs),
                ):
                    redis.empty()
                    with run_peer(peer, 1, redis.url, cores) as (server,):
                        seen.append(
                            generator.run(
                                words(peer, server, rate),
                                core=cores.load,
                                seconds=_SECONDS_AT_MOST,
                                program=program,
                            )
                        )
            if not all(fields["deliveries_per_s"] for fields in (*ours, *theirs)):
                raise generator.Failed(f"{peer.title}: a generator counted no delivery")
            where = f"{peer.title.partition(':')[0]}, {rate}"
            lines.append(_line(where, "`bench/load.c`", ours, 1))
            lines.append(_line(where, f"`{reference.name}`", theirs, 2))
    return lines


def _line(where: str, name: str, seen: Sequence[Mapping[str, float]], column: int) -> str:
    cells = []
    for field in _FIELDS:
        key, digits = str(field[column]), field[3]
        values = [fields[key] for fields in seen if key in fields]
        cells.append(f"{statistics.median(values):,.{digits}f}" if values else "-")
    cores = [fields["load_cores"] for fields in seen if "load_cores" in fields]
    cells.append(f"{statistics.median(cores):.2f}" if cores else "-")
    return f"| {where} | {name} | {' | '.join(cells)} |"


def _our_words(peer: Peer, server: Server, rate: int) -> list[str]:
    return _words(
        ["fanout", "--protocol", peer.protocol],
        ("--clients", "--publishers", "--rate", "--secs", "--size"),
        (_CLIENTS, _PUBLISHERS, rate, _SECONDS, _MESSAGE_BYTES),
        server,
    )


def _reference_words(peer: Peer, server: Server, rate: int) -> list[str]:
    # It says `Host: localhost`; another origin than its host's would be refused.
    return _words(
        ["--proto", "ws" if peer.protocol == "ws" else "sio", "--origin", f"http://localhost:{server.port}"],
        ("--conns", "--pubs", "--rate", "--secs", "--size"),
        (_CLIENTS, _PUBLISHERS, rate, _SECONDS, _MESSAGE_BYTES - _REFERENCE_BYTES),
        server,
    )


def _words(first: Sequence[str], names: Sequence[str], values: Sequence[float], server: Server) -> list[str]:
    options = [word for name, value in zip(names, values, strict=True) for word in (name, str(value))]
    return [*first, *options, "--port", str(server.port), "--pid", str(server.pid)]
