"""Which sites are trained together, and which process they live in.

Sites are cut into blocks that depend on the task and the sites' names alone; a block's sites of one call are stacked,
so the same bits come from any number of workers. Blocks are then spread over workers by the rows behind them.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Mapping, Sequence

from medfed.core.errors import UserError
from medfed.engine.store import STORES
from medfed.models.catalogue import build_network
from medfed.models.stacked import can_stack
from medfed.spec.task import TaskSpec

Block = tuple[str, ...]

STACK = 64
"""Sites of a cohort in a stack, about: more would not fit a core's cache."""

LARGEST_STACK = 2 * STACK
"""Sites of one call in a stack, at most, so that memory does not grow with their number."""

SMALL = 2**20
"""Multiplications of one update (parameters times batch) above which stacking gains nothing over a second core."""

_SOME_COLUMNS = (8,)


def plan_blocks(task: TaskSpec, sites: Sequence[str], cohort: int) -> list[Block]:
    """The blocks of sites, in order. cohort: the sites that one call asks at most."""
    ordered = sorted(sites)
    if not stacks(task):
        return [(site,) for site in ordered]
    count = -(-cohort // STACK)
    cuts = [round(i * len(ordered) / count) for i in range(count + 1)]
    return [tuple(ordered[first:last]) for first, last in itertools.pairwise(cuts) if last > first]


def stacks(task: TaskSpec) -> bool:
    """Whether a task's sites are trained together: its model is small, can be, and none is timed alone or masked."""
    if task.engine.batched == "off" or task.federation.deadline is not None or task.privacy.aggregation != "clear":
        return False
    if task.engine.device != "cpu":  # what is stacked depends on no machine
        return False
    try:
        network = build_network(task.model, shape := task.model.input_size or _SOME_COLUMNS, 1, task.seed)
    except UserError:
        return False
    batch = task.federation.batch_size
    rows = 256 if batch == "full" else batch
    return network.size * rows <= SMALL and can_stack(network, task, shape)


def workers_for(task: TaskSpec, blocks: int) -> int:
    """The number of processes: the task's, or one a core; never more than stores, and one where none can be forked."""
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        return 1
    wanted = _cores() if task.engine.workers == "auto" else task.engine.workers
    return max(1, min(wanted, blocks, STORES))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(blocks: Sequence[Block], rows: Mapping[str, int], workers: int) -> list[list[Block]]:
    """The blocks of each worker: the largest first, each to the worker with the fewest rows so far.

    Blocks of one store stay together. A site of unknown size counts as the mean of the known ones. Workers are in the
    order of their first sites.
    """
    mean = max(sum(rows.values()) / max(len(rows), 1), 1)
    together = [tuple(blocks[store::STORES]) for store in range(min(STORES, len(blocks)))]
    sizes = {some: sum(rows.get(site, mean) for block in some for site in block) for some in together}
    homes: list[list[Block]] = [[] for _ in range(workers)]
    heap = [(0.0, worker) for worker in range(workers)]
    for some in sorted(together, key=lambda some: (-sizes[some], some)):
        load, worker = heapq.heappop(heap)
        homes[worker] += some
        heapq.heappush(heap, (load + sizes[some], worker))
    return sorted(sorted(home) for home in homes)
