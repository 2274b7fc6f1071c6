"""Deployed training: MedFed beside a FLARE FedAvg recipe, and beside a bare TLS socket that moves the same bytes.

    python -m benchmarks.distributed --json distributed.json
    python -m benchmarks.distributed --peers

Coordinator and sites are separate processes on loopback under mutual TLS, MedFed's and the recipe's alike. What each
row is: docs/reference/benchmarks.md. Linux only.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.distributed_parts.medfed import LARGE, SMALL, Measured, coordinator_peak, deployed_rounds
from benchmarks.distributed_parts.recipe import Recipe, recipe_rounds
from benchmarks.distributed_parts.session import Failed
from benchmarks.distributed_parts.tls import round_seconds
from benchmarks.rows import Row, report

SITES, MANY_SITES = 4, 16
SMALL_LIMIT, LARGE_LIMIT, START_LIMIT, MEMORY_LIMIT = 0.08, 2.5, 1.3, 3.5


def main() -> int:
    """Measure, print, write; 1 where a ratio is above its limit or a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each run, of which the first does not count")
    parser.add_argument("--peers", action="store_true", help="the recipe and the socket alone")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds takes 2 or more, since the first round does not count")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended too
    try:
        rows = peer_rows(options.rounds) if options.peers else all_rows(options.rounds)
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    return report(rows, options.json)


def all_rows(rounds: int) -> list[Row]:
    """MedFed's rows, then the peers'. The socket's rounds stand before and after the large ones."""
    recipe = recipe_rounds(rounds, SITES, SMALL.rows)
    small = deployed_rounds(SMALL, rounds, SITES)
    socket = round_seconds(LARGE.size, SITES, rounds)
    large = deployed_rounds(LARGE, rounds, SITES)
    socket += round_seconds(LARGE.size, SITES, rounds)
    peaks = {
        count: (coordinator_peak(SMALL, 3, count), coordinator_peak(LARGE, 3, count)) for count in (SITES, MANY_SITES)
    }
    return [*time_rows(small, large, recipe, socket), *memory_rows(peaks), *peers(recipe, socket)]


def peer_rows(rounds: int) -> list[Row]:
    """The peers' rows alone."""
    return peers(recipe_rounds(rounds, SITES, SMALL.rows), round_seconds(LARGE.size, SITES, rounds))


def time_rows(small: Measured, large: Measured, recipe: Recipe, socket: Sequence[float]) -> list[Row]:
    """The rows of what was timed."""
    return [
        _ratio("round/small", small.seconds_per_round, recipe.seconds_per_round, SMALL_LIMIT, "a recipe's round"),
        _ratio("round/large", large.seconds_per_round, float(np.median(socket)), LARGE_LIMIT, "one TLS socket"),
        _ratio(
            "start/first_round",
            small.seconds_to_first_round,
            recipe.seconds_to_first_round,
            START_LIMIT,
            "from the recipe's submission to its first round's training",
        ),
    ]


def memory_rows(peaks: Mapping[int, tuple[int, int]]) -> list[Row]:
    """The models that the coordinator holds by number of sites, the worse first; from peaks of small and large runs."""
    rows = []
    for sites, (small, large) in peaks.items():
        models = (large - small) / LARGE.size
        said = f"the same with 30-32-2: {small / 1e6:.0f} MB"
        rows.append(Row(f"memory/coordinator/{sites}", models, "models", models, MEMORY_LIMIT, said))
    return [replace(max(rows, key=lambda row: row.value), name="memory/coordinator"), *rows]


def peers(recipe: Recipe, socket: Sequence[float]) -> list[Row]:
    """What the peers took."""
    low, middle, high = np.quantile(socket, [0.25, 0.5, 0.75])
    submitted = f"of which {recipe.seconds_of_submission:.1f} s before the job was submitted"
    said = "FedAvg at its defaults, four sites, 30-32-2, 1,000 rows a site"
    moved = f"{2 * SITES} × {LARGE.size / 1e6:.1f} MB; quartiles {low:.3f} to {high:.3f}"
    return [
        Row("peer/recipe/round", recipe.seconds_per_round, "s/round", None, None, said),
        Row("peer/recipe/first_round", recipe.seconds_to_first_round, "s", None, None, submitted),
        Row("peer/tls/round", float(middle), "s/round", None, None, moved),
    ]


def _ratio(name: str, value: float, peer: float, limit: float, said: str) -> Row:
    return Row(name, value, "s", value / peer, limit, f"{said}: {peer:.4g} s")


if __name__ == "__main__":
    sys.exit(main())
