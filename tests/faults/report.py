"""What runs came to, as lines for a terminal, as `summary.json`, and as the tables of docs/reliability.md. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from tests.faults.checker import Violation
from tests.faults.record import Answered, Event, Lost, Received, Session

__all__ = ["Summary", "lines", "summarize", "tables"]

_SHOWN = 20


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A site in a run, in numbers."""

    site: str
    seed: int
    seconds: float
    readers: int
    acknowledged: int
    repeated: int
    """Acknowledgements that said `duplicate`: a message was sent again, and stored once."""
    refused: dict[str, int]
    """Publishes without an id, by what the publisher was told or saw; each was sent again."""
    deliveries: int
    recovered: int
    """Times that a reader came back and was sent what it had missed."""
    losses: int
    """Faults that took, or may have taken, acknowledged messages from Redis."""
    faults: dict[str, int]
    skipped: dict[str, int]
    violations: list[str]


def summarize(
    site: str,
    seed: int,
    *,
    readers: int,
    events: Sequence[Event],
    violations: Sequence[Violation],
    faults: Counter[str],
    skipped: Counter[str],
) -> Summary:
    """Count what is in a record."""
    answers = [event for event in events if isinstance(event, Answered)]
    sessions = [event for event in events if isinstance(event, Session)]
    return Summary(
        site=site,
        seed=seed,
        seconds=round(events[-1].at - events[0].at),
        readers=readers,
        acknowledged=len({answer.nonce for answer in answers if answer.id is not None}),
        repeated=sum(answer.duplicate for answer in answers),
        refused=dict(Counter(answer.code for answer in answers if answer.code is not None)),
        deliveries=sum(isinstance(event, Received) for event in events),
        recovered=sum(bool(session.recovered) for session in sessions),
        losses=sum(isinstance(event, Lost) for event in events),
        faults=dict(sorted(faults.items())),
        skipped=dict(skipped),
        violations=[f"{one.at:.3f} {one.promise} {one.who}: {one.what}" for one in violations],
    )


def lines(summary: Summary) -> list[str]:
    """Say what came of a site."""
    refused = ", ".join(f"{count} {code}" for code, count in sorted(summary.refused.items()))
    said = [
        (
            f"{summary.site}: {summary.seconds:.0f} s, {summary.readers} readers, "
            f"{sum(summary.faults.values())} faults, {len(summary.violations)} violations"
        ),
        (
            f"  {summary.acknowledged} messages acknowledged, {summary.deliveries} deliveries, "
            f"{summary.recovered} recovered readers, {summary.repeated} repeats; refused: {refused or 'none'}"
        ),
        *(f"  {count:4} {kind}" for kind, count in summary.faults.items()),
        *(
            f"  {count:4} {kind}: not injected, the like was under way or cannot be had here"
            for kind, count in summary.skipped.items()
        ),
    ]
    return [*said, *(f"  {violation}" for violation in summary.violations[:_SHOWN])]


def tables(summaries: Iterable[Summary]) -> str:
    """Return Markdown: a row for each run, then a row for each kind of fault."""
    runs = sorted(summaries, key=lambda one: (one.site, one.seed))
    total = Counter[tuple[str, str]]()
    rows = []
    for one in runs:
        total.update({(one.site, kind): count for kind, count in one.faults.items()})
        numbers = (
            f"{one.seed}",
            f"{one.seconds:.0f}",
            f"{one.acknowledged:,}",
            f"{one.deliveries:,}",
            f"{one.recovered:,}",
            f"{one.repeated:,}",
            f"{sum(one.refused.values()):,}",
            f"{sum(one.faults.values())}",
            f"{one.losses}",
            f"{len(one.violations)}",
        )
        rows.append(f"| {one.site} | {' | '.join(numbers)} |")
    head = (
        (
            "| site | seed | seconds | messages acknowledged | deliveries | readers recovered | repeats "
            "| sent again | faults | of these may lose | violations |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    )
    kinds = sorted({kind for _, kind in total})
    by_kind = [f"| {kind} | {total['cluster', kind]} | {total['embedded', kind]} |" for kind in kinds]
    return "\n".join(
        (*head, *rows, "", "| fault | cluster | embedded |", "| --- | --- | --- |", *by_kind, "")
    )
