"""`python -m tests.faults`: break things for as long as is asked, and say what came of it."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.faults.record import Answered, Received
from tests.faults.run import KINDS, Options, Outcome, run

SHOWN = 20


def main(arguments: Sequence[str]) -> int:
    """Run, report, and return the exit status: 1 where a promise was broken."""
    options = _parse(arguments)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="ditochat-faults-"))
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    kinds = frozenset(options.only or KINDS)
    _say(f"seed {seed}, {options.duration:g} s; data, logs and records in {directory}")
    outcomes = asyncio.run(run(directory, Options(seed, options.duration, kinds)))
    for outcome in outcomes:
        _say(*_report(outcome))
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds; 60 unless told")
    parser.add_argument("--seed", type=int, help="repeats a run; drawn unless told")
    parser.add_argument(
        "--only", action="append", choices=sorted(KINDS), help="a kind of fault; may be repeated"
    )
    parser.add_argument("--directory", type=Path, help="for data, logs and records; must be empty")
    return parser.parse_args(arguments)


def _report(outcome: Outcome) -> list[str]:
    answers = [event for event in outcome.events if isinstance(event, Answered)]
    stored = {event.nonce for event in answers if event.id is not None}
    told = Counter(event.code for event in answers if event.code is not None)
    deliveries = sum(isinstance(event, Received) for event in outcome.events)
    lines = [
        f"{outcome.site}: {outcome.readers} readers, {sum(outcome.faults.values())} faults",
        f"  {len(stored)} messages acknowledged, {deliveries} deliveries",
        f"  answers other than an id: {dict(told)}",
        *(f"{count:5} {kind}" for kind, count in sorted(outcome.faults.items())),
    ]
    if outcome.skipped:
        lines.append(f"  not injected, something else was at it: {dict(outcome.skipped)}")
    lines.append(f"  {len(outcome.violations)} violations")
    lines += [
        f"  {violation.at:.3f} {violation.promise} {violation.who}: {violation.what}"
        for violation in outcome.violations[:SHOWN]
    ]
    return lines


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
