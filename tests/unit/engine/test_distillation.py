"""Students that learn from a teacher: the loss, whole runs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import medfed
from medfed.core.errors import Refused, RunFolderError, TaskError, UserError
from medfed.govern.keys import SigningKey
from medfed.govern.proposals import Proposal, check_proposal
from medfed.models.distillation import softened_divergence
from medfed.report.card import write_model_card
from medfed.spec.loading import task_of

COLUMNS, HIDDEN = 3, 8
Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def sites(classes: int = 2, rows: int = 50, columns: int = COLUMNS) -> dict[str, Rows]:
    found = {}
    for number, site in enumerate(("ashford", "birch", "cedar")):
        rng = np.random.default_rng([5, number])
        features = rng.normal(0.3 * number, 1, size=(rows + 10 * number, columns)).astype(np.float32)
        found[site] = features, np.digitize(features[:, 0], [-0.5, 0.5][: classes - 1])
    return found


def task(hidden: list[int], classes: int = 2, **federation: Any) -> dict[str, Any]:
    further = {name: federation.pop(name) for name in ("privacy", "engine", "data", "evaluation") if name in federation}
    settings = {"strategy": "fedavg", "rounds": 2, "local_updates": 2, "batch_size": "full", "lr": 0.2}
    return {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": hidden},
        "federation": settings | federation,
        "data": {"label": {"column": "y", "classes": list(range(classes))}, "standardize": "none"},
        "seed": 3,
    } | further


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A finished run for two classes, and one for three."""
    found = {}
    for classes in (2, 3):
        found[classes] = tmp_path_factory.mktemp("teacher") / "run"
        medfed.run(task([HIDDEN], classes, rounds=10), sites(classes), output=found[classes])
    return found


def distilled(teacher: Path, alpha: float = 0.7, temperature: float = 3.0) -> dict[str, Any]:
    return {"teacher": {"run": str(teacher)}, "alpha": alpha, "temperature": temperature}


def trained(folder: Path, given: dict[str, Any], rows: dict[str, Rows]) -> dict[str, np.ndarray[Any, Any]]:
    medfed.run(given, rows, output=folder)
    return load_file(folder / "model.safetensors")


def same(left: dict[str, np.ndarray[Any, Any]], right: dict[str, np.ndarray[Any, Any]]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_of_two_classes_is_that_of_their_probabilities(temperature: float) -> None:
    z, v = np.array([0.3, -2.0, 5.0]), np.array([1.0, -1.0, 0.5])
    p, q = (1 / (1 + np.exp(-each / temperature)) for each in (z, v))
    expected = temperature**2 * np.mean(q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))
    found = softened_divergence(torch.tensor(z)[:, None], torch.tensor(v)[:, None], temperature)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_of_three_classes_is_that_of_their_probabilities(temperature: float) -> None:
    z, v = np.random.default_rng(1).normal(size=(2, 5, 3))
    p, q = (np.exp(each / temperature) / np.exp(each / temperature).sum(1, keepdims=True) for each in (z, v))
    expected = temperature**2 * np.mean((q * np.log(q / p)).sum(1))
    assert softened_divergence(torch.tensor(z), torch.tensor(v), temperature).item() == pytest.approx(expected)


def test_the_gradient_hardly_depends_on_a_high_temperature() -> None:
    """Hinton et al. 2015, equation 4: with T² it tends to (z − v) / N for logits of mean zero."""
    z = torch.tensor([[1.0, -0.5, -0.5]], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([[-1.0, 2.0, -1.0]], dtype=torch.float64)
    softened_divergence(z, v, 1e4).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    np.testing.assert_allclose(z.grad.numpy(), (z - v).detach().numpy() / 3, rtol=1e-3)


def module(tensors: dict[str, np.ndarray[Any, Any]]) -> nn.Sequential:
    hidden, columns = tensors["0.weight"].shape
    found = nn.Sequential(nn.Linear(columns, hidden), nn.ReLU(), nn.Linear(hidden, tensors["2.weight"].shape[0]))
    found.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()})
    return found


