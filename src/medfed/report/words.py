"""How the report writes numbers, names and lists."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medfed.core.disclosure import WITHHELD

_COUNTS = [
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_STRATEGIES = {
    "local": "Local",
    "pooled": "Pooled",
    "fedavg": "FedAvg",
    "fedsgd": "FedSGD",
    "fedprox": "FedProx",
    "scaffold": "SCAFFOLD",
    "fedadam": "FedAdam",
    "ditto": "Ditto",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$])")
_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class MetricName:
    """How a metric is called, and whether a smaller value is the better one (``None``: not known)."""

    label: str
    inline: str
    lower_is_better: bool | None


_METRICS = {
    "loss": MetricName("Loss", "loss", True),
    "auc": MetricName("AUC", "AUC", False),
    "accuracy": MetricName("Accuracy", "accuracy", False),
    "recall": MetricName("Recall", "recall", False),
    "specificity": MetricName("Specificity", "specificity", False),
    "brier": MetricName("Brier score", "Brier score", True),
    "average_precision": MetricName("Average precision", "average precision", False),
    "ece": MetricName("Calibration error", "expected calibration error", True),
    "rmse": MetricName("RMSE", "RMSE", True),
    "r2": MetricName("R²", "R²", False),
    "dice": MetricName("Dice", "Dice", False),
    "hausdorff95": MetricName("Hausdorff distance, 95 %", "95 % Hausdorff distance", True),
    "hausdorff": MetricName("Hausdorff distance", "Hausdorff distance", True),
}
_BY_CLASS = ("dice", "hausdorff95")
_IMPORTANCE = (
    *("auc", "average_precision", "accuracy", "recall", "specificity", "brier", "ece", "r2", "rmse"),
    *("dice", "hausdorff95", "hausdorff", "loss"),
)


def metric_name(metric: str) -> MetricName:
    """The name of a metric, of one class where it says one (``dice_lesion``); an unknown one is spelled out."""
    of_all, _, name = metric.partition("_")
    if name and of_all in _BY_CLASS:
        known = _METRICS[of_all]
        return MetricName(f"{known.label}: {name}", f"{known.inline} of {name}", known.lower_is_better)
    spelled = metric.replace("_", " ")
    return _METRICS.get(metric, MetricName(spelled.capitalize(), spelled, None))


def by_importance(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics with the one that a reader asks for first in front, and the loss last."""
    known = [metric for metric in _IMPORTANCE if metric in metrics]
    return tuple(dict.fromkeys([*(m for m in known if m != "loss"), *(m for m in metrics if m != "loss"), *known]))


def strategy_name(strategy: str) -> str:
    """FedAvg for ``fedavg``."""
    return _STRATEGIES.get(strategy, strategy)


def number(value: float) -> str:
    """A metric's value: three decimals, fewer where it is large, two digits where it is tiny."""
    size = abs(value)
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 100:
        text = f"{value:.1f}"
    elif size >= 10:
        text = f"{value:.2f}"
    elif size >= 0.0005 or size == 0:
        text = f"{value:.3f}"
    else:
        text = f"{value:.1e}"
    return text.replace("-", "−")


def bound(error: float) -> str:
    """An error's bound, rounded up so that it stays one."""
    decimals = 3 if error >= 0.001 else 4
    return f"{math.ceil(error * 10**decimals - 1e-9) / 10**decimals:.{decimals}f}"


def difference(value: float) -> str:
    """A signed difference."""
    return ("+" if value > 0 else "") + number(value)


def count(n: int | None) -> str:
    """A count of persons or rows; ``withheld`` where the site did not show it."""
    return WITHHELD if n is None else f"{n:,}"


def spelled(n: int) -> str:
    """A small number as a word."""
    return _COUNTS[n] if 0 <= n < len(_COUNTS) else f"{n:,}"


def plural(n: int, noun: str, *, spell: bool = False) -> str:
    """``3 rounds``, ``1 round``; ``four hospitals`` where spelled."""
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    stem = f"{noun[:-1]}ies" if ending and noun.endswith("y") else noun + ending
    return f"{spelled(n) if spell else f'{n:,}'} {stem}"


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def size(n: int) -> str:
    """Bytes in units of a thousand: ``41.2 kB``."""
    amount, unit = float(n), 0
    while amount >= 999.95 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{n:,} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """``2 min 5 s``, ``3.4 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def markdown(value: object) -> Markup:
    """Text that Markdown shows as it is: one line, with its marks and HTML's angle brackets escaped."""
    line = " ".join(str(value).split())
    safe = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(_MARKDOWN.sub(r"\\\1", safe))  # noqa: S704 (escaped one line above)


def capital(sentence: str) -> str:
    """The sentence with a capital."""
    return sentence[:1].upper() + sentence[1:]
