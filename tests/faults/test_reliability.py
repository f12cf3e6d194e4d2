"""docs/reliability.md names the faults that there are, and its result is that of whole runs."""

import re
from pathlib import Path

from tests.faults.run import KINDS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if set(row) != {"---"}]


def test_each_fault_is_explained_and_no_other() -> None:
    _, *faults = rows(section("What is broken"))
    assert [name for name, _ in faults] == [name for name, _ in dict(faults).items()]
    assert {name for name, _ in faults} == KINDS


def test_the_result_is_of_ten_seeds_with_every_fault_and_no_violation() -> None:
    result = rows(section("Result"))
    runs = [row for row in result if row[0] in ("cluster", "embedded")]
    for site in ("cluster", "embedded"):
        of_site = [row for row in runs if row[0] == site]
        assert len({row[1] for row in of_site}) == 10
        assert all(float(row[2]) >= 600 for row in of_site)
    assert {row[-1] for row in runs} == {"0"}
    counts = {row[0]: int(row[1]) + int(row[2]) for row in result if row[0] in KINDS}
    assert counts.keys() == KINDS
    assert all(counts.values())
