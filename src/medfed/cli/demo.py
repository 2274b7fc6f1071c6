"""``medfed demo``."""

from __future__ import annotations

from medfed.cli.options import Json, Output, Quiet


def demo(output: Output = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """See it work: four unlike hospitals, five strategies, one report, under a minute.

    The Wisconsin breast-cancer data (scikit-learn's copy) are divided over four hospitals unlike in size and case mix;
    a quarter of each one's patients train, so that each alone has little to learn from.

    \b
    Example:
      medfed demo --output ./demo
    """
    from medfed import api
    from medfed.cli.progress import Watchers
    from medfed.cli.running import announce_comparison
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
    with Watchers(quiet=quiet, as_json=as_json) as watchers:
        comparison = api.compare(task, hospitals, output=folder, observer=watchers)
    announce_comparison(comparison, quiet=quiet, as_json=as_json)
