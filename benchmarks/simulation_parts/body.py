"""The entrance of every measured process: run one body, and write when each of its rounds ended.

python -m benchmarks.simulation_parts.body raw W1/mlp --rounds 50 --stamps FILE
"""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import replace
from pathlib import Path

from benchmarks.simulation_parts.workloads import STRATEGIES, WORKLOADS

BODIES = {
    "raw": "raw",
    "raw_evaluates": "raw",
    "kernel": "ours",
    "sequential": "ours",
    "product": "product",
    "one_worker": "product",
    "two_workers": "product",
    "scale": "product",
    "pfl": "peer_pfl",
    "flwr": "peer_flwr",
}
"""The module in which each body is a function of its name: (workload) → the clock at the end of each round."""


def main() -> None:
    """Run the body that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("body", choices=BODIES)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--sites", type=int, help="other than the workload's number")
    parser.add_argument("--strategy", choices=STRATEGIES, default="fedavg")
    parser.add_argument("--stamps", type=Path, required=True)
    options = parser.parse_args()
    work = replace(WORKLOADS[options.workload], rounds=options.rounds, strategy=STRATEGIES[options.strategy])
    if options.sites:
        work = replace(work, sites=options.sites)
    module = importlib.import_module(f"benchmarks.simulation_parts.{BODIES[options.body]}")
    ends = getattr(module, options.body)(work)
    options.stamps.write_text(json.dumps(list(ends)))


if __name__ == "__main__":
    main()
