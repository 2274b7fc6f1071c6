"""What goes with a model wherever it goes: what it takes and gives, where it comes from, and what it is not for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfed.core.errors import RunFolderError
from medfed.engine.trained import TrainedModel
from medfed.version import __version__

INTENDED_USE = (
    "For research on federated learning, and for study by the hospitals that trained it. It is not a medical device: "
    "not for diagnosis, treatment, triage or any decision about a patient, nor for patients unlike those it was tested "
    "on."
)


@dataclass(frozen=True)
class About:
    """A run's ``results.json`` and model card, as far as they belong to its model. site: whose own it is, if any."""

    results: dict[str, Any]
    card: str
    site: str

    @classmethod
    def of(cls, run: Path, site: str | None) -> About:
        """Read from a finished run. Raises RunFolderError."""
        try:
            results = json.loads((run / "results.json").read_text(encoding="utf-8"))
            return cls(results, (run / "model_card.md").read_text(encoding="utf-8"), site or "")
        except (OSError, ValueError) as error:
            raise RunFolderError(
                "the run's results or model card are absent or damaged", where=str(run), remedy="run the task again"
            ) from error

    def as_json(self, model: TrainedModel) -> dict[str, Any]:
        """All of it, for a program. Metrics are those over all sites, and those of held-out sites."""
        encoding, metrics = model.encoding, self.results["metrics"]
        external = metrics.get("external", {})
        held_out = {"external": external} if external else {}
        return {
            "name": self.results["name"],
            "medfed": __version__,
            "run": self.results["run"],
            "task_digest": self.results["task_digest"],
            "task_type": self.results["task_type"],
            "strategy": self.results["strategy"],
            "rounds": self.results["rounds"],
            "model_of": self.site,
            "trained_at": [self.site] if self.site else [s for s in self.results["rows"] if s not in external],
            "classes": list(encoding.classes),
            "features": list(encoding.features),
            "columns": list(encoding.columns) if not encoding.is_array else [],
            "image_transforms": [step.model_dump(mode="json") for step in model.task.data.images.transforms],
            "channels": model.task.data.images.channels,
            "mean": encoding.mean.tolist(),
            "scale": encoding.scale.tolist(),
            "metrics": {split: found["federated"] for split, found in metrics.items() if "federated" in found}
            | held_out,
            "intended_use": INTENDED_USE,
        }
