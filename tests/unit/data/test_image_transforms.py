"""The task's transforms are MONAI's or closed forms; what they give is kept by content; augmentation by seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfed.core.errors import DataError, TaskError
from medfed.core.rng import generator
from medfed.data.images.cache import PLACE, ImageCache
from medfed.data.images.loading import load_pictures
from medfed.data.images.transforms import Preparation, augmentation
from medfed.data.raw import Pictures
from medfed.models.catalogue import build_network
from medfed.models.stacked.eligibility import can_stack
from medfed.spec.images import ImageSpec
from medfed.spec.loading import task_of

pytest.importorskip("monai")

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 12, 10)).astype(np.float32)


def prepared(*transforms, image=IMAGE, **more):
    return Preparation(ImageSpec.model_validate({"transforms": list(transforms), **more}))(image, "North")


def test_area_resizing_by_a_whole_factor_is_the_mean_of_blocks():
    small = prepared({"name": "resize", "size": [6, 5]})
    np.testing.assert_allclose(small[0], IMAGE[0].reshape(6, 2, 5, 2).mean(axis=(1, 3)), rtol=1e-5)


def test_crop_takes_the_middle_and_pads_what_is_smaller():
    np.testing.assert_array_equal(prepared({"name": "crop", "size": [8, 6]})[0], IMAGE[0, 2:10, 2:8])
    padded = prepared({"name": "crop", "size": [14, 10]})
    np.testing.assert_array_equal(padded[0, 1:13], IMAGE[0])
    assert not padded[0, [0, 13]].any()


def test_scale_and_normalise_are_their_formulas():
    np.testing.assert_allclose(prepared({"name": "scale", "low": 50, "high": 150}), np.clip((IMAGE - 50) / 100, 0, 1))
    given = prepared({"name": "normalise", "by": "values", "mean": 100, "std": 20})
    np.testing.assert_allclose(given, (IMAGE - 100) / 20, rtol=1e-5)
    own = prepared({"name": "normalise", "by": "image"})
    np.testing.assert_allclose(own, (IMAGE - IMAGE.mean()) / IMAGE.std(), rtol=1e-3)


def test_volumes_are_resized_and_a_size_of_other_dimensions_is_refused():
    volume = np.ones((1, 4, 6, 8), np.float32)
    assert prepared({"name": "resize", "size": [2, 3, 4]}, image=volume).shape == (1, 2, 3, 4)
    with pytest.raises(DataError, match="size of 2 numbers, and the images have 3 dimensions"):
        prepared({"name": "resize", "size": [2, 3]}, image=volume)


def task(**images):
    return task_of(
        {
            "task_type": "classification",
            "model": "logistic",
            "federation": {"strategy": "fedavg"},
            "data": {"images": images},
        }
    ).spec


@pytest.mark.parametrize(
    ("transforms", "cause"),
    [
        ([{"name": "os.system"}], "names nothing that is known"),
        (["monai.transforms:Resize"], "names nothing that is known"),
        ([{"name": "resize", "size": [0, 4]}], "has a wrong 'size'"),
        ([{"name": "resize", "size": [4, 4], "spatial_size": 3}], "has a wrong 'spatial_size'"),
        (["normalise", {"name": "crop", "size": [4, 4]}], "only after all else"),
        ([{"name": "scale", "low": 3, "high": 1}], "`low` is not below `high`"),
    ],
)
def test_wrong_transforms_are_explained(transforms, cause):
    with pytest.raises(TaskError, match=cause):
        task(transforms=transforms)


class Counted:
    """A picture that counts how often it was decoded."""

    name = "a.png"

    def __init__(self, digest=b"d"):
        self.decoded, self._digest = 0, digest

    def digest(self):
        return self._digest

    def pixels(self):
        self.decoded += 1
        return IMAGE


def loaded(picture, **images):
    return load_pictures(Pictures((picture,)), ImageSpec.model_validate(images), "North").array


def test_what_was_prepared_is_kept_by_content_and_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv(PLACE, str(tmp_path / "cache"))
    small = {"transforms": [{"name": "resize", "size": [6, 5]}]}
    first = loaded(Counted(), **small)
    again = Counted()
    np.testing.assert_array_equal(loaded(again, **small), first)
    assert again.decoded == 0
    others = Counted(b"other"), Counted()
    loaded(others[0], **small)
    loaded(others[1], transforms=[{"name": "resize", "size": [5, 5]}])
    assert [each.decoded for each in others] == [1, 1]
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "cache").rglob("*.npy")} == {0}


def test_a_damaged_cache_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv(PLACE, str(tmp_path))
    first = loaded(Counted())
    (file,) = tmp_path.rglob("*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = Counted()
    np.testing.assert_array_equal(loaded(again), first)
    assert again.decoded == 1


def test_nothing_is_kept_unless_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(PLACE, raising=False)
    cache = ImageCache.from_environment(["x"])
    cache.put(b"d", IMAGE)
    assert cache.get(b"d") is None


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(PLACE, str(tmp_path / "file"))
    np.testing.assert_array_equal(loaded(Counted())[0], IMAGE)


LABELS = torch.arange(6)
AUGMENT = ["flip", {"name": "rotate", "degrees": 20}, "zoom", {"name": "noise", "std": 0.1}]


def test_augmentation_keeps_shapes_and_depends_on_the_seed_alone():
    images = ImageSpec.model_validate({"augment": AUGMENT})
    batch = torch.from_numpy(np.stack([IMAGE] * 6))

    def drawn(*names):
        return augmentation(images, generator(0, *names))(batch, LABELS)[0]

    one = drawn("North", 1, "augment")
    assert one.shape == batch.shape and one.dtype == torch.float32 and type(one) is torch.Tensor
    assert not torch.equal(one[0], one[1])
    assert torch.equal(one, drawn("North", 1, "augment"))
    assert not torch.equal(one, drawn("North", 2, "augment"))


def test_an_empty_batch_is_no_fault():
    images = ImageSpec.model_validate({"augment": AUGMENT})
    inputs, targets = augmentation(images, generator(0))(torch.empty(0, *IMAGE.shape), LABELS[:0])
    assert inputs.shape == (0, *IMAGE.shape) and targets.shape == (0,)


def test_an_axis_that_images_lack_is_refused_with_its_line():
    with pytest.raises(TaskError, match="there is no axis 2 among the 2"):
        task_of(
            {
                "task_type": "classification",
                "model": {"name": "cnn", "input_size": [1, 12, 10]},
                "federation": {"strategy": "fedavg"},
                "data": {"images": {"augment": [{"name": "flip", "axis": 2}]}},
            }
        )


def test_a_sure_flip_mirrors():
    images = ImageSpec.model_validate({"augment": [{"name": "flip", "axis": 1, "probability": 1}]})
    batch = torch.from_numpy(IMAGE[None])
    inputs, targets = augmentation(images, generator(0))(batch, LABELS[:1])
    assert torch.equal(inputs, batch.flip(3)) and torch.equal(targets, LABELS[:1])


def test_sites_that_augment_are_not_stacked():
    network = build_network(task().model, (1, 12, 10), 1, 0)
    assert can_stack(network, task(), (1, 12, 10))
    assert not can_stack(network, task(augment=["flip"]), (1, 12, 10))
