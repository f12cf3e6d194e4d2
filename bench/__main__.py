"""`python -m bench`: measure, print the report, write docs/benchmarks.md."""

import argparse
import dataclasses
import datetime as dt
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import generator
from bench.machine import Cores, facts, versions
from bench.peers.ditochat import OVER_SOCKETIO, OVER_WS
from bench.peers.external import External
from bench.peers.floor import FLOOR
from bench.peers.node_socketio import NODE
from bench.peers.peer import BUILD, ROOT
from bench.peers.stock_socketio import STOCK
from bench.processes import run_redis
from bench.report import Report, Results, render
from bench.runner import Bench, measure_all
from bench.scenarios import SCENARIOS, Scenario, quick
from bench.selfcheck import self_check
from ditochat.embedded import find_server_binary

PEERS: Final = (FLOOR, OVER_SOCKETIO, OVER_WS, NODE, STOCK)
PAGE: Final = ROOT / "docs" / "benchmarks.md"
IMAGES: Final = ROOT / "docs" / "images"
RAW: Final = BUILD / "results.json"

logger = logging.getLogger("bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the arguments ask for; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    arguments = _parser().parse_args(argv)
    scenarios = _chosen(arguments)
    writes = arguments.write or not (arguments.only or arguments.quick or arguments.peers)
    draw_all = _plotter() if writes else None  # if there is no matplotlib, now is the time to say so
    started = time.monotonic()
    generator.build()
    cores, valkey = Cores.choose(), find_server_binary()
    with run_redis(valkey, cores) as redis:
        names = [peer.name for peer in PEERS] if arguments.peers is None else arguments.peers
        peers = [peer for peer in PEERS if peer.name in names]
        # First, so that a reference that does not fit is found out before ten minutes of measuring.
        checked = self_check(arguments.reference, redis, cores) if arguments.reference else []
        results = measure_all(
            Bench(peers, arguments.server, redis, cores, arguments.rounds, arguments.origin), scenarios
        )
    report = Report(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        command=_command(sys.argv[1:] if argv is None else argv),
        minutes=(time.monotonic() - started) / 60,
        rounds=arguments.rounds,
        quick=arguments.quick,
        machine=facts(),
        versions=versions(valkey),
        pinning=str(cores),
        titles={server.name: server.title for server in (*PEERS, *arguments.server)},
        self_check=checked,
    )
    _save(report, results)
    sys.stdout.write(render(report, scenarios, results, plots=draw_all is not None))
    if draw_all is not None:
        draw_all(results, report.titles, IMAGES)
        PAGE.write_text(render(report, scenarios, results))
        logger.info("wrote %s", PAGE.relative_to(ROOT))
    else:
        logger.info("%s is as it was: this run was not the whole one", PAGE.relative_to(ROOT))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure ditochat beside other servers."
    )
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser.add_argument("--only", action="append", metavar="SCENARIO", help=f"may be repeated; of {names}")
    parser.add_argument(
        "--peers", nargs="+", choices=[peer.name for peer in PEERS], help="only these servers"
    )
    parser.add_argument("--rounds", type=int, default=3, help="a number is the median of so many (default 3)")
    parser.add_argument("--quick", action="store_true", help="a second a run, a tenth of the clients: a try")
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        type=_external,
        metavar="NAME=URL,PROTOCOL[,PID]",
        help="measure a server that runs already, too; PROTOCOL is ws or socketio; may be repeated",
    )
    parser.add_argument("--origin", help="the Origin that clients of added servers send")
    parser.add_argument("--reference", type=Path, metavar="FILE.c", help="hold load.c against this generator")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md whatever was left out")
    return parser


def _external(text: str) -> External:
    try:
        return External.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _chosen(arguments: argparse.Namespace) -> list[Scenario]:
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    names = arguments.only or by_name
    if unknown := [name for name in names if name not in by_name]:
        sys.stderr.write(f"bench: unknown scenario {unknown[0]!r}; there are {', '.join(by_name)}\n")
        raise SystemExit(2)
    if arguments.rounds < 1:
        sys.stderr.write("bench: --rounds must be at least 1\n")
        raise SystemExit(2)
    chosen = [by_name[name] for name in names]
    return [quick(scenario) for scenario in chosen] if arguments.quick else chosen


def _command(words: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "bench", *words]) if words else "make bench"


def _save(report: Report, results: Results) -> None:
    rows = {
        scenario: {name: dataclasses.asdict(row) for name, row in of_scenario.items()}
        for scenario, of_scenario in results.items()
    }
    RAW.write_text(json.dumps({"report": dataclasses.asdict(report), "results": rows}, indent=1))


def _plotter() -> Callable[[Results, Mapping[str, str], Path], None]:
    # Whoever only measures needs no matplotlib.
    from bench.plots import draw_all  # noqa: PLC0415

    return draw_all


if __name__ == "__main__":
    sys.exit(main())
