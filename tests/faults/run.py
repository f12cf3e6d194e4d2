"""One run: sites with their clients, faults as planned, then calm; and what the checker says of the record.

Two sites are broken at the same time: a cluster of three instances, and one instance that brings its own Valkey.
"""

import asyncio
import itertools
import resource
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.faults.checker import Violation, check
from tests.faults.cluster import Cluster
from tests.faults.cluster_faults import CLUSTER_KINDS, ClusterFaults
from tests.faults.embedded import Embedded
from tests.faults.embedded_faults import EMBEDDED_KINDS, EmbeddedFaults
from tests.faults.http_client import epoch_of
from tests.faults.plan import Kind, Phase, Planned, plan
from tests.faults.record import Event, Fault, History, Message, Odd, Over, Recorder, write
from tests.faults.site import HISTORY_LIMIT, LAUNCHER, Site, now
from tests.faults.site_faults import SiteFaults
from tests.faults.workload import Crowd, Workload
from tests.harness.waiting import eventually

__all__ = ["KINDS", "Options", "Outcome", "judge", "run"]

KINDS: Final = frozenset({*CLUSTER_KINDS, *EMBEDDED_KINDS})
CONNECT_WITHIN: Final = 60.0
SETTLE_WITHIN: Final = 30.0
# What was handed in last is stored after so long, whatever the answer was.
LAST_ANSWERS_SECONDS: Final = 2.5
# The SPEC says 2 s; the rest is for a machine that runs clients, instances and faults on the same two cores.
ANSWER_SECONDS: Final = 3.4
LIVE_SECONDS: Final = 3.5
LOOK_SECONDS: Final = 0.1
STALL_SECONDS: Final = 0.4


@dataclass(frozen=True)
class _Setup:
    """How a site is built, who uses it, and what is broken there."""

    site: Callable[[Path, Recorder, Sequence[str]], Site]
    faults: Callable[[Any, Workload], SiteFaults[Any]]
    kinds: Mapping[str, Kind]
    crowd: Crowd


_SETUPS: Final = {
    "cluster": _Setup(Cluster, ClusterFaults, CLUSTER_KINDS, Crowd()),
    "embedded": _Setup(Embedded, EmbeddedFaults, EMBEDDED_KINDS, Crowd(18, 4, 9, 3, 2, 2, 1)),
}


@dataclass(frozen=True)
class Options:
    """What to do in a run.

    Args:
        seed: of the plan, and of all that the clients choose.
        duration: in seconds, the start and the end not counted.
        kinds: the faults to choose from; a site that has none of them is left out.
        launcher: how Python is to run an instance, before the instance's own arguments.
        stop_at: end the run as soon as the record shows that this promise was broken.
    """

    seed: int
    duration: float
    kinds: frozenset[str] = KINDS
    launcher: Sequence[str] = LAUNCHER
    stop_at: str | None = None


@dataclass
class Outcome:
    """What became of a site in a run."""

    site: str
    readers: int
    violations: Sequence[Violation] = ()
    events: Sequence[Event] = ()
    faults: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


async def run(directory: Path, options: Options) -> list[Outcome]:
    """Break all sites; `directory` is for data, logs and the records: `<site>/record.jsonl`."""
    _raise_file_limit()
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_run_site(name, setup, directory / name, options))
            for name, setup in _SETUPS.items()
            if setup.kinds.keys() & options.kinds
        ]
    return [task.result() for task in running]


def judge(events: Sequence[Event], *, final: bool = True) -> list[Violation]:
    """Return what was broken in a run, or in its beginning."""
    return check(
        events,
        history_limit=HISTORY_LIMIT,
        answer_seconds=ANSWER_SECONDS,
        live_seconds=LIVE_SECONDS,
        final=final,
    )


