"""Runs a target on so many inputs, and says what it found."""

import gc
import sys
import time
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.fuzz.mutation import shrunk
from tests.fuzz.target import Check, Target

__all__ = ["Finding", "Report", "failure", "run"]

MAX_FINDINGS: Final = 3
# Of the inputs, those after which nothing should grow any more: caches are full, lazy parts are made.
WARM: Final = 0.3
# A leak of one object an input shows in a run of this many blocks; less is the noise of caches.
MAX_GROWTH_BLOCKS: Final = 20_000


@dataclass(frozen=True)
class Finding:
    """An input that breaks a promise, made as short as could be, and how it shows."""

    data: bytes
    error: BaseException


@dataclass
class Report:
    """What became of a run."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def failure(check: Check, data: bytes) -> Exception | None:
    """Return what an input raises."""
    try:
        check(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        # Not that it came while another was being handled: the reader of a report wants the one.
        error.__suppress_context__ = True
        return error
    return None


def run(target: Target, inputs: int, seed: int, *, shorten: bool = True) -> Report:
    """Feed ``inputs`` inputs; after a finding go on with what is fuzzed set up anew."""
    report = Report(target.name)
    begin = time.monotonic()
    draw = target.draws(Random(f"{target.name} {seed}"))  # noqa: S311 - to be drawn again, not to be secret
    while report.inputs < inputs and len(report.findings) < MAX_FINDINGS:
        data = b""
        try:
            with target.opened() as check:
                warm_at, blocks = report.inputs + int((inputs - report.inputs) * WARM), 0
                while report.inputs < inputs:
                    data = draw()
                    report.inputs += 1
                    check(data)
                    if report.inputs == warm_at:
                        blocks = _allocated_blocks()
                if blocks:
                    grown = _allocated_blocks() - blocks
                    assert grown <= MAX_GROWTH_BLOCKS, f"grew by {grown} blocks of memory"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            report.findings.append(_shortest(target, data, error) if shorten else Finding(data, error))
    report.seconds = time.monotonic() - begin
    return report


def _allocated_blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def _shortest(target: Target, data: bytes, error: Exception) -> Finding:
    """Shrink by the kind of the error; what takes more than one input to show stays as it is."""

    def fails_alike(shorter: bytes) -> Exception | None:
        try:
            with target.opened() as check:
                found = failure(check, shorter)
        except Exception as late:  # noqa: BLE001 - what was left behind counts as well
            found = late
        return found if type(found) is type(error) else None

    if fails_alike(data) is None:
        return Finding(data, error)
    shorter = shrunk(data, lambda candidate: fails_alike(candidate) is not None)
    return Finding(shorter, fails_alike(shorter) or error)
