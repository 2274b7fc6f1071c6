"""Runs that begin from given weights, or from an earlier run's model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import medfed
from medfed.core.errors import DataError, Refused, TaskError, UserError
from medfed.engine.process import Process
from medfed.govern.keys import SigningKey
from medfed.govern.proposals import Proposal, check_proposal
from medfed.spec.loading import task_of

Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def sites(classes: int = 2, columns: int = 3) -> dict[str, Rows]:
    found = {}
    for number, site in enumerate(("ashford", "birch")):
        rng = np.random.default_rng([5, number])
        features = rng.normal(0.3 * number, 1, size=(60, columns)).astype(np.float32)
        found[site] = features, np.digitize(features[:, 0], [-0.5, 0.5][: classes - 1])
    return found


def task(model: dict[str, Any] | None = None, classes: int = 2, **federation: Any) -> dict[str, Any]:
    return {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": [4]} | (model or {}),
        "federation": {"strategy": "fedavg", "rounds": 2, "lr": 0.1, **federation},
        "data": {"label": {"column": "y", "classes": list(range(classes))}},
        "seed": 3,
    }


def weights_file(path: Path, **changed: Any) -> dict[str, Any]:
    """A file of the task's network, and what a task says of it."""
    draw = np.random.default_rng(0)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)}
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | changed
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def in_order(path: Path) -> np.ndarray[Any, Any]:
    tensors = load_file(path)
    return np.concatenate([tensors[name].ravel() for name in ("0.weight", "0.bias", "2.weight", "2.bias")])


def first_weights(model: dict[str, Any]) -> np.ndarray[Any, Any]:
    process = medfed.build(task(model), sites())
    return process.weights(process.initialize())[""]


def test_a_run_begins_from_the_weights_of_a_file(tmp_path: Path) -> None:
    told = weights_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(first_weights({"pretrained": told}), in_order(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("told", [{"head": "new"}, {"fresh": ["2"]}, {"fresh": [2]}, {"fresh": ["2.*"]}])
def test_a_new_head_starts_as_without_the_file(tmp_path: Path, told: dict[str, Any]) -> None:
    file = weights_file(tmp_path / "w.safetensors", **{"2.weight": np.ones((5, 4), np.float32), "2.bias": None})
    found, tensors = first_weights({"pretrained": file | told}), load_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(found[:16], np.concatenate([tensors["0.weight"].ravel(), tensors["0.bias"]]))
    np.testing.assert_array_equal(found[16:], first_weights({})[16:])


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    wrong = {"2.weight": np.ones((5, 4), np.float32), "2.bias": None, "extra": np.ones(2, np.float32)}
    told = weights_file(tmp_path / "w.safetensors", **wrong)
    with pytest.raises(UserError, match=r"2.weight is \[5, 4\] in the file, and \[1, 4\] here") as caught:
        first_weights({"pretrained": told})
    assert "2.bias is not in the file" in caught.value.cause
    assert "extra is [2] in the file, and not here" in caught.value.cause
    assert "head: new" in caught.value.remedy


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    told = weights_file(tmp_path / "w.safetensors", **{"0.bias": np.full(4, np.nan, np.float32)})
    with pytest.raises(UserError, match=r"numbers in 0\.bias that are not finite"):
        first_weights({"pretrained": told})


def test_a_path_alone_is_answered_with_the_digest(tmp_path: Path) -> None:
    told = weights_file(tmp_path / "w.safetensors")
    with pytest.raises(TaskError, match="named with the SHA-256") as caught:
        first_weights({"pretrained": told["path"]})
    assert told["sha256"] in caught.value.remedy
    assert "model.pretrained" in caught.value.where


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"path": "absent.safetensors", "sha256": "0" * 64}, "cannot be read"),
        ({"sha256": "0" * 64}, "names no weights"),
        ({"head": "new"}, "names no weights"),
        ({"path": "a", "run": "b"}, "both given"),
        ({"run": "absent"}, "(?s)no finished run.*remedy: name a run's folder"),
    ],
)
def test_what_names_no_weights_is_refused(told: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        first_weights({"pretrained": told})


def test_another_file_than_the_digest_says_is_refused(tmp_path: Path) -> None:
    told = weights_file(tmp_path / "w.safetensors") | {"sha256": "0" * 64}
    with pytest.raises(TaskError, match="other than the task says"):
        medfed.check(task({"pretrained": told}))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"0.weight": torch.ones(4, 3)}, path)
    told = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with pytest.raises(UserError, match="not a safetensors file"):
        first_weights({"pretrained": told})


