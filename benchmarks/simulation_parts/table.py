"""From samples to rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.rows import Row
from benchmarks.simulation_parts.measure import Sample
from benchmarks.simulation_parts.runs import OTHER_STRATEGIES, PEERS, STRATEGY_WORKLOAD, Measured
from benchmarks.simulation_parts.workloads import WORKS

LIMITS = {
    "kernel": {"W1": 0.15, "W2": 0.50, "W3": 0.15},
    "product": {"W1": 0.50, "W2": 0.60, "W3": 0.40},
    "sequential": dict.fromkeys(WORKS, 1.05),
    "first_round": dict.fromkeys(WORKS, 1.3),
    "memory": dict.fromkeys(WORKS, 1.2),
}
"""What a ratio must not exceed, by row and work."""

SCALE_LIMIT = 1.5
MEGABYTE = 1e6

Figures = Mapping[str, float]
"""One figure of each run, by the run's name."""


def ratio_rows(works: Sequence[str], measured: Measured) -> list[Row]:
    """The rows of each work: its own figure, summed over its workloads, over that of the raw loop."""
    each = medians(measured, lambda sample: sample.each)
    first = medians(measured, lambda sample: sample.first)
    memory = {name: float(np.median(peaks)) / MEGABYTE for name, peaks in measured.memory.items()}
    rows: list[Row | None] = []
    for work in works:
        for row, body, raw, figures, unit in (
            ("kernel", "kernel", "raw", each, "s/round"),
            ("product", "product", "raw_evaluates", each, "s/round"),
            ("sequential", "sequential", "raw", each, "s/round"),
            ("first_round", "product", "raw", first, "s"),
            ("memory", "product", "raw", memory, "MB"),
            *((f"peer/{peer}", f"peer/{peer}", "raw", each, "s/round") for peer in PEERS),
            *((f"peer/{peer}/first_round", f"peer/{peer}", "raw", first, "s") for peer in PEERS),
            *((f"peer/{peer}/memory", f"peer/{peer}", "raw", memory, "MB") for peer in PEERS),
        ):
            limit = LIMITS.get(row, {}).get(work)
            rows.append(ratio_row(f"{work}/{row}", WORKS[work], body, raw, figures, unit, limit))
        for name in OTHER_STRATEGIES if work == "W1" else ():
            row, raw = f"{name}/kernel", f"{name}/raw"
            rows.append(ratio_row(f"W1/{row}", (STRATEGY_WORKLOAD,), row, raw, each, "s/round", None))
    return [row for row in rows if row is not None]


def medians(measured: Measured, quantity: Callable[[Sample], float]) -> Figures:
    """The median of a quantity over the repetitions of each run."""
    return {name: float(np.median([quantity(s) for s in samples])) for name, samples in measured.samples.items()}


def ratio_row(
    name: str, workloads: Sequence[str], body: str, raw: str, figures: Figures, unit: str, limit: float | None
) -> Row | None:
    """One body's figure over another's, each summed over workloads; None where one of them was not measured."""
    own, others = ([f"{workload}/{each}" for workload in workloads] for each in (body, raw))
    if not figures.keys() >= {*own, *others}:
        return None
    value, peer = (sum(figures[each] for each in names) for names in (own, others))
    return Row(name, value, unit, value / peer, limit, f"{raw}: {peer:.4g} {unit}")


def fact_rows(measured: Measured) -> list[Row]:
    """What each body took: the median of its seconds a round with their quartiles, CPU and wall seconds, memory."""
    rows = []
    for name, samples in measured.samples.items():
        low, middle, high = np.quantile([s.each for s in samples], [0.25, 0.5, 0.75])
        wall, cpu = np.median([(s.wall, s.cpu) for s in samples], axis=0)
        said = f"quartiles {low:.4g}, {high:.4g}; {wall:.1f} s wall, {cpu:.1f} s CPU"
        rows += [
            Row(f"measured/{name}/round", float(middle), "s/round", None, None, said),
            Row(f"measured/{name}/spread", float(high - low), "s", None, None, "between the quartiles"),
            Row(f"measured/{name}/wall", float(wall), "s", None, None, "the whole process"),
            Row(f"measured/{name}/cpu", float(cpu), "s", None, None, "the whole process and its children"),
        ]
    for name, peaks in measured.memory.items():
        low, middle, high = np.quantile(peaks, [0.25, 0.5, 0.75]) / MEGABYTE
        said = f"peak PSS with its children; quartiles {low:.1f}, {high:.1f}"
        rows.append(Row(f"measured/{name}/memory", float(middle), "MB", None, None, said))
    return rows


def scale_rows(samples: dict[int, Sample]) -> list[Row]:
    """The memory of the larger run over that of the smaller; nothing where one failed."""
    if len(samples) < 2:
        return []
    (fewer, small), (more, large) = samples.items()
    value, peer = large.memory / MEGABYTE, small.memory / MEGABYTE
    said = f"{fewer:,} sites: {peer:.0f} MB; {more:,}: {large.wall:.0f} s wall, round {large.each:.2f} s"
    return [Row("scale/memory", value, "MB", value / peer, SCALE_LIMIT, said)]
