"""A whole run, on one screen."""

from __future__ import annotations

import time
from typing import Protocol

from medfed.core.timings import Phase
from medfed.engine.folder import RunFolder
from medfed.engine.outcome import Clock, Outcome, write_outcome
from medfed.engine.process import Process, RoundMetrics, RunState
from medfed.engine.simulation import Simulation


class Observer(Protocol):
    """Told of a run's progress as it happens."""

    def begun(self, process: Process, state: RunState) -> None:
        """The data are prepared, or the run is resumed; rounds follow."""
        ...

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        """A round is checkpointed."""
        ...


def run(
    process: Process, simulation: Simulation, folder: RunFolder, observer: Observer, begun: float | None = None
) -> Outcome:
    """Run to the end, from the folder's checkpoint where there is one; the outcome is in the folder too.

    Each round: train, measure, checkpoint, sign the ledgers' heads. An exception (Ctrl-C too) leaves the folder
    resumable. begun: when the work on this run began (``time.monotonic``). Raises QuorumLost, Refused, RunFolderError.
    """
    begun = time.monotonic() if begun is None else begun
    timings, first_round = simulation.timings, 0.0
    state = folder.restore()
    if state is None:
        with timings[Phase.AGGREGATE]:
            state = process.initialize()
        with timings[Phase.CHECKPOINT]:
            folder.record(state)
        simulation.sign_heads(state.round)
    observer.begun(process, state)
    while not process.done(state):
        with timings[Phase.AGGREGATE]:
            state, metrics = process.next(state)
        with timings[Phase.CHECKPOINT]:
            folder.record(state, metrics)
        simulation.sign_heads(state.round)
        first_round = first_round or time.monotonic() - begun
        observer.advanced(state, metrics)
    return write_outcome(process, state, simulation, folder, Clock(begun, first_round))
