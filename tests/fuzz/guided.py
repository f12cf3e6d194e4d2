"""`python -m tests.fuzz.guided`: one target, guided by what its inputs cover; needs atheris (`make fuzz-guided`).

Where the other way draws each input anew, this one keeps those that reach a new branch of the server, and goes on
from them. It is slower an input, and a crash ends it: libFuzzer then prints the input and leaves it in a file.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import atheris

# Before anything imports the server: its modules are instrumented as they are loaded.
with atheris.instrument_imports(include=["ditochat"]):
    from tests.fuzz.targets import TARGETS

SEEDS = 300


def main(argv: Sequence[str] | None = None) -> None:
    """Run until the inputs are used up, or one breaks a promise; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__.split("\n")[0])
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    target = TARGETS[arguments.target]
    draw = target.draws(Random(arguments.seed))  # noqa: S311 - to be drawn again, not to be secret
    with tempfile.TemporaryDirectory() as corpus, target.opened() as check:
        for number in range(SEEDS):
            (Path(corpus) / str(number)).write_bytes(draw())
        options = [f"-runs={arguments.inputs}", f"-seed={arguments.seed}", "-max_len=4096", corpus]
        atheris.Setup([sys.argv[0], *options], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
