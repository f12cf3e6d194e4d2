"""`python -m tests.faults`: break things for as long as is asked, and say what came of it."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.faults.faults import KINDS
from tests.faults.record import Answered, Received
from tests.faults.run import Options, Outcome, run

SHOWN = 20


def main(arguments: Sequence[str]) -> int:
    """Run, report, and return the exit status: 1 where a promise was broken."""
    options = _parse(arguments)
    kinds = {name: KINDS[name] for name in options.only} if options.only else KINDS
    directory = options.directory or Path(tempfile.mkdtemp(prefix="ditochat-faults-")) / "run"
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    _say(f"seed {seed}, {options.duration:g} s, in {directory}")
    outcome = asyncio.run(run(directory, Options(seed, options.duration, kinds)))
    _say(*_report(outcome))
    return 1 if outcome.violations else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds; 60 unless told")
    parser.add_argument("--seed", type=int, help="repeats a run; drawn unless told")
    parser.add_argument(
        "--only", action="append", choices=sorted(KINDS), help="a kind of fault; may be repeated"
    )
    parser.add_argument("--directory", type=Path, help="for data, logs and the record; must not exist")
    return parser.parse_args(arguments)


def _report(outcome: Outcome) -> list[str]:
    answers = [event for event in outcome.events if isinstance(event, Answered)]
    stored = {event.nonce for event in answers if event.id is not None}
    told = Counter(event.code for event in answers if event.code is not None)
    deliveries = sum(isinstance(event, Received) for event in outcome.events)
    lines = [
        f"{outcome.seconds:.0f} s, {outcome.clients} readers, {len(stored)} messages acknowledged",
        f"{deliveries} deliveries; answers other than an id: {dict(told)}",
        *(f"{count:5} {kind}" for kind, count in sorted(outcome.faults.items())),
    ]
    if outcome.skipped:
        lines.append(f"not injected, because something else was broken there: {dict(outcome.skipped)}")
    lines.append(f"{len(outcome.violations)} violations")
    lines += [
        f"{violation.at:.3f} {violation.promise} {violation.who}: {violation.what}"
        for violation in outcome.violations[:SHOWN]
    ]
    return lines


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
