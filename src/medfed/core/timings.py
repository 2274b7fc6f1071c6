"""Where the time of a run goes, phase by phase."""

from __future__ import annotations

import enum
from time import perf_counter


class Phase(enum.StrEnum):
    """What a moment of a run was spent on."""

    DATA = "data"
    """Loading, encoding and describing rows."""
    TRAIN = "train"
    AGGREGATE = "aggregate"
    """Requests, totals and new models at the coordinator."""
    WAIT = "wait"
    """The coordinator's wait for sites in other processes, whose own phases are counted beside it."""
    GATE = "gate"
    """What sites admit and release, with its digests."""
    LEDGER = "ledger"
    EVALUATE = "evaluate"
    CHECKPOINT = "checkpoint"
    """The coordinator's state and metrics, and the sites' memory."""


class Timings:
    """Seconds by phase in one process; a phase that begins within another interrupts it.

    ``with timings[Phase.GATE]: …`` counts the time spent there and in no inner phase.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(Phase, 0.0)
        self._spans = {phase: _Span(self, phase) for phase in Phase}
        self._running: list[Phase] = []
        self._since = 0.0

    def __getitem__(self, phase: Phase) -> _Span:
        return self._spans[phase]

    def switch(self) -> None:
        """Count the time since the last switch for the phase that ran."""
        now = perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


class _Span:
    """The context in which one phase runs; it may be entered within itself."""

    def __init__(self, timings: Timings, phase: Phase) -> None:
        self._timings = timings
        self._phase = phase

    def __enter__(self) -> None:
        self._timings.switch()
        self._timings._running.append(self._phase)

    def __exit__(self, *_: object) -> None:
        self._timings.switch()
        self._timings._running.pop()
