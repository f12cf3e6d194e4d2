"""docs/images/bench-*.svg, by matplotlib: bars, one for each server."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import Results
from bench.summary import Row

__all__ = ["draw_all"]

_OURS: Final = "#2a6f97"
_OTHERS: Final = "#c9cdd2"
_ROOM_FOR_VALUES: Final = 1.2  # of the longest bar


@dataclass(frozen=True)
class _Panel:
    scenario: str
    key: str
    title: str
    axis: str  # with the unit
    digits: int = 0


_PLOTS: Final = {
    "bench-fanout": (
        _Panel(
            "fanout-100",
            "cpu_us_per_delivery",
            "100 messages a second to 1000 clients",
            "CPU per delivery (us)",
            1,
        ),
        _Panel(
            "fanout-2000",
            "deliveries_per_s",
            "2000 messages a second to 1000 clients",
            "deliveries per second",
        ),
    ),
    "bench-clients": (
        _Panel("idle-10000", "rss_kb_per_client", "10,000 idle clients", "memory per client (KB)", 1),
        _Panel("storm", "cpu_us_per_connect", "connecting", "CPU per connect (us)"),
    ),
    "bench-messages": (
        _Panel("publish", "acks_per_s", "stored and acknowledged, 10 publishers", "publishes per second"),
        _Panel("history", "responses_per_s", "GET /messages, 1000 messages", "answers per second"),
    ),
}


def draw_all(results: Results, titles: Mapping[str, str], directory: Path) -> None:
    """Write every plot, over what is there."""
    directory.mkdir(parents=True, exist_ok=True)
    # Text stays text, and the same numbers give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ditochat", "font.size": 9})
    for name, panels in _PLOTS.items():
        figure = Figure(figsize=(9, 2.4), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
            _draw(axes, panel, results.get(panel.scenario, {}), titles)
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _draw(axes: Axes, panel: _Panel, rows: Mapping[str, Row], titles: Mapping[str, str]) -> None:
    names = [name for name in rows if panel.key in rows[name].fields][::-1]
    values = [rows[name].fields[panel.key] for name in names]
    colours = [_OURS if name.startswith("ditochat") else _OTHERS for name in names]
    bars = axes.barh([titles[name].replace("`", "") for name in names], values, color=colours, height=0.65)
    axes.bar_label(bars, [f"{value:,.{panel.digits}f}" for value in values], padding=3)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.axis)
    axes.set_xlim(0, _ROOM_FOR_VALUES * max(values, default=1))
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:,g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
