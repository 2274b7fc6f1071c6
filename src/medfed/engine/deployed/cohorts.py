"""The rows that a task would read at a deployed site, and the digest by which they are frozen at approval."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import DataError
from medfed.core.files import write_once
from medfed.data.images.loading import tried
from medfed.data.raw import Unread
from medfed.data.table import SiteTable, held_out, load_table
from medfed.engine.cohort import KEY_BYTES, digest_of_rows
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.hospitals import read_raw
from medfed.govern.proposals import Proposal
from medfed.spec.loading import TaskFile
from medfed.spec.site import Dataset, SiteFile, dataset_path, load_site


@dataclass(frozen=True)
class Cohort:
    """A dataset's rows as a task reads them. digest: keyed SHA-256, in hex; the key never leaves the site."""

    dataset: str
    digest: str
    rows: int
    patients: int


def cohort_of(site_folder: Path, proposal: Proposal) -> Cohort:
    """What a proposed task would read at this site. Raises TaskError or DataError, which say what does not fit."""
    folder = SiteFolder.open(site_folder)
    task = proposal.task_file()
    return cohort(folder, task, table_of(folder, load_site(folder.settings), task))


def cohort(folder: SiteFolder, task: TaskFile, table: SiteTable) -> Cohort:
    """The cohort of loaded rows."""
    digest = digest_of_rows(cohort_key(folder), table).hex()
    return Cohort(dataset_name(folder, task), digest, len(table.ids), table.patients())


def dataset_name(folder: SiteFolder, task: TaskFile) -> str:
    """The dataset that a task names for this site; one that names none means the dataset called ``default``."""
    entry = task.spec.sites.get(folder.site)
    return entry.data if entry is not None else "default"


def table_of(folder: SiteFolder, settings: SiteFile, task: TaskFile) -> SiteTable:
    """The site's rows for a task, from the dataset that it names. Raises TaskError or DataError."""
    name, spec = dataset_name(folder, task), task.spec
    dataset = dataset_of(folder, settings, task)
    data = spec.data.model_copy(update=_declared(dataset, task, folder.site))
    described = TaskFile(spec.model_copy(update={"data": data}), task.document)
    raw = read_raw(described, dataset_path(folder.path, name, dataset), folder.site)
    table = load_table(data, spec.task_type, folder.site, raw, spec.seed)
    return held_out(table) if folder.site in spec.evaluation.holdout else table


def dataset_of(folder: SiteFolder, settings: SiteFile, task: TaskFile) -> Dataset:
    """The dataset that a task names, as the site declares it. Raises DataError where it does not."""
    name = dataset_name(folder, task)
    dataset = settings.datasets.get(name)
    if dataset is None:
        known = ", ".join(sorted(settings.datasets)) or "none yet"
        raise DataError(
            f"the site has no dataset called {name!r}",
            where=folder.site,
            remedy=f"declare it in site.yaml, or name one of these in the task: {known}",
        )
    return dataset


def _declared(dataset: Dataset, task: TaskFile, site: str) -> dict[str, object]:
    """What the site says of its data itself. Raises DataError where the task says otherwise."""
    data = task.spec.data
    label = data.label.column if data.label is not None else None
    for key, mine, asked in (("id", dataset.id, data.id), ("label", dataset.label, label)):
        if mine is not None and asked is not None and mine != asked:
            raise DataError(
                f"the task takes another column as {key} than this site declares for the dataset",
                where=site,
                remedy=f"leave data.{key} out of the task, or agree with the site on one",
            )
    found: dict[str, object] = {"connector": dataset.connector}
    if dataset.id is not None:
        found["id"] = dataset.id
    return found


def cohort_key(folder: SiteFolder) -> bytes:
    """The site's own key of digests of its rows; it never leaves the site."""
    path = folder.path / "keys" / "cohort.key"
    if not path.exists():
        write_once(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
    return path.read_bytes()


@dataclass(frozen=True)
class CheckedDataset:
    """A dataset that can be read: its columns, and the files in it that give no image, for the site's own people."""

    columns: int
    unread: tuple[Unread, ...] = ()


def check_datasets(site_folder: Path) -> dict[str, CheckedDataset]:
    """Read every dataset that site.yaml declares, every image of it too. Raises TaskError or DataError."""
    from medfed.data.connectors import CONNECTORS
    from medfed.spec.task import DataSpec

    folder = SiteFolder.open(site_folder)
    found = {}
    for name, dataset in load_site(folder.settings).datasets.items():
        connector = CONNECTORS.get(dataset.connector.name)
        raw = connector(dataset_path(folder.path, name, dataset), DataSpec(connector=dataset.connector), folder.site)
        found[name] = CheckedDataset(len(raw.columns), tried(raw.pictures) if raw.pictures is not None else ())
    return found
