"""docs/benchmarks.md: what was measured, in words and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.scenarios import Column, Scenario
from bench.summary import Row, ratio

__all__ = ["PLOTS", "Report", "Results", "render"]

Results = Mapping[str, Mapping[str, Row]]

#: file name without .svg to what it shows
PLOTS: Final = {
    "bench-fanout": "CPU time per delivery, and deliveries a second under more load than most can take",
    "bench-clients": "Memory of an idle client, and CPU time of a connect",
    "bench-messages": "Acknowledged publishes a second, and answers to GET /messages a second",
}

_HOW: Final = (
    """Everything ran on this one machine, over loopback. {report.pinning} In each scenario the servers took
turns (A B C A B C ...), each time as a fresh process with an empty Redis. A number is the median of the
rounds, of which there were {report.rounds} unless a table says otherwise.""",
    """Messages are 150 bytes of JSON. CPU is user and system time of the server's processes, without Redis.
Memory is resident memory, without the kernel's socket buffers. A delay is from the publisher's send to the
receiver's read, both in one process and so by one clock. All servers run with their default settings. Redis
keeps an append-only file, synced once a second, in memory (`/dev/shm`): the disk is not what is measured.""",
    """The floor (`bench/floor.c`) is not a chat: it passes on what it gets, by one `send()` for each client,
and does nothing else. No server on this machine can do with less.""",
)
_GENERATOR: Final = """## The load generator

`bench/load.c` is one thread. Its own use of its core is in the tables (load, cores): where that is well below
1, the server was the bottleneck. Every message carries a number and the time of its sending; every delivery
is counted, timed, and held against the order in which the others got it."""


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    date: str
    command: str
    minutes: float
    rounds: int
    quick: bool
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    pinning: str
    titles: Mapping[str, str]  # of servers, by name
    self_check: Sequence[str] = field(default=())  # lines of a table; empty where it was not asked for


def render(report: Report, scenarios: Sequence[Scenario], results: Results, *, plots: bool = True) -> str:
    """Return the page."""
    parts = [_head(report)]
    if plots:
        parts.append("\n\n".join(f"![{text}](images/{name}.svg)" for name, text in PLOTS.items()))
    parts += [_scenario(scenario, results[scenario.name], report) for scenario in scenarios]
    parts.append(_generator(report))
    parts.append("## Versions\n\n" + _list(report.versions))
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    about = {"date": report.date, "command": f"`{report.command}`", **report.machine}
    parts = ["# Benchmarks", f"Written by `make bench` in {report.minutes:.0f} minutes."]
    if report.quick:
        parts.append("**A quick try, with a tenth of the clients: its numbers mean little.**")
    return "\n\n".join([*parts, _list(about), *(text.format(report=report) for text in _HOW)])


def _scenario(scenario: Scenario, rows: Mapping[str, Row], report: Report) -> str:
    main = scenario.columns[0]
    bases = [name for name in scenario.ratio_to if name in rows]
    titles = ["", *(column.title for column in scenario.columns)]
    titles += [f"{main.title.partition(',')[0]}: times {_short(report.titles[name])}" for name in bases]
    lines = [_line(titles), _line(["---", *["---:"] * (len(titles) - 1)])]
    for name, row in rows.items():
        cells = [_value(row, column) for column in scenario.columns]
        ratios = [_ratio(ratio(row, rows[base], main.key)) for base in bases]
        lines.append(_line([report.titles[name], *cells, *ratios]))
    remarks = [
        f"- {report.titles[name]}: {'; '.join([*row.remarks, *_fewer(scenario, row, report)])}"
        for name, row in rows.items()
        if row.remarks or _fewer(scenario, row, report)
    ]
    rounds = " One round." if scenario.rounds == 1 and report.rounds != 1 else ""
    text = f"## {scenario.title}\n\n{scenario.what}{rounds}\n\n" + "\n".join(lines)
    return text + ("\n\n" + "\n".join(remarks) if remarks else "")


def _generator(report: Report) -> str:
    if not report.self_check:
        return _GENERATOR
    held = "Held against another generator, written independently, on the same servers, taking turns:"
    return f"{_GENERATOR}\n\n{held}\n\n" + "\n".join(report.self_check)


def _fewer(scenario: Scenario, row: Row, report: Report) -> list[str]:
    """Say where fewer rounds or clients than meant are in a row."""
    said = []
    if 0 < row.rounds < (scenario.rounds or report.rounds):
        said.append(f"only {row.rounds} rounds gave numbers")
    clients = row.fields.get("clients", scenario.clients) + row.fields.get("failed_to_connect", 0)
    if row.rounds and clients < scenario.clients:
        said.append(
            f"{clients:,.0f} clients instead of {scenario.clients:,}: the limit of open files (`ulimit -Hn`)"
        )
    return said


def _value(row: Row, column: Column) -> str:
    value = row.fields.get(column.key)
    return "-" if value is None else f"{value:,.{column.digits}f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _short(title: str) -> str:
    return title.partition(":")[0]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _list(pairs: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in pairs.items())