def by_hand(
    start: nn.Sequential, teacher: nn.Sequential, rows: Rows, alpha: float, t: float, lr: float
) -> nn.Sequential:
    """Two full-batch steps, with probabilities and logarithms written out."""
    student = module({name: tensor.numpy() for name, tensor in start.state_dict().items()})
    features, labels = torch.from_numpy(rows[0]), torch.from_numpy(rows[1])

    def both(outputs: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.zeros_like(outputs), outputs), 1) if outputs.shape[1] == 1 else outputs

    for _ in range(2):
        z, v = both(student(features)), both(teacher(features)).detach()
        p, q = (z / t).softmax(1), (v / t).softmax(1)
        hard = -z.softmax(1)[torch.arange(len(labels)), labels].log().mean()
        loss = alpha * t**2 * (q * (q / p).log()).sum(1).mean() + (1 - alpha) * hard
        student.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in student.parameters():
                assert parameter.grad is not None
                parameter.sub_(lr * parameter.grad)
    return student


@pytest.mark.parametrize("classes", [2, 3])
def test_a_round_is_that_of_a_second_implementation(tmp_path: Path, teachers: dict[int, Path], classes: int) -> None:
    everything = {"label": {"column": "y", "classes": list(range(classes))}, "standardize": "none"}
    everything["split"] = {"train": 1.0, "validation": 0.0, "test": 0.0}
    settings = {"rounds": 1, "data": everything}
    teacher_task = task([HIDDEN], classes) | {"data": everything}
    medfed.run(teacher_task, sites(classes), output=tmp_path / "teacher")
    given = task([2], classes, **settings, distillation=distilled(tmp_path / "teacher"))
    found = trained(tmp_path / "student", given, sites(classes))
    process = medfed.build(task([2], classes, **settings), sites(classes))
    vector = process.weights(process.initialize())[""]
    start = module({name: np.zeros_like(tensor) for name, tensor in found.items()})
    nn.utils.vector_to_parameters(torch.from_numpy(vector), start.parameters())
    teacher = module(load_file(tmp_path / "teacher" / "model.safetensors"))
    rows = sites(classes)
    total = sum(len(labels) for _, labels in rows.values())
    expected = {name: np.zeros_like(tensor, dtype=np.float64) for name, tensor in found.items()}
    for each in rows.values():
        for name, tensor in by_hand(start, teacher, each, 0.7, 3.0, 0.2).state_dict().items():
            expected[name] += tensor.numpy() * len(each[1]) / total
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-4, atol=1e-6)


def test_without_weight_the_teacher_changes_no_bit(tmp_path: Path, teachers: dict[int, Path]) -> None:
    given = task([2], distillation=distilled(teachers[2], alpha=0.0), engine={"batched": "off"})
    plain = trained(tmp_path / "plain", task([2], engine={"batched": "off"}), sites())
    assert same(trained(tmp_path / "distilled", given, sites()), plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "fedprox"},
        {"strategy": "scaffold"},
        {"strategy": "fedadam"},
        {"strategy": "ditto"},
        {"strategy": "local"},
        {"strategy": "pooled"},
        {"compression": "int8"},
        {"fine_tune": {"epochs": 1}},
        {"class_weights": "balanced", "batch_size": 16},
        {"cohort": 2},
    ],
    ids=str,
)
def test_a_teacher_changes_training_under_every_strategy(
    tmp_path: Path, teachers: dict[int, Path], settings: dict[str, Any]
) -> None:
    plain = medfed.build(task([2], **settings), sites())
    taught = medfed.build(task([2], **settings, distillation=distilled(teachers[2], alpha=1.0)), sites())
    (a, _), (b, _) = plain.next(plain.initialize()), taught.next(taught.initialize())
    assert all(not np.allclose(w, taught.weights(b)[lane], atol=1e-4) for lane, w in plain.weights(a).items())


def test_workers_and_an_interruption_change_no_bit(tmp_path: Path, teachers: dict[int, Path]) -> None:
    def given(workers: int) -> dict[str, Any]:
        taught = distilled(teachers[2])
        return task([2], rounds=3, batch_size=16, distillation=taught, engine={"workers": workers})

    whole = trained(tmp_path / "whole", given(1), sites())
    assert same(trained(tmp_path / "spread", given(2), sites()), whole)

    class Interrupting:
        def begun(self, process: Any, state: Any) -> None:
            pass

        def advanced(self, state: Any, metrics: Any) -> None:
            if state.round == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medfed.run(given(1), sites(), output=tmp_path / "broken", observer=Interrupting())
    medfed.resume(tmp_path / "broken", sites())
    assert same(load_file(tmp_path / "broken" / "model.safetensors"), whole)


