import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.spec.canonical import dump_task, task_digest
from medfed.spec.loading import load_task, task_of

TASK = {
    "name": "heart",
    "task_type": "classification",
    "model": {"name": "mlp", "hidden": [8, 4]},
    "federation": {
        "strategy": {"name": "fedprox", "mu": 0.1},
        "rounds": 15,
        "local_updates": 100,
        "lr": 1e-3,
    },
    "data": {
        "label": {"column": "num", "positive": [1, 2, 3, 4], "negative": [0]},
        "id": "patient",
        "columns": {
            "age": {"type": "continuous", "minimum": 0},
            "cp": {"type": "categorical", "levels": [1, "2"]},
        },
        "split": {"train": 0.66, "validation": 0.0, "test": 0.34, "seed": 43},
    },
    "sites": {"Cleveland": "cleveland.csv", "VA": {"data": "va.csv", "policy": "va.yaml"}},
    "compare": {"overrides": {"pooled": {"epochs": 50, "optimizer": "adam"}}},
}


def shuffled(value):
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return value


def reloaded(spec, folder):
    path = folder / "dumped.yaml"
    path.write_text(dump_task(spec))
    return load_task(path).spec


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert task_digest(task_of(shuffled(TASK)).spec) == task_digest(task_of(TASK).spec)


def test_short_forms_and_stated_defaults_have_the_same_digest():
    short = {"task_type": "regression", "model": "linear", "federation": {"strategy": "fedavg", "lr": 1}}
    long = short | {
        "model": {"name": "linear"},
        "federation": {"strategy": {"name": "fedavg"}, "lr": 1.0, "optimizer": "sgd", "deadline": None},
        "seed": 0,
    }
    assert task_digest(task_of(short).spec) == task_digest(task_of(long).spec)


def test_the_digest_is_sha256_of_the_sorted_json_of_what_is_dumped(tmp_path):
    from ruamel.yaml import YAML

    spec = task_of(TASK).spec
    content = YAML(typ="safe", pure=True).load(dump_task(spec))
    del content["engine"]["workers"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert task_digest(spec) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "override",
    ["name=other", "model.hidden=[4, 8]", "model.dropout=0.1", "federation.strategy.mu=0.2", "seed=1",
     "federation.rounds=16", "federation.lr=0.0010000000000000002", "federation.quorum=1", "data.id=mrn",
     "data.label.positive=[1]", 'data.columns.cp.levels=["1", "2"]', "data.split.seed=44",
     "sites.VA.data=x.csv", "evaluation.bins=100", "stop.tolerance=1e-6",
     "compare.overrides.pooled.epochs=51"],
)  # fmt: skip
def test_the_digest_changes_with_any_value(override):
    assert task_digest(task_of(TASK, [override]).spec) != task_digest(task_of(TASK).spec)


def test_the_dump_keeps_the_order_of_the_task(tmp_path):
    keys = [line.split(":")[0] for line in dump_task(task_of(TASK).spec).splitlines() if line[0].isalpha()]
    assert keys[:4] == ["name", "task_type", "model", "federation"]


def test_a_dumped_task_loads_as_the_same_task(tmp_path):
    spec = task_of(TASK).spec
    again = reloaded(spec, tmp_path)
    assert again == spec
    assert task_digest(again) == task_digest(spec)


FINITE = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.integers() | st.floats(allow_nan=False)
TRICKY = st.sampled_from(["no", "1e-3", "null", "~", "0o17", "1_000", "2020-01-01", "<<", "=", "a: b", " x ", "#", "-"])
OPTIONS = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | TRICKY, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dumps")


@settings(deadline=None)
@given(
    options=st.dictionaries((st.text(min_size=1) | TRICKY).filter(lambda k: k not in {"name"}), OPTIONS, max_size=3),
    markers=st.lists(st.text() | TRICKY, max_size=4),
    levels=st.lists(st.text() | TRICKY | FINITE, min_size=1, max_size=4, unique=True),
    lr=st.floats(min_value=5e-324, max_value=1e308),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_task_survives_dump_and_load(folder, options, markers, levels, lr, seed):
    given_task = {
        "task_type": "classification",
        "model": "mlp",
        "federation": {"strategy": {**options, "name": "fedavg"}, "lr": lr},
        "data": {
            "missing": {"markers": markers},
            "columns": {"c": {"type": "categorical", "levels": levels}},
        },
        "seed": seed,
    }
    spec = task_of(given_task).spec
    again = reloaded(spec, folder)
    assert again == spec
    assert task_digest(again) == task_digest(spec)


def test_how_many_workers_compute_it_is_not_a_part_of_what_is_approved():
    one, three = (task_of(TASK, [f"engine.workers={n}"]).spec for n in (1, 3))
    assert task_digest(one) == task_digest(three)
    assert task_digest(one) != task_digest(task_of(TASK, ["engine.batched=off"]).spec)
