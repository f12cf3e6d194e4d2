"""A plan is the same for the same seed, and leaves out nothing."""

from collections import Counter

from tests.faults.cluster_faults import CLUSTER_KINDS as KINDS
from tests.faults.plan import plan


def test_a_plan_is_repeated_from_its_seed() -> None:
    assert plan(1, 600, KINDS) == plan(1, 600, KINDS)
    assert plan(1, 600, KINDS) != plan(2, 600, KINDS)


def test_ten_minutes_have_every_kind_and_none_far_more_often_than_others() -> None:
    for seed in range(20):
        counts = Counter(fault.kind for phase in plan(seed, 600, KINDS) for fault in phase.faults)
        assert counts.keys() == KINDS.keys()
        assert max(counts.values()) <= 2 * min(counts.values()) + 3


def test_what_is_broken_together_is_not_the_same() -> None:
    for phase in plan(3, 600, KINDS):
        broken = [KINDS[fault.kind].breaks for fault in phase.faults]
        assert len(broken) == len(set(broken))


def test_faults_come_alone_and_together() -> None:
    sizes = {len(phase.faults) for phase in plan(4, 600, KINDS)}
    assert 1 in sizes
    assert max(sizes) >= 4
    assert {phase.quiet for phase in plan(4, 600, KINDS)} == {True, False}


def test_a_fault_lasts_as_long_as_its_kind_allows() -> None:
    for phase in plan(5, 600, KINDS):
        for fault in phase.faults:
            assert KINDS[fault.kind].least <= fault.seconds <= KINDS[fault.kind].most


def test_few_kinds_are_drawn_again_and_again() -> None:
    few = {kind: KINDS[kind] for kind in ("valkey killed", "malformed input")}
    counts = Counter(fault.kind for phase in plan(6, 200, few) for fault in phase.faults)
    assert counts.keys() == few.keys()