def test_the_run_keeps_the_digest_and_no_path(tmp_path: Path) -> None:
    told = weights_file(tmp_path / "w.safetensors")
    medfed.run(task({"pretrained": told}), sites(), output=tmp_path / "run")
    written = (tmp_path / "run" / "task.yaml").read_text()
    assert told["sha256"] in written
    assert "w.safetensors" not in written
    assert json.loads((tmp_path / "run" / "results.json").read_text())["start"]["sha256"] == told["sha256"]
    assert told["sha256"] in (tmp_path / "run" / "model_card.md").read_text()


def test_a_run_goes_on_though_the_file_is_gone(tmp_path: Path) -> None:
    told = weights_file(tmp_path / "w.safetensors")
    whole = medfed.run(task({"pretrained": told}), sites(), output=tmp_path / "whole")

    class Killed:
        def begun(self, process: Process, state: Any) -> None:
            raise KeyboardInterrupt

        def advanced(self, state: Any, metrics: Any) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        medfed.run(task({"pretrained": told}), sites(), output=tmp_path / "cut", observer=Killed())
    Path(told["path"]).unlink()
    resumed = medfed.resume(tmp_path / "cut", sites())
    assert resumed.value("loss") == whole.value("loss")


def test_a_site_takes_no_task_with_a_path(tmp_path: Path) -> None:
    key, told = SigningKey.generate(), weights_file(tmp_path / "w.safetensors")
    about = {"purpose": "p", "legal_basis": "l", "ethics_id": "e", "ethics_expires": "2999-12-31"}
    with_path = Proposal.sign(key, task_of(task({"pretrained": told})).spec, [], **about)
    with pytest.raises(Refused, match="opens no file for a coordinator"):
        check_proposal(with_path, key.verify_key)
    digest_alone = task_of(task({"pretrained": {"sha256": told["sha256"]}})).spec
    check_proposal(Proposal.sign(key, digest_alone, [], **about), key.verify_key)


# ------------------------------------------------------------------------------------------------- an earlier run


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier") / "run"
    medfed.run(task(), sites(), output=folder)
    return folder


def later_sites() -> dict[str, Rows]:
    """The same hospitals' rows, with another mean and scale."""
    return {site: (2 * features + 1, labels) for site, (features, labels) in sites().items()}


def test_training_goes_on_from_the_model_and_the_encoding_of_an_earlier_run(earlier: Path) -> None:
    process = medfed.build(task({"pretrained": {"run": str(earlier)}}), later_sites())
    state = process.initialize()
    np.testing.assert_array_equal(process.weights(state)[""], in_order(earlier / "model.safetensors"))
    before, afresh = (medfed.build(task(), rows).initialize().lanes[0].encoding for rows in (sites(), later_sites()))
    np.testing.assert_array_equal(state.lanes[0].encoding.mean, before.mean)
    assert not np.array_equal(afresh.mean, before.mean)


def test_the_model_card_names_the_run_that_it_goes_on_from(earlier: Path, tmp_path: Path) -> None:
    medfed.run(task({"pretrained": {"run": str(earlier)}}), later_sites(), output=tmp_path / "next")
    card = (tmp_path / "next" / "model_card.md").read_text()
    assert json.loads((earlier / "results.json").read_text())["run"] in card
    assert hashlib.sha256((earlier / "model.safetensors").read_bytes()).hexdigest() in card


def test_other_columns_and_classes_are_refused(earlier: Path) -> None:
    began = {"pretrained": {"run": str(earlier)}}
    with pytest.raises(DataError, match="other columns"):
        medfed.build(task(began), sites(columns=4)).initialize()
    with pytest.raises(DataError, match="other classes") as caught:
        medfed.build(task(began, classes=3), sites(classes=3)).initialize()
    assert "head: new" in caught.value.remedy
    with pytest.raises(TaskError, match=r"another `data\.standardize`"):
        medfed.build(task(began) | {"data": {"standardize": "site"}}, sites())


def test_a_new_head_goes_on_with_other_classes(earlier: Path) -> None:
    began = {"pretrained": {"run": str(earlier), "head": "new"}}
    process = medfed.build(task(began, classes=3), sites(classes=3))
    state = process.initialize()
    assert state.lanes[0].encoding.classes == ("0", "1", "2")
    np.testing.assert_array_equal(process.weights(state)[""][:16], in_order(earlier / "model.safetensors")[:16])


def test_a_run_of_many_models_is_no_start(tmp_path: Path) -> None:
    medfed.run(task(strategy="local"), sites(), output=tmp_path / "local")
    with pytest.raises(TaskError, match="each site has a model of its own"):
        first_weights({"pretrained": {"run": str(tmp_path / "local")}})
