"""What sites sent of their training: the bytes of an update beside those of the whole model uncompressed."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.report.canvas import Dot, Dots, dot_panel, stroke
from medfed.report.figures import Panel
from medfed.report.folder import ALONE, Comparison, RunFolder
from medfed.report.records import FEDERATED
from medfed.report.words import difference, metric_name, number, size, strategy_name


@dataclass(frozen=True)
class Update:
    """An update of one site, over all sites and rounds: its bytes on average, and how many updates there were.

    whole: the bytes of all the model's numbers as float32. trained: how many numbers are trained, of ``parameters``.
    """

    bytes: float
    count: int
    whole: int
    trained: int
    parameters: int

    @property
    def size(self) -> str:
        """Its bytes, in human units."""
        return size(round(self.bytes))

    @property
    def whole_size(self) -> str:
        """The whole model's bytes, in human units."""
        return size(self.whole)

    @property
    def share(self) -> str:
        """Its bytes as a share of the whole model's; framing makes a whole update a little more than all."""
        return f"{100 * self.bytes / self.whole:.3g} %"


@dataclass(frozen=True)
class SentRow:
    """A strategy's update, its metric over all hospitals, and the difference from the strategy that sends the most."""

    strategy: str
    update: Update
    value: str
    difference: str


@dataclass(frozen=True)
class Sent:
    """Strategies side by side: bytes and the main metric, as a table and as charts."""

    metric: str
    reference: str
    rows: tuple[SentRow, ...]
    panels: tuple[Panel, ...]


def update_of(run: RunFolder) -> Update | None:
    """The updates that a run's ledgers hold; None for a baseline, or where there are none."""
    results = run.results
    if results is None or results.updates is None or results.parameters is None or run.strategy in ALONE:
        return None
    steps, times, total = set(results.updates.steps), 0, 0
    for ledger in run.ledgers:
        times += sum(n for alike, n in ledger.times.items() if alike.step in steps)
        total += sum(n for alike, n in ledger.bytes.items() if alike.step in steps)
    whole = results.updates.whole_bytes
    if not times or not whole:
        return None
    return Update(total / times, times, whole, results.updates.trained, results.parameters)


def sent_by_strategy(comparison: Comparison, split: str, metric: str) -> Sent | None:
    """Bytes and metric of each federated strategy; None where fewer than two have both.

    The others are compared with the one whose updates take the most bytes, the first of them.
    """
    found = {}
    for strategy, run in comparison.runs.items():
        update, measure = update_of(run), run.metrics.get(split, {}).get(FEDERATED, {}).get(metric)
        if update is not None and measure is not None and measure.value is not None:
            found[strategy] = update, measure.value
    if len(found) < 2:
        return None
    reference = max(found, key=lambda strategy: found[strategy][0].bytes)
    rows = tuple(
        SentRow(
            strategy_name(strategy),
            update,
            number(value),
            "—" if strategy == reference else difference(value - found[reference][1]),
        )
        for strategy, (update, value) in found.items()
    )
    names = tuple(strategy_name(strategy) for strategy in found)
    label = metric_name(metric).label
    panels = (
        _panel("Share of the whole model that an update takes", names, [u.bytes / u.whole for u, _ in found.values()]),
        _panel(f"{label} over all hospitals", names, [value for _, value in found.values()]),
    )
    return Sent(label, strategy_name(reference), rows, panels)


def _panel(caption: str, names: tuple[str, ...], values: list[float]) -> Panel:
    dots = Dots(tuple(Dot(row, value) for row, value in enumerate(values)), stroke(0))
    said = "; ".join(f"{name}: {number(value)}" for name, value in zip(names, values, strict=True))
    return Panel(caption, dot_panel(names, (dots,), name=caption, alt=f"{caption}. {said}."))
