"""``medfed demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfed.cli.options import Json, Output, Quiet
from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically

if TYPE_CHECKING:
    import pandas

TASK = {
    "name": "breast cancer",
    "task_type": "classification",
    "model": {"name": "mlp", "hidden": [16]},
    "federation": {"strategy": "fedavg", "epochs": 20, "batch_size": 16, "lr": 0.05},
    "data": {
        "label": {"column": "diagnosis", "classes": ["benign", "malignant"]},
        "id": "id",
        "split": {"train": 0.25, "validation": 0.15, "test": 0.6, "stratify": True},
    },
    "seed": 7,
}
SEED = 7
"""By which the patients are divided over the hospitals."""


def demo(
    output: Output = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="A coordinator and three hospitals as processes, over NVIDIA FLARE.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """See it work: four unlike hospitals, five strategies, one report, under a minute.

    The Wisconsin breast-cancer data (scikit-learn's copy) are divided over four hospitals unlike in size and case mix;
    a quarter of each one's patients train, so that each alone has little to learn from.

    With --distributed, three of them and a coordinator are set up as on machines of their own, each with a folder and
    processes of its own: invited, admitted, asked, approved, trained over TLS, verified, and one revoked.

    \b
    Examples:
      medfed demo --output ./demo
      medfed demo --distributed --output ./consortium
    """
    if distributed:
        from medfed.cli.distributed_demo import distributed_demo

        distributed_demo(output, quiet=quiet, as_json=as_json)
        return
    from medfed import api
    from medfed.cli.progress import Watchers
    from medfed.cli.running import announce_comparison
    from medfed.data.partition import breast_cancer_hospitals

    strategies = ["local", "pooled", "fedavg", {"name": "fedprox", "mu": 0.1}, "scaffold"]
    hospitals = breast_cancer_hospitals(SEED)
    sites = {name: {"data": f"{name}.csv"} for name in hospitals}
    task = api.read_task(TASK | {"sites": sites, "compare": {"strategies": strategies}})
    folder = output or api.new_output(task)
    _write_rows(hospitals, folder / "data")
    with Watchers(quiet=quiet, as_json=as_json) as watchers:
        comparison = api.compare(task, data=folder / "data", output=folder, observer=watchers)
    announce_comparison(comparison, quiet=quiet, as_json=as_json)


def _write_rows(hospitals: dict[str, pandas.DataFrame], folder: Path) -> None:
    """A CSV file for each hospital, so that its runs can be resumed and audited. Raises RunFolderError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"the folder cannot be made ({error.strerror})", where=str(folder)) from error
    for name, frame in hospitals.items():
        write_atomically(folder / f"{name}.csv", frame.to_csv(index=False))
