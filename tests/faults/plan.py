"""What is broken when: drawn from a seed, so that a run can be repeated. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Kind", "Phase", "Planned", "plan"]

# One fault alone, then several together, in turn; between them it is calm, so that it shows what was not healed.
TOGETHER = (3, 6)
PHASE_SECONDS = (6.0, 14.0)
CALM_SECONDS = (4.0, 7.0)
QUIET_SHARE = 0.4
"""Of the calms: in these nobody publishes, so that no later message can hide that the last one is missing."""


@dataclass(frozen=True)
class Kind:
    """How long a fault lasts, in seconds, and what it breaks: two that break the same are not at it at once."""

    least: float
    most: float
    breaks: str


@dataclass(frozen=True)
class Planned:
    """One fault: when it begins after its phase has, how long it lasts, and what it draws by itself."""

    kind: str
    after: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class Phase:
    """Faults that may overlap, then a calm."""

    faults: Sequence[Planned]
    calm: float
    quiet: bool


def plan(seed: int, duration: float, kinds: Mapping[str, Kind]) -> list[Phase]:
    """Draw phases for about `duration` seconds.

    No kind is drawn again before all others were, so a run of some length has them all.
    """
    chance = random.Random(seed)  # noqa: S311 - the same run for the same seed
    deck: list[str] = []
    phases: list[Phase] = []
    spent = 0.0
    while spent < duration:
        length = chance.uniform(*PHASE_SECONDS)
        count = 1 if len(phases) % 3 == 0 else chance.randint(*TOGETHER)
        faults = []
        for kind in _draw(count, deck, kinds, chance):
            seconds = chance.uniform(kinds[kind].least, kinds[kind].most)
            after = 0.0 if count == 1 else chance.uniform(0, length / 2)
            faults.append(Planned(kind, after, seconds, chance.randrange(2**32)))
        calm = chance.uniform(*CALM_SECONDS)
        phases.append(Phase(faults, calm, quiet=chance.random() < QUIET_SHARE))
        spent += max(fault.after + fault.seconds for fault in faults) + calm
    return phases


def _draw(count: int, deck: list[str], kinds: Mapping[str, Kind], chance: random.Random) -> list[str]:
    """Take up to `count` kinds from the deck, no two of which break the same."""
    if len(deck) < len(kinds):
        more = sorted(kinds)
        chance.shuffle(more)
        deck += more
    drawn: list[str] = []
    for kind in tuple(deck):
        if len(drawn) < count and kinds[kind].breaks not in {kinds[other].breaks for other in drawn}:
            drawn.append(kind)
            deck.remove(kind)
    return drawn
