from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.engine.blocks import SMALL, STACK, plan_blocks, spread, stacks, workers_for
from medfed.spec.loading import task_of
from medfed.spec.task import TaskSpec

NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), min_size=1, max_size=200, unique=True)


def task(model: Any = "logistic", engine: dict[str, Any] | None = None, **federation: Any) -> TaskSpec:
    settings = {"strategy": "fedavg", "rounds": 2, "local_updates": 2, "batch_size": 8, **federation}
    made = {"task_type": "classification", "model": model, "federation": settings, "engine": engine or {}}
    return task_of(made).spec


STACKED, ALONE = task(), task(engine={"batched": "off"})


@given(NAMES, st.data())
def test_every_site_is_in_one_block_and_blocks_are_runs_of_the_sorted_names(names: list[str], data: Any) -> None:
    cohort = data.draw(st.integers(1, len(names)))
    blocks = plan_blocks(STACKED, names, cohort)
    assert [site for block in blocks for site in block] == sorted(names)
    assert all(blocks)
    assert len(blocks) == -(-cohort // STACK)
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * cohort / len(names) <= STACK * (1 + len(blocks) / len(names))


@given(NAMES, st.integers(1, 200))
def test_unstacked_every_site_is_a_block(names: list[str], cohort: int) -> None:
    assert plan_blocks(ALONE, names, cohort) == [(site,) for site in sorted(names)]


@given(st.permutations([f"s{n}" for n in range(90)]), st.integers(1, 9) | st.just("auto"))
def test_a_plan_depends_on_the_names_alone(names: list[str], workers: Any) -> None:
    as_one = plan_blocks(STACKED, sorted(names), 90)
    assert plan_blocks(task(engine={"workers": workers}), names, 90) == as_one
    assert len(as_one) > 1


@pytest.mark.parametrize(
    ("named", "whether"),
    [
        (task(), True),
        (task({"name": "mlp", "hidden": [32, 16]}), True),
        (task({"name": "mlp", "hidden": [32], "dropout": 0.0}), True),
        (task({"name": "mlp", "hidden": [32], "dropout": 0.1}), False),
        (task({"name": "cnn", "input_size": [1, 8, 8]}), False),
        (task({"name": "resnet18", "input_size": [3, 32, 32]}), False),
        (task(engine={"batched": "off"}), False),
        (task(deadline=60.0), False),
        (task(precision="bfloat16"), False),
        (task(optimizer="adam", optimizer_state="kept"), False),
        (task(optimizer="adam"), True),
        (task(strategy="scaffold"), True),
        (task({"name": "mlp", "hidden": [1000], "input_size": [300]}, batch_size=4), False),
        (task({"name": "mlp", "hidden": [1000], "input_size": [300]}, batch_size=3), True),
        (task({"name": "mlp", "hidden": [100], "input_size": [100]}, batch_size="full"), False),
        (task({"name": "mlp", "hidden": [30], "input_size": [100]}, batch_size="full"), True),
    ],
)
def test_which_tasks_are_stacked(named: TaskSpec, whether: bool) -> None:
    assert stacks(named) is whether


def test_small_is_the_multiplications_of_one_update() -> None:
    size = 101 * 50 + 51
    inside, beyond = SMALL // size, SMALL // size + 1
    model = {"name": "mlp", "hidden": [50], "input_size": [100]}
    assert stacks(task(model, batch_size=inside))
    assert not stacks(task(model, batch_size=beyond))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60), st.integers(1, 8), st.data())
def test_spread_covers_all_and_is_balanced_within_the_largest_block(rows: list[int], workers: int, data: Any) -> None:
    sites = [f"s{n:02}" for n in range(len(rows))]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=len(rows))) | {0, len(rows)})
    blocks = [tuple(sites[a:b]) for a, b in itertools.pairwise(cuts)]
    sizes = dict(zip(sites, rows, strict=True))
    homes = spread(blocks, sizes, workers)
    assert len(homes) == workers
    assert sorted(block for home in homes for block in home) == sorted(blocks)
    assert homes == [sorted(home) for home in homes]
    loads = [sum(sizes[site] for block in home for site in block) for home in homes]
    largest = max(sum(sizes[site] for site in block) for block in blocks)
    assert max(loads) - min(loads) <= largest


def test_a_site_of_unknown_size_counts_as_the_mean() -> None:
    blocks = [("a",), ("b",), ("c",), ("d",)]
    assert spread(blocks, {"a": 30, "b": 10}, 2) == [[("a",), ("b",)], [("c",), ("d",)]]
    assert [len(home) for home in spread(blocks, {}, 2)] == [2, 2]


@pytest.mark.parametrize(("wanted", "blocks", "workers"), [(1, 9, 1), (3, 9, 3), (8, 2, 2), (4, 0, 1)])
def test_never_more_workers_than_blocks(wanted: int, blocks: int, workers: int) -> None:
    assert workers_for(task(engine={"workers": wanted}), blocks) == workers


def test_one_worker_a_core_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {1, 4, 5})
    assert workers_for(task(), 9) == 3


def test_one_process_where_none_can_be_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert workers_for(task(engine={"workers": 4}), 9) == 1
