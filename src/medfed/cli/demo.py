"""``medfed demo``."""

from __future__ import annotations

from medfed.cli.options import Json, Output, Quiet, print_json


def demo(output: Output = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """See it work: four unlike hospitals, five strategies, one report, under a minute.

    The Wisconsin breast-cancer data (scikit-learn's copy) are divided over four hospitals unlike in size and case mix;
    a quarter of each one's patients train, so that each alone has little to learn from.

    \b
    Example:
      medfed demo --output ./demo
    """
    from medfed import api
    from medfed.cli.progress import Watcher
    from medfed.cli.running import print_comparison
    from medfed.data.partition import breast_cancer_hospitals

    task = api.read_task(
        {
            "name": "breast cancer",
            "task_type": "classification",
            "model": {"name": "mlp", "hidden": [16]},
            "federation": {"strategy": "fedavg", "epochs": 20, "batch_size": 16, "lr": 0.05},
            "data": {
                "label": {"column": "diagnosis", "classes": ["benign", "malignant"]},
                "id": "id",
                "split": {"train": 0.25, "validation": 0.15, "test": 0.6, "stratify": True},
            },
            "compare": {"strategies": ["local", "pooled", "fedavg", {"name": "fedprox", "mu": 0.1}, "scaffold"]},
            "seed": 7,
        }
    )
    folder = output or api.new_output(task)
    hospitals = breast_cancer_hospitals(7)
    comparison = api.compare(
        task,
        hospitals,
        output=folder,
        observer=lambda name: Watcher(quiet=quiet, as_json=as_json, label=name),
    )
    if as_json:
        print_json({"event": "finished", "folder": str(folder), "metrics": comparison.table()})
    elif not quiet:
        print_comparison(comparison.table())
        print(f"report: {folder / 'report.html'}")
