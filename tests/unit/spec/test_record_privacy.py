"""What ``privacy.record`` says, and what it excludes; each refusal with its line and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfed.core.errors import TaskError
from medfed.spec.loading import load_task

HEAD = """\
task_type: classification
model: logistic
federation:
  strategy: fedavg
"""
RECORD = "privacy: {record: {epsilon: 3}}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "task.yaml"
    path.write_text(text)
    return path


def test_its_defaults(tmp_path: Path) -> None:
    record = load_task(written(tmp_path, HEAD + RECORD)).spec.privacy.record
    assert record is not None
    assert (record.epsilon, record.delta, record.clip_norm, record.noise_multiplier) == (3.0, 1e-5, 1.0, None)
    assert load_task(written(tmp_path, HEAD)).spec.privacy.record is None


@pytest.mark.parametrize(
    "setting", ["momentum: 0.9", "optimizer: adam", "batch_size: full", "class_weights: [1, 3]", "weight_decay: 0.1"]
)
def test_what_an_optimizer_makes_of_private_gradients_is_free(tmp_path: Path, setting: str) -> None:
    assert load_task(written(tmp_path, f"{HEAD}  {setting}\n{RECORD}")).spec.privacy.record is not None


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("class_weights: balanced", "balanced"),
        ("precision: bfloat16", "float32"),
        ("clip_norm: 2.0", "remove `federation.clip_norm`"),
    ],
)
def test_what_it_excludes_is_fine_without_it(tmp_path: Path, setting: str, told: str) -> None:
    load_task(written(tmp_path, f"{HEAD}  {setting}\n"))
    with pytest.raises(TaskError, match=told) as refused:
        load_task(written(tmp_path, f"{HEAD}  {setting}\n{RECORD}"))
    assert "task.yaml:5" in str(refused.value) and "privacy.record" in str(refused.value)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("{epsilon: 3, noise_multiplier: 1}", "both given"),
        ("{delta: 1e-6}", "neither"),
        ("{epsilon: 0}", "epsilon"),
        ("{epsilon: 10000}", "epsilon"),
        ("{noise_multiplier: 0}", "noise_multiplier"),
        ("{epsilon: 1, delta: 0}", "delta"),
        ("{epsilon: 1, delta: 1}", "delta"),
        ("{epsilon: 1, clip_norm: 0}", "clip_norm"),
        ("{epsilon: 1, sigma: 2}", "sigma"),
    ],
)
def test_a_wrong_section_is_refused_at_its_line(tmp_path: Path, record: str, told: str) -> None:
    with pytest.raises(TaskError, match=told) as refused:
        load_task(written(tmp_path, f"{HEAD}privacy:\n  record: {record}\n"))
    assert "task.yaml:6" in str(refused.value)


def test_overrides_of_a_comparison_are_held_to_it_too(tmp_path: Path) -> None:
    compare = "compare: {strategies: [local, fedavg], overrides: {local: {clip_norm: 1.0}}}\n"
    load_task(written(tmp_path, HEAD + compare))
    with pytest.raises(TaskError, match="clips each row's gradient already"):
        load_task(written(tmp_path, HEAD + RECORD + compare))
