"""Image classification over four hospitals: accuracy, what is sent, and speed.

    python -m benchmarks.imaging --data DIR --json imaging.json
    python -m benchmarks.imaging --data DIR --only accuracy --seeds 0
    python -m benchmarks.imaging --only rounds

DIR holds ``pneumoniamnist.npz``: 5,856 chest X-rays of children (MedMNIST v2, Yang et al. 2023), divided over four
sites by Dirichlet(0.5) on the label. The small CNN trains as pooled rows, as a federation and at each site alone.

- ``auc/pooled``, ``auc/fedavg``: on the official test images, the mean over the seeds. ``auc/local_mean``: each site's
  own model on the same images, weighted by training rows. ``auc/pooled-fedavg`` has the paired 95 % interval: both
  models score the same images, which are drawn anew within each class.
- ``auc/dirichlet_0.1/STRATEGY``: where sites have hardly a class in common; each hospital's test images under the model
  that it would use, with the 95 % interval of the run's own report.
- ``int8/bytes``, ``topk/bytes``: of an update, over those of an uncompressed one; ``int8/auc_lost``, ``topk/auc_lost``.
- ``run/seconds``: the longest federated run.
- ``round/one_worker``, ``round/two_workers``: a round of the product, evaluation and checkpoint included, over that of
  the bare PyTorch loop of ``benchmarks.simulation`` on as many images; Flower's simulation where it is installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.imaging_parts.accuracy import SEEDS, accuracy_rows
from benchmarks.imaging_parts.rounds import round_rows
from benchmarks.rows import Row, report


def main() -> int:
    """Measure, print, write; 1 where a ratio is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of pneumoniamnist.npz")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--only", nargs="+", choices=["accuracy", "rounds"], default=["accuracy", "rounds"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--repetitions", type=int, default=3, help="of the timed rounds")
    options = parser.parse_args()
    if "accuracy" in options.only and options.data is None:
        parser.error("--data is needed for accuracy: the folder that holds pneumoniamnist.npz")
    rows: list[Row] = []
    try:
        if "rounds" in options.only:
            rows += round_rows(options.repetitions)
        if "accuracy" in options.only:
            for row in accuracy_rows(options.data, options.seeds):
                rows.append(row)
    finally:  # of an hour's training nothing is lost
        status = report(rows, options.json)
    return status


if __name__ == "__main__":
    sys.exit(main())
