"""load.c from Python: builds it, and runs it once."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.machine import on_core
from bench.peers.peer import BUILD, ROOT, Protocol
from bench.scenarios import Scenario

__all__ = ["Failed", "Target", "arguments", "build", "run"]

Fields = dict[str, float]
LOAD: Final = BUILD / "load"
_DRAIN_SECONDS: Final = 2  # what is not delivered so long after the last publish is not delivered in time


class Failed(Exception):
    """A run that gave no numbers; the text says why."""


@dataclass(frozen=True)
class Target:
    """What the load goes to."""

    protocol: Protocol
    ports: Sequence[int]
    pids: Sequence[int] = ()
    path: str | None = None
    origin: str | None = None


def build(source: Path | None = None) -> Path:
    """Compile a C file, by default all of ours; return the program."""
    BUILD.mkdir(exist_ok=True)
    if source is None:
        build(ROOT / "bench" / "floor.c")
        return build(ROOT / "bench" / "load.c")
    program = BUILD / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        # A name of its own until it is whole: two builds at a time do no harm.
        unfinished = program.with_suffix(".new")
        command = ["cc", "-O2", "-o", str(unfinished), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        unfinished.replace(program)
    return program


def arguments(scenario: Scenario, target: Target, *, clients: int) -> list[str]:
    """Return load.c's arguments for a scenario."""
    options: dict[str, object] = {
        "--protocol": target.protocol,
        "--path": target.path if scenario.mode != "http" else None,
        "--origin": target.origin,
        "--clients": clients,
        "--publishers": scenario.publishers,
        "--window": scenario.window,
        "--rate": scenario.rate or None,
        "--warm": scenario.warm,
        "--secs": scenario.secs,
        "--drain": _DRAIN_SECONDS,
    }
    words: list[str] = [scenario.mode]
    words += [str(word) for name, value in options.items() if value is not None for word in (name, value)]
    words += [word for port in target.ports for word in ("--port", str(port))]
    words += [word for pid in target.pids for word in ("--pid", str(pid))]
    words += ["--if-none-match"] if scenario.if_none_match else []
    return words


def run(words: Sequence[str], *, core: int | None, seconds: float, program: Path = LOAD) -> Fields:
    """Run the generator, and return what it measured.

    Raises:
        Failed: it took longer than `seconds`, or ended without a result.

    """
    with on_core(core):
        process = subprocess.Popen(
            [str(program), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        output, complaints = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done in {seconds:.0f} s") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise Failed(
            complaints.strip().partition("\n")[0] or f"the generator ended with {process.returncode}"
        )
    fields: Fields = json.loads(output)
    return fields
