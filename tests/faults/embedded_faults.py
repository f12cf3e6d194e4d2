"""What can be broken about an instance that brings its own Valkey."""

import asyncio
import random
import signal
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from tests.faults.embedded import Embedded
from tests.faults.plan import Kind, Planned
from tests.faults.site_faults import SITE_KINDS, Busy, Injection, SiteFaults

__all__ = ["EMBEDDED_KINDS", "EmbeddedFaults"]

_OF_THE_INSTANCE: Final = {kind for kind in SITE_KINDS if kind.startswith("instance ")}
EMBEDDED_KINDS: Final[Mapping[str, Kind]] = {
    # There is one instance, and its Valkey with it: what breaks either comes one at a time.
    **{
        name: replace(kind, breaks="the instance") if name in _OF_THE_INSTANCE else kind
        for name, kind in SITE_KINDS.items()
    },
    "embedded valkey killed": Kind(0.0, 3.0, "the instance"),
    "embedded valkey stopped": Kind(1.0, 20.0, "the instance"),
    "embedded valkey's disk full": Kind(2.0, 10.0, "the instance"),
}
"""All faults, by name; the methods below say what each is."""


class EmbeddedFaults(SiteFaults[Embedded]):
    """Breaks the Valkey of an instance; the instance has to mend it by itself."""

    def injections(self) -> dict[str, Injection]:
        """Return what to do for each kind."""
        return super().injections() | {
            "embedded valkey killed": self._killed,
            "embedded valkey stopped": self._stopped,
            "embedded valkey's disk full": self._disk_full,
        }

    async def _killed(self, planned: Planned, chance: random.Random) -> None:
        """Again and again, as after a crash that comes back."""
        loop = asyncio.get_running_loop()
        async with self._undisturbed(), self.broken(planned, away=self.everybody):
            end = loop.time() + planned.seconds
            while True:
                self.site.signal_valkey(signal.SIGKILL)
                if loop.time() >= end:
                    break
                await asyncio.sleep(chance.random())
            await self.store_is_back()

    async def _stopped(self, planned: Planned, _chance: random.Random) -> None:
        async with self._undisturbed(), self.broken(planned, away=self.everybody):
            self.site.signal_valkey(signal.SIGSTOP)
            await asyncio.sleep(planned.seconds)
            self.site.signal_valkey(signal.SIGCONT)
            await self.store_is_back()

    async def _disk_full(self, planned: Planned, _chance: random.Random) -> None:
        """The Valkey ends at the first write that does not fit, and is started until it does."""
        if not self.site.disk.available:
            raise Busy
        async with self._undisturbed(), self.broken(planned, away=self.everybody):
            try:
                await self.site.disk.fill()
                await asyncio.sleep(planned.seconds)
            finally:
                self.site.disk.free()
            await self.store_is_back()

    def _undisturbed(self) -> AbstractAsyncContextManager[None]:
        """Have the instance to oneself: it cannot start on a full disk, and ends a Valkey that stands still."""
        return self.taking("valkey", *(f"instance {name}" for name in self.site.instances))
