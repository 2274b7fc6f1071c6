"""Simulated training: MedFed against a raw PyTorch loop, and against other simulators where they are installed.

    python -m benchmarks.simulation --json simulation.json
    python -m benchmarks.simulation --only W1 W3 --repetitions 5
    python -m benchmarks.simulation --scale

Every body runs in a process of its own; bodies alternate within a repetition, so that what else the machine does falls
on all of them. A figure is the median over the repetitions; memory is watched in as many more, which are not timed.
What each row is: docs/reference/benchmarks.md. Linux only.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.rows import exceeded, print_rows, write_rows
from benchmarks.simulation_parts.runs import Measured, measure, plan, scale_samples
from benchmarks.simulation_parts.table import fact_rows, ratio_rows, scale_rows
from benchmarks.simulation_parts.workloads import WORKS

SCALE = "scale"


def main() -> int:
    """Measure, print, write; 1 where a ratio is above its limit or a body failed."""
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the body that runs is ended too
    works = [name for name in options.only if name in WORKS]
    measured = Measured()
    if works:
        measure(plan(works, options.rounds, options.peers), options.repetitions, measured)
    rows = ratio_rows(works, measured)
    facts = fact_rows(measured)
    if SCALE in options.only:
        rows += scale_rows(scale_samples(options.quick, measured))
    print_rows(rows + [row for row in facts if row.unit == "s/round"])
    if options.json:
        write_rows(options.json, rows + facts)
    above = exceeded(rows)
    for name, said in measured.failed.items():
        print(f"failed: {name}: {said}", file=sys.stderr)
    print(f"above the limit: {', '.join(above) or 'none'}")
    return 1 if above or measured.failed else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    everything = [*WORKS, SCALE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--only", nargs="+", choices=everything, default=everything, help="what to measure")
    parser.add_argument("--scale", dest="only", action="store_const", const=[SCALE], help="as --only scale")
    parser.add_argument("--rounds", type=int, help="rounds of every workload, in place of its own number")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke run: one repetition of three rounds")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="interpreter that has pfl or flwr")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 2:
        parser.error("--rounds takes 2 or more, since the first round does not count")
    if options.quick:
        options.rounds, options.repetitions = options.rounds or 3, 1
    return options


if __name__ == "__main__":
    sys.exit(main())