def test_totals_under_masks_are_those_in_the_clear(tmp_path: Path, teachers: dict[int, Path]) -> None:
    given = task([2], distillation=distilled(teachers[2]))
    clear = trained(tmp_path / "clear", given, sites())
    masked = trained(tmp_path / "masked", given | {"privacy": {"aggregation": "secure"}}, sites())
    for name in clear:
        np.testing.assert_allclose(masked[name], clear[name], atol=1e-5)


def test_the_record_and_the_sites_name_a_digest_and_no_path(tmp_path: Path, teachers: dict[int, Path]) -> None:
    medfed.run(task([2], distillation=distilled(teachers[2])), sites(), output=tmp_path / "run")
    earlier = json.loads((teachers[2] / "results.json").read_text())["run"]
    found = json.loads((tmp_path / "run" / "results.json").read_text())["teacher"]
    assert found["run"] == earlier and found["model"] == "mlp"
    assert str(teachers[2]) not in (tmp_path / "run" / "task.yaml").read_text()
    card = write_model_card(tmp_path / "run").read_text()
    assert earlier in (tmp_path / "run" / "report.html").read_text()
    assert earlier in card and found["sha256"] in card
    with pytest.raises(UserError, match="learnt from a teacher"):
        medfed.audit(tmp_path / "run", sites())


