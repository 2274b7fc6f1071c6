"""Whole runs of segmentation: over four sites, by workers, resumed, masked, compared, and predicted from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.image_files import write_picture, write_slice

import medfed
import medfed.api
from medfed.core.errors import UserError
from medfed.engine.segmenting import segment
from medfed.engine.trained import TrainedModel

pytest.importorskip("monai")
EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes"

CLASSES = ["background", "left", "right"]


def task(**more):
    return {
        "task_type": "segmentation",
        "model": {"name": "unet", "input_size": [1, 16, 16], "channels": [4, 8], "units": 0},
        "federation": {"strategy": "fedavg", "rounds": 2, "optimizer": "adam", "lr": 0.02, "batch_size": 8},
        "data": {
            "label": {"column": "mask", "classes": CLASSES},
            "split": {"train": 0.5, "validation": 0, "test": 0.5},
        },
        "engine": {"workers": 1},
        "seed": 1,
        **more,
    }


def blocks(seed, shape=(16, 16), images=20):
    """A bright block in the left half, a brighter one in the right; now and then none."""
    draw = np.random.default_rng(seed)
    masks = np.zeros((images, *shape), np.uint8)
    half = shape[-1] // 2
    for number, mask in enumerate(masks[: images * 3 // 4]):
        for index in (1, 2):
            top = [int(a) for a in draw.integers(0, [side - 5 for side in (*shape[:-1], half)])]
            top[-1] += half * (index - 1)
            mask[tuple(slice(a, a + 5) for a in top)] = index if number % 5 else 0
    return (masks[:, None] + draw.normal(0, 0.2, (images, 1, *shape))).astype(np.float32), masks


def sites(**options):
    return {name: blocks(seed, **options) for seed, name in enumerate(("East", "North", "South", "West"))}


def model_bytes(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_run_reports_every_metric_and_keeps_to_the_gate(tmp_path):
    medfed.run(task(), sites=sites(), output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    federated = results["metrics"]["test"]["federated"]
    assert {"loss", "dice", "hausdorff95", "hausdorff", "dice_left", "hausdorff95_right"} <= set(federated)
    assert 0 < federated["dice"]["value"] <= 1 and federated["loss"]["n"] == sum(
        rows["test"] for rows in results["rows"].values()
    )
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Dice" in report and "Hausdorff distance, 95 %: left" in report
    assert results["roc"] == {}


def test_a_site_at_which_few_have_a_class_keeps_its_own_metrics_and_counts_in_the_sums(tmp_path):
    rare = sites()
    masks = rare["West"][1]
    masks[2:][masks[2:] == 2] = 0
    medfed.run(task(), sites=rare, output=tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]["train"]
    assert {measure["reason"] for name, measure in found["West"].items() if name != "loss"} == {"withheld"}
    assert "dice_left" not in found["West"] and found["West"]["loss"]["value"] > 0
    assert found["federated"]["dice"]["value"] is not None


class Interrupted(Exception):
    """What stops a run after its first round."""


class Stopping:
    """An observer that stops the run it watches."""

    def begun(self, process, state):
        pass

    def advanced(self, state, metrics):
        raise Interrupted


def test_any_number_of_workers_gives_the_same_bits_and_a_resumed_run_too(tmp_path):
    for workers in (1, 2):
        asked = task(engine={"workers": workers})
        medfed.run(asked, sites=sites(), output=tmp_path / f"run{workers}")
    with pytest.raises(Interrupted):
        medfed.run(task(), sites=sites(), output=tmp_path / "resumed", observer=Stopping())
    medfed.resume(tmp_path / "resumed", sites())
    assert len({model_bytes(tmp_path / name) for name in ("run1", "run2", "resumed")}) == 1
    found = [json.loads((tmp_path / name / "results.json").read_text())["metrics"] for name in ("run1", "resumed")]
    assert found[0] == found[1]


def test_sums_under_masks_give_the_same_metrics(tmp_path):
    medfed.run(task(), sites=sites(), output=tmp_path / "clear")
    medfed.run(task(privacy={"aggregation": "secure"}), sites=sites(), output=tmp_path / "secure")
    found = [
        json.loads((tmp_path / name / "results.json").read_text())["metrics"]["test"]["federated"]
        for name in ("clear", "secure")
    ]
    assert found[1]["dice"]["value"] == pytest.approx(found[0]["dice"]["value"], abs=0.02)
    assert found[1]["dice"]["n"] == found[0]["dice"]["n"]


def test_strategies_are_compared(tmp_path):
    medfed.compare(task(), sites=sites(), output=tmp_path / "all")
    found = {
        name: json.loads((tmp_path / "all" / name / "results.json").read_text())["metrics"]["test"]
        for name in ("local", "pooled", "fedavg")
    }
    assert all(metrics["federated"]["dice"]["value"] is not None for metrics in found.values())
    assert (tmp_path / "all" / "report.html").stat().st_size > 10_000


def test_volumes_are_segmented(tmp_path):
    asked = task(model={"name": "segresnet", "input_size": [1, 16, 16, 16], "filters": 4})
    asked["federation"] |= {"rounds": 1, "batch_size": 2}
    medfed.run(asked, sites=sites(shape=(16, 16, 16), images=12), output=tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]["train"]["federated"]
    assert np.isfinite(found["loss"]["value"])


def test_it_trains_under_differential_privacy(tmp_path):
    pytest.importorskip("dp_accounting")
    asked = task(privacy={"record": {"noise_multiplier": 1.0}})
    asked["federation"] |= {"rounds": 1, "local_updates": 1, "optimizer": "sgd"}
    medfed.run(asked, sites=sites(), output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["privacy"]["East"]["epsilon"] > 0


def folders(root):
    for seed, site in enumerate(("East", "North", "South")):
        images, masks = blocks(seed)
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            picture = np.kron((60 * image[0] + 60).clip(0, 255), np.ones((2, 2))).astype(np.uint8)
            write_picture(root / site / "images" / f"{number}.png", picture)
            write_picture(root / site / "masks" / f"{number}.png", np.kron(mask, np.ones((2, 2), np.uint8)))


def test_a_model_segments_new_pictures_in_their_own_pixels(tmp_path):
    folders(tmp_path / "data")
    asked = task()
    asked["federation"] |= {"rounds": 10}
    asked["data"] = asked["data"] | {
        "connector": {"name": "image_folder", "masks": "masks"},
        "images": {"transforms": [{"name": "resize", "size": [16, 16]}, "normalise"]},
    }
    medfed.run(asked, data=tmp_path / "data", output=tmp_path / "run")
    model = TrainedModel.load(tmp_path / "run")
    overlaps = []
    for number in range(10, 20):
        place = tmp_path / "data" / "East"
        image, truth = (np.asarray(Image.open(place / kind / f"{number}.png")) for kind in ("images", "masks"))
        found = segment(model, image[None])
        assert found.shape == (32, 32) and found.dtype == np.uint8
        if truth.any():
            overlaps.append(2 * ((found == truth) & (truth > 0)).sum() / ((found > 0).sum() + (truth > 0).sum()))
    assert np.mean(overlaps) > 0.7

    shutil.rmtree(tmp_path / "data" / "East" / "masks")
    (tmp_path / "data" / "East" / "masks").mkdir()
    scores = medfed.predict(tmp_path / "run", tmp_path / "data" / "East", masks=tmp_path / "found")
    shares = [f"share_{name}" for name in CLASSES]
    assert list(scores) == ["file", *shares, "reason"]
    np.testing.assert_allclose(scores[shares].sum(axis=1), 1)
    for name in scores["file"]:
        image = np.asarray(Image.open(tmp_path / "data" / "East" / name))
        written = np.asarray(Image.open(tmp_path / "found" / f"{name}.png"))
        np.testing.assert_array_equal(written, segment(model, image[None]))

    highdicom = pytest.importorskip("highdicom")
    placed = {"FrameOfReferenceUID": "1.2.9", "PixelSpacing": [0.5, 0.5], "SliceThickness": 2}
    write_slice(tmp_path / "new" / "deep" / "a.dcm", image.astype(np.uint16), place=0.0, **placed)
    write_slice(tmp_path / "new" / "b.dcm", image.astype(np.uint16), place=0.0)
    found = medfed.predict(tmp_path / "run", tmp_path / "new", masks=tmp_path / "objects").set_index("file")
    made = highdicom.seg.segread(tmp_path / "objects" / "deep" / "a.dcm.seg.dcm")
    assert [each.SegmentLabel for each in made.SegmentSequence] == list(CLASSES[1:])
    uid = made.get_source_image_uids()[0][-1]
    back = made.get_pixels_by_source_instance([uid], combine_segments=True)[0]
    np.testing.assert_array_equal(back, segment(model, image[None].astype(np.uint16)))
    assert "lacks an element" in found.loc["b.dcm", "reason"] and found.loc["b.dcm", shares].notna().all()
    with pytest.raises(UserError, match="no attack here is one on masks"):
        medfed.api.audit(tmp_path / "run")


@pytest.mark.slow
def test_the_example_reaches_a_dice_of_095_over_its_four_clinics(tmp_path):
    subprocess.run([sys.executable, EXAMPLE / "make_data.py", tmp_path / "data"], check=True)
    outcome = medfed.run(EXAMPLE / "task.yaml", data=tmp_path / "data", output=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["Hill", "Lake", "Shore", "Town"]
    for metric in ("dice", "dice_disc", "dice_square"):
        assert outcome.value(metric) >= 0.95
    assert outcome.value("hausdorff95") < 5
