import re
from pathlib import Path

import pytest

from bench.report import PLOTS, Report, render
from bench.scenarios import SCENARIOS, Column, Scenario
from bench.summary import Outcome, summarize

REPORT = Report(
    date="2026-01-02",
    command="make bench",
    minutes=11.4,
    rounds=3,
    quick=False,
    machine={"processor": "one of 2 cores"},
    versions={"Python": "3.11"},
    pinning="The server is pinned to core 0.",
    titles={"floor": "the floor: C", "ditochat": "ditochat", "stock": "stock"},
)
SCENARIO = Scenario(
    name="fanout",
    title="Fan-out",
    what="Everybody gets everything.",
    mode="fanout",
    peers=("floor", "ditochat", "stock"),
    columns=(Column("cpu", "CPU, us", 2), Column("rate", "deliveries/s", 0)),
    clients=1000,
    secs=1,
    ratio_to=("floor", "go"),
)
ROWS = {
    "floor": summarize([Outcome({"cpu": 4.0, "rate": 100000.0})] * 3),
    "ditochat": summarize([Outcome({"cpu": 5.0, "rate": 100000.0})] * 3),
    "stock": summarize([Outcome(failure="not done in 9 s")] * 3),
}


def page(report: Report = REPORT) -> str:
    return render(report, [SCENARIO], {"fanout": ROWS})


def test_a_table_has_the_values_and_their_ratios_to_servers_that_were_measured() -> None:
    assert (
        "|  | CPU, us | deliveries/s | CPU: times the floor |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| the floor: C | 4.00 | 100,000 | 1.00 |\n"
        "| ditochat | 5.00 | 100,000 | 1.25 |\n"
        "| stock | - | - | - |\n"
        "\n"
        "- stock: not done in 9 s\n"
    ) in page()


@pytest.mark.parametrize(
    "fact",
    ["2026-01-02", "`make bench`", "one of 2 cores", "Python: 3.11", "core 0", "there were 3"],
)
def test_the_page_says_where_and_how_it_was_measured(fact: str) -> None:
    assert fact in page()


def test_the_page_shows_the_plots_unless_there_are_none() -> None:
    assert set(re.findall(r"\(images/(.+)\.svg\)", page())) == set(PLOTS)
    assert "images/" not in render(REPORT, [SCENARIO], {"fanout": ROWS}, plots=False)


def test_fewer_clients_and_rounds_than_meant_are_said() -> None:
    row = summarize([Outcome({"cpu": 1.0, "clients": 500.0}), Outcome(failure="hung")])
    text = render(REPORT, [SCENARIO], {"fanout": {"ditochat": row}})
    assert "- ditochat: hung; only 1 rounds gave numbers; 500 clients instead of 1,000" in text


def test_a_quick_try_says_so() -> None:
    quick = Report(**{**vars(REPORT), "quick": True})
    assert "quick" not in page()
    assert "its numbers mean little" in page(quick)


def test_every_scenario_can_be_rendered_without_any_number() -> None:
    results = {scenario.name: {"ditochat": ROWS["stock"]} for scenario in SCENARIOS}
    text = render(REPORT, SCENARIOS, results)
    assert all(f"## {scenario.title}\n" in text for scenario in SCENARIOS)


def test_the_plots_are_drawn_with_gaps_in_the_numbers(tmp_path: Path) -> None:
    plots = pytest.importorskip(
        "bench.plots", reason="matplotlib is for make bench alone", exc_type=ImportError
    )
    plots.draw_all({"fanout-100": {"floor": ROWS["stock"]}}, REPORT.titles, tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(PLOTS)
