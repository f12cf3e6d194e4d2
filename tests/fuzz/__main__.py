"""`python -m tests.fuzz`: give each target its share of the inputs; the status is 1 if one broke a promise."""

import argparse
import base64
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from tests.fuzz.running import Report, run
from tests.fuzz.targets import TARGETS

MAX_SHOWN_BYTES: Final = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the server's parsers.")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be repeated")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in all; default: a million")
    parser.add_argument("--seed", type=int, default=1, help="another one draws other inputs")
    parser.add_argument("--input", type=base64.b64decode, help="one input, in base64; takes one --target")
    arguments = parser.parse_args(argv)
    targets = [TARGETS[name] for name in arguments.target or TARGETS]
    if arguments.input is not None:
        if len(targets) != 1:
            parser.error("--input takes one --target")
        with targets[0].opened() as check:
            check(arguments.input)
        sys.stdout.write("no finding\n")
        return 0
    shares = sum(target.share for target in targets)
    reports = []
    for target in targets:
        # Rounded up, so that it is at least as many as asked for.
        inputs = -(-arguments.inputs * target.share // shares)
        reports.append(run(target, inputs, arguments.seed))
        _print(reports[-1])
    total = sum(report.inputs for report in reports)
    findings = sum(len(report.findings) for report in reports)
    seconds = sum(report.seconds for report in reports)
    sys.stdout.write(_line("all", total, seconds, findings))
    return 1 if findings else 0


def _line(name: str, inputs: int, seconds: float, findings: int) -> str:
    return f"{name:<10}{inputs:>9} inputs {seconds:>7.1f} s {findings:>3} findings\n"


def _print(report: Report) -> None:
    out = sys.stdout
    out.write(_line(report.target, report.inputs, report.seconds, len(report.findings)))
    for finding in report.findings:
        out.write("".join(traceback.format_exception(finding.error)))
        encoded = base64.b64encode(finding.data).decode()
        out.write(f"input: {finding.data[:MAX_SHOWN_BYTES]!r}\n")
        out.write(f"again: python -m tests.fuzz --target {report.target} --input {encoded}\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
