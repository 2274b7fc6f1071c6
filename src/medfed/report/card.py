"""The model card: what the model is, where it comes from, what it reached, and what it is not for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically
from medfed.report.finals import shown_sites, splits_of
from medfed.report.findings import lede
from medfed.report.folder import RunFolder, is_comparison, read_run
from medfed.report.rendering import templates
from medfed.report.tables import SiteLeft, Table, all_that_left, final_metrics


@dataclass(frozen=True)
class ModelCard:
    """Everything that the template of a model card shows."""

    run: RunFolder
    sites: tuple[str, ...]
    lede: tuple[str, ...]
    tables: tuple[Table, ...]
    left: tuple[SiteLeft, ...]


def write_model_card(folder: Path) -> Path:
    """Write ``model_card.md`` into a run folder. Raises RunFolderError where the folder is not one run's."""
    if is_comparison(folder):
        raise RunFolderError(
            "a comparison has a model per strategy, not one",
            where=str(folder),
            remedy="name the folder of one strategy in it",
        )
    return write_card_of(read_run(folder), folder)


def write_card_of(run: RunFolder, folder: Path) -> Path:
    """Write the model card of a run that was read from that folder."""
    card = ModelCard(
        run=run,
        sites=shown_sites(run),
        lede=lede(run),
        tables=tuple(final_metrics(run, split) for split in splits_of(run)),
        left=tuple(left for left in all_that_left(run) if left.times),
    )
    path = folder / "model_card.md"
    write_atomically(path, templates().get_template("model_card.md.j2").render(card=card))
    return path
