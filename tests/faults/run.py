"""One run: a cluster, its clients, faults as planned, then calm; and what the checker says of the record."""

import asyncio
import resource
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.checker import Violation, check
from tests.faults.cluster import HISTORY_LIMIT, LAUNCHER, Cluster, now
from tests.faults.faults import KINDS, Faults
from tests.faults.http_client import epoch_of
from tests.faults.plan import Kind, Phase, Planned, plan
from tests.faults.record import Event, History, Message, Odd, Recorder, write
from tests.faults.workload import Workload
from tests.harness.waiting import eventually

__all__ = ["Options", "Outcome", "run"]

CONNECT_WITHIN = 60.0
SETTLE_WITHIN = 30.0
# The SPEC says 2 s; the rest is for a machine that runs clients, instances and faults on the same two cores.
ANSWER_SECONDS = 3.4
LIVE_SECONDS = 3.5


@dataclass(frozen=True)
class Options:
    """What to do in a run.

    Args:
        seed: of the plan, and of all that the clients choose.
        duration: in seconds, the start and the end not counted.
        kinds: the faults to choose from.
        launcher: how Python is to run an instance, before the instance's own arguments.
        stop_early: judge the record after each phase, and end the run at the first violation.
    """

    seed: int
    duration: float
    kinds: Mapping[str, Kind] = field(default_factory=lambda: KINDS)
    launcher: Sequence[str] = LAUNCHER
    stop_early: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    seed: int
    seconds: float
    clients: int
    violations: Sequence[Violation]
    faults: Counter[str]
    skipped: Counter[str]
    events: Sequence[Event]


async def run(directory: Path, options: Options) -> Outcome:
    """Break a cluster. `directory` is for its data, its logs and the record: `record.jsonl`."""
    _raise_file_limit()
    recorder = Recorder()
    begun = now()
    try:
        faults, clients = await _run(directory, recorder, options)
    finally:
        events = recorder.events()
        write(directory / "record.jsonl", events)
    violations = _judge(events)
    return Outcome(options.seed, now() - begun, clients, violations, faults.counts, faults.skipped, events)


async def _run(directory: Path, recorder: Recorder, options: Options) -> tuple[Faults, int]:
    async with Cluster(directory, recorder, options.launcher) as cluster:
        for instance in cluster.instances.values():
            await instance.publish("first", nonce=f"first-{instance.name}")
        await cluster.measure(fresh=True)
        ports = {name: instance.port for name, instance in cluster.instances.items()}
        async with Workload(recorder, cluster.urls, ports, options.seed) as workload:
            await _everybody_is_there(recorder, workload)
            workload.begin_drops()
            faults = Faults(cluster, workload)
            for phase in plan(options.seed, options.duration, options.kinds):
                await _inject(phase, faults, workload)
                if options.stop_early and _judge(recorder.events(), final=False):
                    break
            await _settle(cluster, workload, recorder)
            for error in workload.failed():
                raise error
            await workload.leave()
        await _nobody_is_there(cluster)
        await cluster.measure(fresh=False)
        await cluster.stop_instances()
        cluster.read_logs()
        return faults, workload.clients


def _judge(events: Sequence[Event], *, final: bool = True) -> list[Violation]:
    return check(
        events,
        history_limit=HISTORY_LIMIT,
        answer_seconds=ANSWER_SECONDS,
        live_seconds=LIVE_SECONDS,
        final=final,
    )


async def _inject(phase: Phase, faults: Faults, workload: Workload) -> None:
    async def later(planned: Planned) -> None:
        await asyncio.sleep(planned.after)
        await faults.inject(planned)

    async with asyncio.TaskGroup() as tasks:
        for planned in phase.faults:
            tasks.create_task(later(planned))
    workload.set_quiet(quiet=phase.quiet)
    await asyncio.sleep(phase.calm)
    workload.set_quiet(quiet=False)


async def _everybody_is_there(recorder: Recorder, workload: Workload) -> None:
    async def connected() -> bool:
        return sum(reader.connected for reader in recorder.readers.values()) == workload.clients

    await eventually(connected, within=CONNECT_WITHIN, otherwise=lambda: f"connected: {recorder.readers}")


async def _settle(cluster: Cluster, workload: Workload, recorder: Recorder) -> None:
    """Wait until nothing is under way, and take down what each instance has."""
    workload.set_quiet(quiet=True)
    last = (0, "")

    async def even() -> bool:
        nonlocal last
        answer = await cluster.instances["one"].readiness()
        last = (answer.get("last_id", 0), answer.get("epoch", ""))
        return all(
            reader.connected and (reader.newest, reader.epoch) == last for reader in recorder.readers.values()
        )

    try:
        await asyncio.sleep(2)  # what was sent before is stored by now
        await eventually(even, within=SETTLE_WITHIN, otherwise=lambda: "")
    except TimeoutError:
        pass  # the checker says who is behind
    for name, instance in cluster.instances.items():
        async with instance.http() as http, http.get("/messages") as answer:
            if answer.status != 200:
                recorder.add(Odd(at=now(), who=name, what=f"has no history at the end: {answer.status}"))
                continue
            messages = [Message(one["id"], one.get("nonce", ""), one["ts"]) for one in await answer.json()]
            epoch = epoch_of(answer.headers["ETag"])
        recorder.add(History(at=now(), instance=name, messages=messages, epoch=epoch))


async def _nobody_is_there(cluster: Cluster) -> None:
    async def empty() -> bool:
        for instance in cluster.instances.values():
            metrics = await instance.metrics()
            if any(value for name, value in metrics.items() if name.startswith("ditochat_connections{")):
                return False
        return True

    await eventually(empty, within=SETTLE_WITHIN, otherwise=lambda: "some clients have not gone")


def _raise_file_limit() -> None:
    """A thousand slow clients take a file each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
