"""A simulated consortium: every hospital's node, policy, memory and ledger, in one process and one run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from medfed.core.wire import Reply, Request
from medfed.data.table import SiteTable
from medfed.engine.cohort import check_cohort
from medfed.engine.memory import SiteMemory
from medfed.engine.site import SiteNode
from medfed.govern.entries import OpenedEntry, PolicyEntry
from medfed.govern.keys import SigningKey
from medfed.govern.ledger import Ledger
from medfed.models.catalogue import NetworkCache
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec
from medfed.version import __version__

COORDINATOR = "coordinator"
"""The coordinator's name among the parties that keep a ledger."""


@dataclass(frozen=True)
class SimulatedSite:
    """A hospital of a simulation: its rows, its policy, and where that came from (``permissive``, or a file)."""

    table: SiteTable
    policy: Policy
    policy_source: str


@dataclass
class Simulation:
    """The parties of one run. Ledgers stay open until :meth:`close` or :meth:`detach`."""

    run: str
    nodes: dict[str, SiteNode]
    coordinator: Ledger
    policies: dict[str, str]

    @classmethod
    def open(
        cls,
        run: str,
        task: TaskSpec,
        digest: str,
        steps: frozenset[str],
        sites: Mapping[str, SimulatedSite],
        networks: NetworkCache,
        folder: Path,
        key: SigningKey,
    ) -> Simulation:
        """Build every party of a run in its folder, or go on with those that are there.

        Each ledger says which policy is in force from here on. Raises DataError where a site's rows are others than
        when the run began, and what :meth:`Ledger.open` raises; no file is left open then.
        """
        with ExitStack() as undo:
            coordinator = _opened(Ledger.open(folder / "ledger", COORDINATOR, key, durable=False), undo)
            coordinator.append(OpenedEntry(run, digest, __version__))
            nodes = {}
            for name, site in sites.items():
                place = folder / "sites" / name
                place.mkdir(parents=True, exist_ok=True)
                check_cohort(place / "cohort", site.table)
                ledger = _opened(Ledger.open(folder / "ledger", name, key, durable=False), undo)
                ledger.append(OpenedEntry(run, digest, __version__))
                ledger.append(PolicyEntry(run, site.policy.model_dump_json()))
                nodes[name] = SiteNode(
                    run=run,
                    site=name,
                    task=task,
                    digest=digest,
                    steps=steps,
                    table=site.table,
                    policy=_constant(site.policy),
                    ledger=ledger,
                    memory=SiteMemory(place),
                    networks=networks,
                    log=place / "site.log",
                )
            undo.pop_all()
        return cls(run, nodes, coordinator, {name: site.policy_source for name, site in sites.items()})

    @property
    def handlers(self) -> dict[str, Callable[[Request], Reply]]:
        """Each site's entrance."""
        return {name: node.handle for name, node in self.nodes.items()}

    def sign_heads(self, round_number: int) -> None:
        """Sign every ledger's head; the coordinator witnesses the sites' heads, and they the coordinator's."""
        for name, node in sorted(self.nodes.items()):
            self.coordinator.witness(node.ledger.sign_head(round_number), name, self.run)
        head = self.coordinator.sign_head(round_number)
        for node in self.nodes.values():
            node.ledger.witness(head, COORDINATOR, self.run)

    def close(self, status: str) -> None:
        """Record how the run ended in every ledger, the coordinator's last, which witnesses all the others."""
        for name, node in sorted(self.nodes.items()):
            self.coordinator.witness(node.ledger.close(self.run, status), name, self.run)
        self.coordinator.close(self.run, status)

    def detach(self) -> None:
        """Give all files back; the run may go on later."""
        for node in self.nodes.values():
            node.ledger.detach()
        self.coordinator.detach()


def _opened(ledger: Ledger, undo: ExitStack) -> Ledger:
    undo.callback(ledger.detach)
    return ledger


@contextmanager
def attached(simulation: Simulation) -> Iterator[Simulation]:
    """Give the ledgers' files back whatever happens."""
    try:
        yield simulation
    finally:
        simulation.detach()


def _constant(policy: Policy) -> Callable[[], Policy]:
    return lambda: policy
