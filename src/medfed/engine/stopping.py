"""When a run ends before its last round."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medfed.core.messages import Message
from medfed.spec.task import Stop

_LOWER_IS_BETTER = ("loss", "brier", "rmse", "hausdorff95", "hausdorff")


@dataclass(frozen=True)
class Progress(Message, wire="run.progress"):
    """The watched metric so far: its last and best value, and the evaluations since the best."""

    last: float | None = None
    best: float | None = None
    stale: int = 0

    def after(self, value: float | None, stop: Stop) -> Progress:
        """The progress after one more evaluation; a metric without a value changes nothing."""
        if value is None:
            return self
        better = self.best is None or _gain(stop.metric, value, self.best) > stop.min_delta
        return Progress(value, value if better else self.best, 0 if better else self.stale + 1)


def stop_reason(progress: Progress, stop: Stop, *, done: bool, limit: bool) -> str:
    """Why the run is over, as a sentence, or the empty string."""
    if _gain(stop.metric, progress.last, stop.target) >= 0:
        return f"{stop.metric} reached its target {stop.target:g}"
    if stop.patience is not None and progress.stale >= stop.patience:
        return f"{stop.metric} has not improved for {stop.patience} evaluations"
    if limit:
        return "the last round was reached"
    return "the model's weights no longer change" if done else ""


def _gain(metric: str | None, value: float | None, reference: float | None) -> float:
    """By how much a value is better than a reference."""
    if value is None or reference is None:
        return -math.inf
    return reference - value if metric in _LOWER_IS_BETTER else value - reference
