from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core import timings
from medfed.core.timings import Phase, Timings


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(timings, "perf_counter", lambda: self.now)


def spent(found: Timings) -> dict[Phase, float]:
    return {phase: seconds for phase, seconds in found.seconds.items() if seconds}


def test_an_inner_phase_interrupts_the_outer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, found = Clock(monkeypatch), Timings()
    clock.now += 1
    with found[Phase.AGGREGATE]:
        clock.now += 2
        with found[Phase.GATE]:
            clock.now += 4
            with found[Phase.TRAIN]:
                clock.now += 8
            clock.now += 16
        clock.now += 32
    clock.now += 64
    assert spent(found) == {Phase.AGGREGATE: 34, Phase.GATE: 20, Phase.TRAIN: 8}


def test_a_phase_within_itself_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, found = Clock(monkeypatch), Timings()
    with found[Phase.DATA], found[Phase.DATA]:
        clock.now += 3
    assert spent(found) == {Phase.DATA: 3}


def test_a_phase_that_ends_in_an_error_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, found = Clock(monkeypatch), Timings()
    with found[Phase.AGGREGATE]:
        with pytest.raises(ValueError, match="no"), found[Phase.TRAIN]:
            clock.now += 5
            raise ValueError("no")
        clock.now += 7
    clock.now += 9
    assert spent(found) == {Phase.TRAIN: 5, Phase.AGGREGATE: 7}


def test_two_processes_timings_do_not_share_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, one, two = Clock(monkeypatch), Timings(), Timings()
    with one[Phase.DATA], two[Phase.TRAIN]:
        clock.now += 2
    assert (spent(one), spent(two)) == ({Phase.DATA: 2}, {Phase.TRAIN: 2})


@given(st.recursive(st.just(()), lambda inner: st.lists(st.tuples(st.sampled_from(Phase), inner), max_size=3)))
def test_all_phases_together_are_the_time_in_the_outermost(tree: list[tuple[Phase, list[object]]]) -> None:
    ticks = iter(range(10**6))

    def walk(found: Timings, branches: list[tuple[Phase, list[object]]]) -> None:
        for phase, inner in branches:
            with found[phase]:
                walk(found, inner)  # type: ignore[arg-type]

    def switches(branches: list[tuple[Phase, list[object]]]) -> int:
        return sum(2 + switches(inner) for _, inner in branches)  # type: ignore[arg-type]

    found = Timings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timings, "perf_counter", lambda: float(next(ticks)))
        with found[Phase.LEDGER]:
            walk(found, tree)
    assert sum(found.seconds.values()) == switches(tree) + 1
