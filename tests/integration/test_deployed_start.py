"""A deployed run that begins from given weights and trains a part of the network: no site opens a file for it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from consortium_in_memory import SITES, Consortium, MemoryCarrier, task_over
from safetensors.numpy import load_file, save_file

from medfed import api
from medfed.spec.canonical import resolved
from medfed.spec.loading import TaskFile, task_of


def task(sites: dict[str, str], weights: Path, aggregation: str) -> TaskFile:
    given = resolved(task_over(sites, aggregation).spec)
    start = {"path": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    return task_of(given | {"model": {"name": "mlp", "hidden": [4], "pretrained": start, "freeze": ["0"]}})


@pytest.mark.parametrize("aggregation", ["clear", "secure"])
def test_the_sites_get_digest_and_weights_and_no_path(tmp_path: Path, aggregation: str) -> None:
    consortium, weights, draw = Consortium.make(tmp_path), tmp_path / "public.safetensors", np.random.default_rng(0)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)}
    save_file({name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, weights)
    submission = consortium.submit(task(dict.fromkeys(SITES, "rows"), weights, aggregation))
    simulated = task({site: f"{site}.csv" for site in SITES}, weights, aggregation)
    outcome = api.run(simulated, data=consortium.root / "tables", output=consortium.root / "simulated")
    expected = load_file(outcome.folder.path / "model.safetensors")
    first = load_file(weights)["0.weight"]
    weights.unlink()
    consortium.approve(submission.proposal())
    carrier = MemoryCarrier(consortium.open_sites())
    consortium.conductor(submission, carrier).conduct()
    found = load_file(submission.folder / "model.safetensors")
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
    np.testing.assert_array_equal(found["0.weight"], first)
    assert not any(weights.name.encode() in content for _, _, content in carrier.spied)


def test_the_sites_get_a_teacher_and_no_path(tmp_path: Path) -> None:
    consortium, tables = Consortium.make(tmp_path), {site: f"{site}.csv" for site in SITES}
    teacher = tmp_path / "the-big-one"
    given = resolved(task_over(tables, "clear").spec)
    api.run(task_of(given | {"model": {"name": "mlp", "hidden": [8]}}), data=consortium.root / "tables", output=teacher)

    def taught(sites: dict[str, str]) -> TaskFile:
        asked = resolved(task_over(sites, "secure").spec)
        federation = asked["federation"] | {"distillation": {"teacher": {"run": str(teacher)}, "alpha": 0.9}}
        return task_of(asked | {"model": {"name": "mlp", "hidden": [2]}, "federation": federation})

    submission = consortium.submit(taught(dict.fromkeys(SITES, "rows")))
    outcome = api.run(taught(tables), data=consortium.root / "tables", output=consortium.root / "simulated")
    expected = load_file(outcome.folder.path / "model.safetensors")
    consortium.approve(submission.proposal())
    carrier = MemoryCarrier(consortium.open_sites())
    consortium.conductor(submission, carrier).conduct()
    found = load_file(submission.folder / "model.safetensors")
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
    assert not any(teacher.name.encode() in content for _, _, content in carrier.spied)