async def _run_site(name: str, setup: _Setup, directory: Path, options: Options) -> Outcome:
    outcome = Outcome(name, setup.crowd.readers)
    recorder = Recorder()
    try:
        async with setup.site(directory, recorder, options.launcher) as site:
            for instance in site.instances.values():
                await instance.publish("first", nonce=f"first-{instance.name}")
            await site.measure(fresh=True)
            async with Workload(site, setup.crowd, options.seed) as workload:
                await _everybody_is_there(recorder, setup.crowd)
                faults = setup.faults(site, workload)
                outcome.faults, outcome.skipped = faults.counts, faults.skipped
                async with _stalls_recorded(site):
                    await _break(setup, faults, workload, options)
                    await _settle(site, workload)
                for error in workload.failed():
                    raise error
                await workload.leave()
            await _nobody_is_there(site)
            await site.measure(fresh=False)
            await site.stop_instances()
            site.read_logs()
    finally:
        outcome.events = recorder.events()
        write(directory / "record.jsonl", outcome.events)
    outcome.violations = judge(outcome.events)
    return outcome


@asynccontextmanager
async def _stalls_recorded(site: Site) -> AsyncIterator[None]:
    """Where the harness itself stands still, what its clients see is late through no fault of an instance's."""

    async def watch() -> None:
        for number in itertools.count(1):
            begun = now()
            await asyncio.sleep(LOOK_SECONDS)
            if now() - begun > LOOK_SECONDS + STALL_SECONDS:
                everybody = list(site.instances)
                fault = Fault(at=begun, number=-number, kind="the harness stood still", halted=everybody)
                site.recorder.add(fault)
                site.recorder.add(Over(at=now(), number=-number))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def _break(setup: _Setup, faults: SiteFaults[Any], workload: Workload, options: Options) -> None:
    kinds = {name: kind for name, kind in setup.kinds.items() if name in options.kinds}
    workload.begin_drops()
    for phase in plan(options.seed, options.duration, kinds):
        await _break_once(phase, faults, workload)
        if options.stop_at is not None:
            found = judge(faults.site.recorder.events(), final=False)
            if options.stop_at in {violation.promise for violation in found}:
                return


async def _break_once(phase: Phase, faults: SiteFaults[Any], workload: Workload) -> None:
    async def later(planned: Planned) -> None:
        await asyncio.sleep(planned.after)
        await faults.inject(planned)

    async with asyncio.TaskGroup() as tasks:
        for planned in phase.faults:
            tasks.create_task(later(planned))
    workload.set_quiet(quiet=phase.quiet)
    await asyncio.sleep(phase.calm)
    workload.set_quiet(quiet=False)


async def _everybody_is_there(recorder: Recorder, crowd: Crowd) -> None:
    async def connected() -> bool:
        return sum(reader.connected for reader in recorder.readers.values()) == crowd.readers

    await eventually(connected, within=CONNECT_WITHIN, otherwise=lambda: f"connected: {recorder.readers}")


async def _settle(site: Site, workload: Workload) -> None:
    """Wait until nothing is under way, and take down what each instance has."""
    workload.set_quiet(quiet=True)
    workload.end_drops()
    recorder = site.recorder
    first, *_ = site.instances.values()

    async def even() -> bool:
        answer = await first.readiness()
        place = (answer.get("last_id", 0), answer.get("epoch", ""))
        return all(
            reader.connected and (reader.newest, reader.epoch) == place
            for reader in recorder.readers.values()
        )

    try:
        await asyncio.sleep(LAST_ANSWERS_SECONDS)
        await eventually(even, within=SETTLE_WITHIN, otherwise=lambda: "")
    except TimeoutError:
        pass  # the checker says who is behind
    for name, instance in site.instances.items():
        async with instance.http() as http, http.get("/messages") as answer:
            if answer.status != 200:
                recorder.add(Odd(at=now(), who=name, what=f"has no history at the end: {answer.status}"))
                continue
            messages = [Message(one["id"], one.get("nonce", ""), one["ts"]) for one in await answer.json()]
            epoch = epoch_of(answer.headers["ETag"])
        recorder.add(History(at=now(), instance=name, messages=messages, epoch=epoch))


async def _nobody_is_there(site: Site) -> None:
    async def empty() -> bool:
        for instance in site.instances.values():
            metrics = await instance.metrics()
            if any(value for name, value in metrics.items() if name.startswith("ditochat_connections{")):
                return False
        return True

    await eventually(empty, within=SETTLE_WITHIN, otherwise=lambda: "some clients have not gone")


def _raise_file_limit() -> None:
    """A thousand slow clients take a file each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
