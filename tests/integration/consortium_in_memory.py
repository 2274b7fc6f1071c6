"""A whole deployed consortium in one process: real folders, keys, approvals, ledgers and messages, and a carrier that
hands bytes over in memory. What FLARE does is all that is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medfed.core.codec import encode
from medfed.engine.deployed.cohorts import cohort_of
from medfed.engine.deployed.conduct import Conductor
from medfed.engine.deployed.folders import CoordinatorFolder, SiteFolder
from medfed.engine.deployed.messages import ToSite
from medfed.engine.deployed.office import office_ledger
from medfed.engine.deployed.site import DeployedSite
from medfed.engine.deployed.submission import Submission, Wish
from medfed.engine.deployed.submitting import submit_task
from medfed.govern.approvals import ApprovalStore
from medfed.govern.proposals import Proposal
from medfed.spec.loading import TaskFile, task_of

SITES = {"nord": 30, "ost": 44, "sued": 61, "west": 23}
COLUMNS = {"age": "continuous", "sex": {"type": "binary", "levels": [0, 1]}, "dose": "continuous"}
WHY = {
    "purpose": "a test of the whole",
    "legal_basis": "GDPR Art. 9(2)(j)",
    "ethics_id": "2026-1",
    "ethics_expires": "2099-12-31",
}


def write_tables(folder: Path) -> dict[str, Path]:
    """A table of four columns for each site."""
    random, tables = np.random.default_rng(5), {}
    folder.mkdir(parents=True, exist_ok=True)
    for shift, (site, rows) in enumerate(SITES.items()):
        age = random.normal(60 + shift, 12, rows).round(1)
        dose = random.exponential(2 + shift, rows).round(3)
        sex = random.integers(0, 2, rows)
        risk = 1 / (1 + np.exp(-(0.08 * (age - 62) + 0.5 * (dose - 3))))
        ill = (random.random(rows) < risk).astype(int)
        lines = [f"{site}-{k:03},{age[k]},{sex[k]},{dose[k]},{ill[k]}" for k in range(rows)]
        tables[site] = folder / f"{site}.csv"
        tables[site].write_text("\n".join(["id,age,sex,dose,ill", *lines]) + "\n")
    return tables


def task_over(sites: Mapping[str, str], aggregation: str = "clear", **federation: object) -> TaskFile:
    """A small task over these sites; values are what ``sites.NAME.data`` says."""
    settings = {"strategy": "fedavg", "rounds": 3, "local_updates": 3, "batch_size": 7, "lr": 0.05}
    return task_of(
        {
            "name": "four hospitals",
            "task_type": "classification",
            "model": {"name": "mlp", "hidden": [4]},
            "federation": settings | federation,
            "sites": dict(sites),
            "data": {
                "id": "id",
                "label": {"column": "ill", "classes": [0, 1]},
                "columns": COLUMNS,
                "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
            },
            "engine": {"batched": "off", "workers": 1},
            "privacy": {"aggregation": aggregation},
            "seed": 11,
        }
    )


SITE_FILE = """\
contact: steward@hospital.example
datasets:
  rows:
    path: {table}
    id: id
policy:
  task_types: "*"
  algorithms: "*"
  steps: "*"
  releases: "*"
  minimum_patients: 1
"""


@dataclass
class MemoryCarrier:
    """Hands bytes to the sites of this process; ``lost`` drops what it says, and ``spied`` has all that passed."""

    sites: dict[str, DeployedSite]
    lost: Callable[[str, str], bool] = lambda site, way: False
    spied: list[tuple[str, str, bytes]] = field(default_factory=list)

    def carry(self, messages: Mapping[str, ToSite], deadline: float | None) -> Iterator[tuple[str, bytes]]:
        for site, message in messages.items():
            if site not in self.sites or self.lost(site, "there"):
                continue
            content = encode(message)
            self.spied.append((site, "there", content))
            answer = self.sites[site].answer(content)
            self.spied.append((site, "back", answer))
            if not self.lost(site, "back"):
                yield site, answer


@dataclass
class Consortium:
    """Four hospitals and a coordinator in folders below one."""

    root: Path
    tables: dict[str, Path]
    coordinator: CoordinatorFolder
    sites: dict[str, SiteFolder]

    @classmethod
    def make(cls, root: Path) -> Consortium:
        tables = write_tables(root / "tables")
        coordinator = root / "coordinator"
        (coordinator / "keys" / "sites").mkdir(parents=True)
        (coordinator / "runs").mkdir()
        sites = {"sites": {site: {} for site in SITES}}
        about = {"name": "test", "coordinator": {"host": "localhost"}} | sites
        (coordinator / "consortium.yaml").write_text(json.dumps(about))
        opened = CoordinatorFolder.open(coordinator)
        folders = {}
        for site, table in tables.items():
            folder = root / "sites" / site
            folder.mkdir(parents=True)
            (folder / "identity.json").write_text(json.dumps({"consortium": "test", "site": site}))
            (folder / "site.yaml").write_text(SITE_FILE.format(table=table))
            folders[site] = SiteFolder.open(folder)
            key = folders[site].key().verify_key
            (coordinator / "keys" / "sites" / f"{site}.pub").write_bytes(key.pem())
            (folder / "keys" / "coordinator.pub").write_bytes(opened.key().verify_key.pem())
        return cls(root, tables, opened, folders)

    def submit(self, task: TaskFile, wish: Wish | None = None) -> Submission:
        submission, _ = submit_task(self.coordinator.path, task, wish or Wish(wait=0.0), **WHY)
        return submission

    def approvals(self, site: str) -> ApprovalStore:
        folder = self.sites[site]
        return ApprovalStore(folder.proposals, folder.key(), folder.coordinator_key())

    def approve(self, proposal: Proposal, *sites: str) -> None:
        """As the stewards of these sites, or of all, would."""
        for site in sites or tuple(self.sites):
            store = self.approvals(site)
            store.receive(proposal)
            cohort = cohort_of(self.sites[site].path, proposal)
            with office_ledger(self.sites[site].path) as ledger:
                store.approve(
                    proposal.digest, cohort=cohort.digest, dataset=cohort.dataset, by="Dr. Test", ledger=ledger
                )

    def open_sites(self) -> dict[str, DeployedSite]:
        return {site: DeployedSite(folder) for site, folder in self.sites.items()}

    def conductor(self, submission: Submission, carrier: MemoryCarrier) -> Conductor:
        return Conductor(self.coordinator, submission, carrier, lambda site: None)


def now() -> datetime:
    return datetime.now(UTC)
