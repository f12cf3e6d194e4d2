"""`python -m tests.faults`: break things for as long as is asked, and say what came of it."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.faults.record import read
from tests.faults.report import Summary, lines, summarize, tables
from tests.faults.run import KINDS, Options, run

_SUMMARY = "summary.json"


def main(arguments: Sequence[str]) -> int:
    """Do what is asked, and return the exit status: 1 where a promise was broken."""
    options = _parse(arguments)
    if options.table:
        _say(tables(one for directory in options.table for one in _summaries(directory)))
        return 0
    if options.plot:
        from tests.faults.plot import draw  # noqa: PLC0415 - matplotlib is there for pictures only

        record, picture = options.plot
        draw(read(record), picture)
        return 0
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    directory = options.directory or Path(tempfile.mkdtemp(prefix="ditochat-faults-"))
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    _say(f"seed {seed}, {options.duration:g} s; data, logs and records in {directory}")
    outcomes = asyncio.run(run(directory, Options(seed, options.duration, frozenset(options.only or KINDS))))
    summaries = [
        summarize(
            outcome.site,
            seed,
            readers=outcome.readers,
            events=outcome.events,
            violations=outcome.violations,
            faults=outcome.faults,
            skipped=outcome.skipped,
        )
        for outcome in outcomes
    ]
    (directory / _SUMMARY).write_bytes(msgspec.json.encode(summaries))
    for summary in summaries:
        _say("\n".join(lines(summary)))
    return 1 if any(summary.violations for summary in summaries) else 0


def _summaries(directory: Path) -> list[Summary]:
    return msgspec.json.decode((directory / _SUMMARY).read_bytes(), type=list[Summary])


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds; 60 unless told")
    parser.add_argument("--seed", type=int, help="repeats a run; drawn unless told")
    parser.add_argument(
        "--only", action="append", choices=sorted(KINDS), help="a kind of fault; may be repeated"
    )
    parser.add_argument("--directory", type=Path, help="for data, logs and records; must be empty")
    parser.add_argument("--table", type=Path, nargs="+", help="say what runs in these directories came to")
    parser.add_argument(
        "--plot", type=Path, nargs=2, metavar=("RECORD", "SVG"), help="draw a record.jsonl; needs matplotlib"
    )
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
