"""A simulated consortium: every hospital's node, policy, memory and ledger, in one run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from medfed.core.collector import rare_collections
from medfed.core.timings import Phase, Timings
from medfed.core.wire import Reply, Request
from medfed.data.table import SiteTable
from medfed.engine.blocks import spread
from medfed.engine.host import Consortium, Keeper, SiteHost
from medfed.engine.inprocess import InProcess
from medfed.engine.workers import Workers
from medfed.govern.entries import OpenedEntry
from medfed.govern.ledger import Ledger, LedgerFolder
from medfed.spec.policy import Policy
from medfed.version import __version__

COORDINATOR = "coordinator"
"""The coordinator's name among the parties that keep a ledger."""


@dataclass(frozen=True)
class SimulatedSite:
    """A hospital of a simulation: how its rows are loaded, its policy, and where that came from.

    policy_source: ``permissive``, or a file.
    """

    load: Callable[[], SiteTable]
    policy: Policy
    policy_source: str


class Parties(Keeper, Protocol):
    """The sites of a simulation, wherever they live; an engine that also signs and closes their ledgers."""

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """As :meth:`medfed.core.protocols.Engine.exchange`."""
        ...


@dataclass
class Simulation:
    """The parties of one run. Files stay open until :meth:`detach`. simulated: whether all of them are in one place."""

    run: str
    parties: Parties
    coordinator: Ledger
    ledgers: LedgerFolder
    policies: dict[str, str]
    timings: Timings
    simulated: bool = True

    @classmethod
    def open(cls, consortium: Consortium, policies: dict[str, str], workers: int, rows: dict[str, int]) -> Simulation:
        """Build every party of a run in its folder, or go on with those that are there.

        workers: processes for the sites; 1: this one. rows: of the sites whose number of training rows is known.
        Raises DataError where a site's rows are others than when the run began, and what
        :meth:`LedgerFolder.ledger` raises; no file is left open then.
        """
        timings = Timings()
        with ExitStack() as undo:
            undo.callback(consortium.ledgers.close)
            coordinator = consortium.ledgers.ledger(COORDINATOR)
            coordinator.append(OpenedEntry(consortium.run, consortium.digest, __version__))
            parties: Parties
            if workers == 1:
                parties = InProcess(SiteHost(consortium, [s for block in consortium.blocks for s in block], timings))
            else:
                homes = [
                    [site for block in blocks for site in block] for blocks in spread(consortium.blocks, rows, workers)
                ]
                consortium.begin_stores()
                consortium = replace(consortium, rows=consortium.rows.part(workers))
                own = partial(SiteHost, consortium, homes[0], timings) if consortium.stacked else None
                parties = Workers(partial(SiteHost, consortium, timings=Timings()), homes, timings, own)
            undo.pop_all()
        return cls(consortium.run, parties, coordinator, consortium.ledgers, policies, timings)

    def sign_heads(self, round_number: int) -> None:
        """Sign the heads of all that acted; the coordinator witnesses the sites' heads, and they the coordinator's."""
        heads = self.parties.sign_heads(round_number)
        with self.timings[Phase.LEDGER]:
            self.coordinator.witness_all(heads, self.run)
            head = self.coordinator.sign_head(round_number)
        self.parties.witness(head, COORDINATOR)

    def close(self, status: str) -> None:
        """Record how the run ended in every ledger, the coordinator's last, which witnesses all the others."""
        self.coordinator.witness_all(self.parties.close(status), self.run)
        self.coordinator.close(self.run, status)

    def spent(self) -> dict[Phase, float]:
        """The seconds spent by phase, in all processes."""
        elsewhere = self.parties.spent()
        return {phase: seconds + elsewhere.get(phase, 0.0) for phase, seconds in self.timings.seconds.items()}

    def detach(self) -> None:
        """Give all files back; the run may go on later."""
        self.parties.detach()
        self.ledgers.close()


@contextmanager
def attached(simulation: Simulation) -> Iterator[Simulation]:
    """Give the files back, and end other processes, whatever happens."""
    try:
        with rare_collections() if simulation.simulated else nullcontext():
            yield simulation
    finally:
        simulation.detach()
