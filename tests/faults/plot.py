"""A run as a picture: what was delivered, how late, and what was broken meanwhile."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.faults.record import Event, Fault, Lost, Over, Received, Reset, Session

__all__ = ["draw"]

_OURS: Final = "#2a6f97"
_PALE: Final = "#9cc3d9"
_BROKEN: Final = "#c1553b"
_LOST: Final = "#7a1f0f"
_MEDIAN, _TAIL = 0.5, 0.99


def draw(events: Sequence[Event], path: Path) -> None:
    """Write an SVG of one site's record, the start and the end included."""
    mpl.rcParams["svg.hashsalt"] = "ditochat"  # the same picture from the same record
    begin, end = events[0].at, events[-1].at
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    rate, delay, faults = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1, 2.4))
    _draw_deliveries(rate, delay, events, begin)
    _draw_faults(faults, events, begin, end)
    faults.set_xlim(0, end - begin)
    faults.set_xlabel("seconds")
    for axes in (rate, delay, faults):
        for at in (event.at - begin for event in events if isinstance(event, Lost)):
            axes.axvline(at, color=_LOST, linewidth=0.8, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_deliveries(rate: Axes, delay: Axes, events: Iterable[Event], begin: float) -> None:
    sessions: dict[str, Session] = {}
    epochs: dict[str, str] = {}
    first: dict[tuple[str, int], float] = {}
    deliveries: Counter[int] = Counter()
    delays: dict[int, list[float]] = defaultdict(list)
    for event in events:
        if isinstance(event, (Session, Reset)):
            epochs[event.reader] = event.epoch
        if isinstance(event, Session):
            sessions[event.reader] = event
        elif isinstance(event, Received):
            second = int(event.at - begin)
            deliveries[second] += 1
            session = sessions[event.reader]
            seen = first.setdefault((epochs[event.reader], event.id), event.at)
            if not session.slow:
                delays[second].append(event.at - max(seen, session.at))
    seconds = range(max(deliveries) + 1)
    rate.fill_between(seconds, [deliveries[second] for second in seconds], color=_OURS, linewidth=0)
    rate.set_ylabel("deliveries\nper second")
    for share, color, name in ((_TAIL, _PALE, "99 %"), (_MEDIAN, _OURS, "median")):
        values = [_share(delays[second], share) for second in seconds]
        delay.plot(seconds, values, color=color, linewidth=1, label=name)
    delay.set_yscale("log")
    delay.set_ylabel("seconds behind\nthe first reader")
    delay.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    delay.set_title("of readers that do not pause, from when they were connected", fontsize=10, loc="left")


def _share(values: Sequence[float], share: float) -> float:
    if not values:
        return float("nan")
    return max(sorted(values)[int(share * (len(values) - 1))], 1e-5)


def _draw_faults(axes: Axes, events: Sequence[Event], begin: float, end: float) -> None:
    overs = {event.number: event.at for event in events if isinstance(event, Over)}
    faults = [event for event in events if isinstance(event, Fault)]
    kinds = sorted({fault.kind for fault in faults}, reverse=True)
    for fault in faults:
        over = overs.get(fault.number, end)
        width = max(over - fault.at, (end - begin) / 400)  # what is over at once is to be seen, too
        axes.barh(kinds.index(fault.kind), width, left=fault.at - begin, height=0.7, color=_BROKEN)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_title(
        "what was broken; dotted: what may have taken messages from Redis", fontsize=10, loc="left"
    )