def test_a_teacher_that_was_changed_after_the_start_is_refused(tmp_path: Path, teachers: dict[int, Path]) -> None:
    class Stopping:
        def begun(self, process: Any, state: Any) -> None:
            raise KeyboardInterrupt

        def advanced(self, state: Any, metrics: Any) -> None:
            pass

    given = task([2], distillation=distilled(teachers[2]))
    with pytest.raises(KeyboardInterrupt):
        medfed.run(given, sites(), output=tmp_path / "run", observer=Stopping())
    for state in (tmp_path / "run" / "checkpoint").iterdir():
        state.unlink()
    copy = tmp_path / "run" / "teacher" / "model.safetensors"
    copy.write_bytes(copy.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(RunFolderError, match="were changed"):
        medfed.resume(tmp_path / "run", sites())


def test_a_teacher_of_other_rows_is_refused_with_the_cause(tmp_path: Path, teachers: dict[int, Path]) -> None:
    taught = distilled(teachers[2])
    with pytest.raises(UserError, match="other classes"):
        medfed.run(task([2], 3, distillation=taught), sites(3), output=tmp_path / "classes")
    with pytest.raises(UserError, match="other columns"):
        medfed.run(task([2], distillation=taught), sites(columns=4), output=tmp_path / "columns")
    other = task([2], distillation=taught)
    other["data"] = other["data"] | {"standardize": "federated"}
    with pytest.raises(TaskError, match=r"another `data\.standardize`"):
        medfed.check(other)
    shaped = task([2], distillation=taught)
    shaped["model"] = shaped["model"] | {"input_size": [4]}
    with pytest.raises(TaskError, match="takes inputs of the shape"):
        medfed.check(shaped)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"privacy": {"record": {"epsilon": 3.0}}}, "loss of `privacy.record`"),
        ({"privacy": {"labels": {"epsilon": 3.0}}}, "loss of `privacy.labels`"),
        ({"task_type": "regression", "model": "linear", "data": {"label": "y"}}, "this is a regression"),
    ],
)
def test_what_it_does_not_go_with_is_refused(teachers: dict[int, Path], changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        medfed.check(task([2], distillation=distilled(teachers[2])) | changed)


def test_a_task_without_a_finished_teacher_is_refused(teachers: dict[int, Path]) -> None:
    with pytest.raises(TaskError, match="names no finished run"):
        medfed.check(task([2], distillation={"teacher": {}}))
    with pytest.raises(TaskError, match="no finished run"):
        medfed.check(task([2], distillation={"teacher": "absent"}))
    with pytest.raises(TaskError, match="computed as a whole"):
        medfed.check(task([2], accumulate=2, distillation=distilled(teachers[2])))


def test_a_proposal_that_names_a_path_is_refused(teachers: dict[int, Path]) -> None:
    key, about = SigningKey.generate(), {"purpose": "a", "legal_basis": "b", "ethics_id": "c"}
    about["ethics_expires"] = "2999-12-31"
    with_path = task_of(task([2], distillation=distilled(teachers[2]))).spec
    with pytest.raises(Refused, match="opens no file for a coordinator"):
        check_proposal(Proposal.sign(key, with_path, [], **about), key.verify_key)
    resolved = medfed.check(task([2], distillation=distilled(teachers[2]))).task.spec
    check_proposal(Proposal.sign(key, resolved, [], **about), key.verify_key)


def test_a_comparison_sets_a_student_beside_the_same_without_a_teacher(
    tmp_path: Path, teachers: dict[int, Path]
) -> None:
    given = task([2], distillation=distilled(teachers[2]))
    plain = {"strategy": "fedavg", "distillation": None}
    given["compare"] = {"strategies": ["fedavg", "plain"], "overrides": {"plain": plain}}
    medfed.compare(given, sites(), output=tmp_path / "both")
    told = [json.loads((tmp_path / "both" / name / "results.json").read_text()) for name in ("fedavg", "plain")]
    assert [each["teacher"] is None for each in told] == [False, True]
    given["compare"]["overrides"]["plain"] = {"strategy": "fedavg", "distillation": distilled(teachers[3])}
    with pytest.raises(TaskError, match="have the task's teacher, or none"):
        medfed.check(given)


@pytest.mark.parametrize("augment", [[], [{"name": "noise", "std": 0.1}]], ids=["once", "each batch"])
def test_images_are_answered_too(tmp_path: Path, augment: list[dict[str, Any]]) -> None:
    """A teacher of batch normalisation answers by its running statistics, whoever trains beside it."""
    rows = {}
    for number, site in enumerate(("ashford", "birch")):
        rng = np.random.default_rng([7, number])
        labels = np.arange(24) % 2
        rows[site] = (rng.normal(size=(24, 1, 8, 8)) + labels[:, None, None, None]).astype(np.float32), labels
    big = task([2], rounds=1)
    big["model"] = {"name": "cnn", "input_size": [1, 8, 8], "norm": "batch"}
    big["data"] = big["data"] | {"images": {"augment": augment}}
    medfed.run(big, rows, output=tmp_path / "teacher")
    given = task([2], rounds=1, distillation=distilled(tmp_path / "teacher", alpha=1.0))
    given["model"], given["data"] = {"name": "cnn", "input_size": [1, 8, 8]}, big["data"]
    first = trained(tmp_path / "student", given, rows)
    assert same(trained(tmp_path / "again", given, rows), first)


def uncertain(site: int, rows: int) -> Rows:
    """Labels drawn by a probability that two of eight columns tell: few of them show it badly."""
    rng = np.random.default_rng([11, site])
    features = rng.normal(size=(rows, 8)).astype(np.float32)
    chance = 1 / (1 + np.exp(-2 * features[:, 0] + features[:, 1]))
    return features, (rng.uniform(size=rows) < chance).astype(np.int64)


@pytest.mark.slow
def test_students_of_few_rows_are_better_with_a_teacher_of_many(tmp_path: Path) -> None:
    """On rows that none has seen, as a mean over four draws of the few rows."""
    training = {"rounds": 15, "local_updates": 5, "lr": 0.3, "evaluation": {"every": 15}}
    many = {f"site {k}": uncertain(k, 300) for k in range(4)}
    medfed.run(task([16], **training), many, output=tmp_path / "teacher")
    taught = task([4], **training, distillation=distilled(tmp_path / "teacher", alpha=0.9, temperature=2.0))
    features, labels = uncertain(500, 2000)

    def loss(given: dict[str, Any], draw: int) -> float:
        few = {f"small {k}": uncertain(1000 + 10 * draw + k, 20) for k in range(2)}
        name = "taught" if "distillation" in given["federation"] else "plain"
        outputs = module(trained(tmp_path / f"{name} {draw}", given, few))(torch.from_numpy(features)).squeeze(1)
        truth = torch.from_numpy(labels).float()
        return nn.functional.binary_cross_entropy_with_logits(outputs, truth).item()

    without = np.array([loss(task([4], **training), draw) for draw in range(4)])
    found = np.array([loss(taught, draw) for draw in range(4)])
    assert found.mean() < 0.9 * without.mean()
    assert (found < without).all()
