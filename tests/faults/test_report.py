"""What is told of a run is what is in its record."""

from collections import Counter

from tests.faults.checker import Violation
from tests.faults.report import Summary, lines, summarize, tables
from tests.faults.test_checker import good


def summary() -> Summary:
    return summarize(
        "cluster",
        7,
        readers=3,
        events=good().events,
        violations=[Violation("G2", 1.5, "a", "got 7 after 5")],
        faults=Counter({"valkey killed": 2, "instance killed": 1}),
        skipped=Counter({"network cut": 1}),
    )


def test_a_record_is_counted() -> None:
    counted = summary()
    assert (counted.acknowledged, counted.repeated, counted.refused) == (5, 0, {})
    assert (counted.deliveries, counted.recovered, counted.losses) == (15, 1, 0)
    assert counted.violations == ["1.500 G2 a: got 7 after 5"]


def test_a_terminal_is_told_what_matters() -> None:
    text = "\n".join(lines(summary()))
    assert "3 readers, 3 faults, 1 violations" in text
    assert "   2 valkey killed" in text
    assert "   1 network cut: not injected" in text
    assert "G2 a: got 7 after 5" in text


def test_the_tables_have_each_run_and_each_kind() -> None:
    text = tables([summary(), summary()])
    assert text.count("| cluster | 7 |") == 2
    assert "| valkey killed | 4 | 0 |" in text
