"""Many deadlines, one timer: a hashed timing wheel.

Pure: the clock is the caller's. Each item has at most one deadline at a time; it is met up to one granule
late. (G. Varghese, T. Lauck: Hashed and hierarchical timing wheels, 1987.)
"""

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["DeadlineWheel"]

T = TypeVar("T", bound=Hashable)


class DeadlineWheel(Generic[T]):
    """Deadlines in seconds of a monotonic clock, kept in slots of ``granule`` seconds.

    Setting, moving and dropping one costs the same however many there are; there is no heap to leave stale
    entries in.
    """

    def __init__(self, granule: float) -> None:
        if granule <= 0:
            raise ValueError(f"expected a granule above 0, got {granule}")
        self.granule = granule
        self._slots: dict[int, set[T]] = {}
        self._slot_of: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def set(self, item: T, due: float) -> None:
        """Give an item a deadline, in place of the one that it had."""
        self.drop(item)
        slot = math.ceil(due / self.granule)
        self._slot_of[item] = slot
        self._slots.setdefault(slot, set()).add(item)

    def drop(self, item: T) -> None:
        """Take an item's deadline away; nothing happens where it has none."""
        slot = self._slot_of.pop(item, None)
        if slot is not None:
            items = self._slots[slot]
            items.discard(item)
            if not items:
                del self._slots[slot]

    def expire(self, now: float) -> list[T]:
        """Take out, and return, all items whose deadline has passed."""
        # Not by dividing now: next_due() would, by a rounding, be too early then.
        expired: list[T] = []
        for slot in sorted(slot for slot in self._slots if slot * self.granule <= now):
            items = self._slots.pop(slot)
            for item in items:
                del self._slot_of[item]
            expired += items
        return expired

    def next_due(self) -> float | None:
        """Return when :meth:`expire` next has something to return."""
        return min(self._slots) * self.granule if self._slots else None
