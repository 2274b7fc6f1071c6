"""The example of transfer learning keeps its word: a public collection helps two clinics that have few pictures."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import medfed

EXAMPLE = Path(__file__).parents[2] / "examples" / "transfer_learning"
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_data.py", str(folder)])
        runpy.run_path(str(EXAMPLE / "make_data.py"))
    return folder


@pytest.mark.slow
def test_after_few_rounds_public_weights_do_better_than_fresh_ones_at_every_seed(data: Path) -> None:
    source = data.parent / "source"
    medfed.run(EXAMPLE / "source.yaml", data=data, output=source)

    def auc(name: str, seed: int, *settings: str) -> float:
        given = [f"seed={seed}", *settings]
        outcome = medfed.run(EXAMPLE / "target.yaml", data=data, output=data.parent / f"{name}-{seed}", overrides=given)
        value = outcome.value("auc")
        assert value is not None
        return value

    begun = f"model.pretrained={{run: {source}, head: new}}"
    fresh = [auc("fresh", seed) for seed in SEEDS]
    tuned = [auc("tuned", seed, begun) for seed in SEEDS]
    frozen = [auc("frozen", seed, begun, "model.freeze=[0]") for seed in SEEDS]
    assert all(more > less for more, less in zip(tuned, fresh, strict=True))
    assert all(more > less for more, less in zip(frozen, fresh, strict=True))
    assert np.mean(tuned) > np.mean(fresh) + 0.05
    assert np.mean(frozen) > np.mean(fresh) + 0.05
