"""From the rounds' numbers to one row for each server: medians, ratios, and what went wrong in words."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Outcome", "Row", "ratio", "summarize"]

_LOSS_WORTH_A_WORD = 0.01  # percent
_DISTURBANCE_WORTH_A_WORD = 0.15  # cores


@dataclass(frozen=True)
class Outcome:
    """One round with one server: what was measured, or why there is nothing."""

    fields: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Row:
    """One server in one scenario."""

    fields: Mapping[str, float]  # medians over the rounds
    spread: Mapping[str, tuple[float, float]]  # least and most
    remarks: Sequence[str]
    rounds: int


def summarize(outcomes: Sequence[Outcome]) -> Row:
    """Return the medians of the rounds that gave numbers, and remarks on all."""
    measured = [outcome.fields for outcome in outcomes if outcome.failure is None]
    names = list(dict.fromkeys(name for fields in measured for name in fields))
    values = {name: [fields[name] for fields in measured if name in fields] for name in names}
    medians = {name: statistics.median(several) for name, several in values.items()}
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    return Row(
        fields=medians,
        spread={name: (min(several), max(several)) for name, several in values.items()},
        remarks=[*_remarks(medians, values), *dict.fromkeys(failures)],
        rounds=len(measured),
    )


def ratio(row: Row, base: Row, key: str) -> float | None:
    """Return how many times the base's value this one is; None where one of the two has none."""
    value, divisor = row.fields.get(key), base.fields.get(key)
    return None if value is None or not divisor else value / divisor


def _remarks(medians: Mapping[str, float], values: Mapping[str, Sequence[float]]) -> list[str]:
    remarks = []
    if medians.get("lost_pct", 0) > _LOSS_WORTH_A_WORD:
        remarks.append(f"does not deliver {medians['lost_pct']:.1f} % in time")
    if (others := max(values.get("others_cores", [0]))) > _DISTURBANCE_WORTH_A_WORD:
        remarks.append(f"disturbed: other programs used {others:.1f} cores meanwhile")
    for name, words in {
        "failed_to_connect": "could not connect",
        "dropped": "were dropped",
    }.items():
        if worst := max(values.get(name, [0])):
            remarks.append(f"{worst:.0f} clients {words}")
    for name, words in {
        "disordered": "deliveries out of order or twice",
        "refused": "publishes refused",
        "unacknowledged": "publishes without an acknowledgement",
        "status_other": "answers neither 200 nor 304",
    }.items():
        if worst := max(values.get(name, [0])):
            remarks.append(f"{worst:,.0f} {words}")
    return remarks
