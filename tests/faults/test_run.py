"""A short run of everything, and runs of a server that breaks a promise: those must be caught."""

from pathlib import Path

import pytest

from tests.faults import broken
from tests.faults.run import Options, run


@pytest.mark.timeout(300)
async def test_a_minute_of_all_faults_breaks_no_promise(tmp_path: Path) -> None:
    outcomes = await run(tmp_path, Options(seed=7, duration=60))
    assert [outcome.site for outcome in outcomes] == ["cluster", "embedded"]
    for outcome in outcomes:
        assert outcome.violations == []
        assert sum(outcome.faults.values()) >= 5


@pytest.mark.timeout(180)  # "within two minutes", the start and the end of the run not counted
@pytest.mark.parametrize(
    ("which", "kinds", "promise"),
    [
        ("publish locally first", {"scripts forgotten"}, "G1"),
        ("no tail check", {"publish refused"}, "G2"),
        ("no nonce", {"connections killed", "network cut", "valkey killed"}, "G5"),
    ],
)
async def test_a_server_with_a_broken_promise_is_caught(
    tmp_path: Path, which: str, kinds: set[str], promise: str
) -> None:
    # Of the kinds only what the promise is for: with all of them it would only take longer.
    options = Options(1, 120, frozenset(kinds), (broken.__file__, which), stop_at=promise)
    [outcome] = await run(tmp_path, options)
    assert promise in {violation.promise for violation in outcome.violations}
