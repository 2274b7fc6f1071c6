"""The time of a round on images, over that of the bare loop."""

from __future__ import annotations

import sys

from benchmarks.rows import Row
from benchmarks.simulation_parts.runs import Measured, Run, installed, measure
from benchmarks.simulation_parts.table import medians, ratio_row
from benchmarks.simulation_parts.workloads import WORKLOADS

WORKLOAD = "images"
LIMITS = {"one_worker": 1.05, "two_workers": 0.60}


def round_rows(repetitions: int) -> list[Row]:
    """All bodies in turns, again and again; the medians' ratios to the bare loop that evaluates as the product does."""
    count, measured = WORKLOADS[WORKLOAD].rounds, Measured()
    bodies = ["raw_evaluates", *LIMITS]
    if installed("flwr", sys.executable):
        bodies.append("flwr")
    else:
        print("Flower's simulation (flwr) is not installed: its row is left out")
    measure([Run(WORKLOAD, body, count) for body in bodies], repetitions, measured)
    for name, said in measured.failed.items():
        raise SystemExit(f"{name} failed: {said}")
    each = medians(measured, lambda sample: sample.each)
    rows = [
        ratio_row(f"round/{body}", (WORKLOAD,), _name(body), "raw_evaluates", each, "s/round", LIMITS.get(body))
        for body in bodies[1:]
    ]
    return [row for row in rows if row is not None]


def _name(body: str) -> str:
    return f"peer/{body}" if body == "flwr" else body
