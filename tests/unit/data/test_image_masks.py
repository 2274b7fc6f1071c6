"""Masks beside images: found, read as classes, and moved with their images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.data.image_files import grey, write_picture

from medfed.core.errors import DataError, TaskError
from medfed.core.rng import generator
from medfed.data.connectors import CONNECTORS
from medfed.data.images.cache import PLACE
from medfed.data.images.transforms import Preparation, augmentation
from medfed.data.table import load_table
from medfed.spec.images import ImageSpec
from medfed.spec.loading import task_of

pytest.importorskip("monai")

CLASSES = ["background", "disc", "square"]


def task(connector, *, classes=CLASSES, **images):
    return task_of(
        {
            "task_type": "segmentation",
            "model": {"name": "unet", "input_size": [1, 8, 8]},
            "federation": {"strategy": "fedavg"},
            "data": {"connector": connector, "label": {"column": "mask", "classes": classes}, "images": images},
        }
    ).spec


def table(spec, path):
    raw = CONNECTORS.get(spec.data.connector.name)(path, spec.data, "North")
    return load_table(spec.data, spec.task_type, "North", raw)


def mask(seed, side=8):
    return np.random.default_rng(seed).integers(0, 3, (side, side), dtype=np.uint8)


FOLDER = {"name": "image_folder", "masks": "masks"}


def pairs(root, count=4, side=8, images="images/"):
    for index in range(count):
        write_picture(root / f"{images}{index}.png", grey(index, side))
        write_picture(root / "masks" / f"{index}.png", mask(index, side))
    return root


def in_order(found):
    """The table's images and masks by the first pixel sum, since rows may be in any order."""
    return found.columns["image"], found.targets


@pytest.mark.parametrize("images", ["images/", ""])
def test_a_folder_of_masks_beside_the_images(tmp_path, images):
    found = table(task(FOLDER), pairs(tmp_path, images=images))
    pictures, masks = in_order(found)
    assert masks.dtype == np.uint8 and found.classes == tuple(CLASSES)
    for index in range(4):
        np.testing.assert_array_equal(pictures[index, 0], grey(index))
        np.testing.assert_array_equal(masks[index], mask(index))


def test_a_palette_and_the_numbers_that_classes_list(tmp_path):
    write_picture(tmp_path / "a.png", grey(0))
    (tmp_path / "masks").mkdir()
    palette = Image.fromarray(mask(0)).convert("P")
    palette.putpalette([0, 0, 0, 250, 10, 10, 10, 250, 10])
    palette.putdata(mask(0).ravel().tolist())
    palette.save(tmp_path / "masks" / "a.png")
    assert palette.mode == "P"
    np.testing.assert_array_equal(table(task(FOLDER), tmp_path).targets[0], mask(0))
    write_picture(tmp_path / "masks" / "a.png", (mask(0) > 0).astype(np.uint8) * 255)
    np.testing.assert_array_equal(table(task(FOLDER, classes=[0, 255]), tmp_path).targets[0], mask(0) > 0)


def test_arrays_in_an_archive(tmp_path):
    masks = np.stack([mask(index) for index in range(3)])
    images = np.stack([grey(index) for index in range(3)])
    np.savez(tmp_path / "a.npz", images=images, masks=masks)
    np.testing.assert_array_equal(table(task("npz"), tmp_path / "a.npz").targets, masks)
    parts = {
        f"{part}_{what}": array for part in ("train", "test") for what, array in (("images", images), ("masks", masks))
    }
    np.savez(tmp_path / "b.npz", **parts)
    assert len(table(task("npz"), tmp_path / "b.npz").targets) == 6
    del parts["test_masks"]
    np.savez(tmp_path / "c.npz", **parts, test_labels=np.arange(3))
    with pytest.raises(DataError, match="some parts have"):
        table(task("npz"), tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", images=images, masks=masks[:2])
    with pytest.raises(DataError, match="holds no masks of its images"):
        table(task("npz"), tmp_path / "d.npz")


def nifti(path, array, affine=None):
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


@pytest.mark.parametrize("flipped", [False, True])
def test_volumes_and_their_masks_lie_alike(tmp_path, flipped):
    volume = np.random.default_rng(0).integers(0, 3, (6, 5, 4), dtype=np.uint8)
    affine = np.diag([-1.0, 1, 1, 1]) if flipped else None
    nifti(tmp_path / "p1.nii.gz", volume.astype(np.float32), affine)
    nifti(tmp_path / "masks" / "p1.nii.gz", volume, affine)
    connector = {"name": "dicom", "read": "volumes", "masks": "masks"}
    found = table(task(connector), tmp_path)
    assert found.targets.shape == (1, 4, 5, 6)
    np.testing.assert_array_equal(found.columns["image"][0, 0], found.targets[0])


@pytest.mark.parametrize("name", ["dicom", "image_folder"])
def test_a_mask_that_lies_elsewhere_in_space_is_refused(tmp_path, name):
    volume = np.zeros((6, 5, 4), dtype=np.uint8)
    nifti(tmp_path / "p1.nii.gz", volume.astype(np.float32), np.diag([-2.0, 2, 3, 1]))
    connector = {"name": name, "masks": "masks"} | ({"read": "volumes"} if name == "dicom" else {})
    for affine, fits in ((np.diag([-2.0, 2, 3.00001, 1]), True), (np.diag([2.0, 2, 3, 1]), False)):
        nifti(tmp_path / "masks" / "p1.nii.gz", volume, affine)
        if fits:
            assert table(task(connector), tmp_path).targets.shape == (1, 4, 5, 6)
            continue
        with pytest.raises(DataError, match="lies elsewhere in space") as caught:
            table(task(connector), tmp_path)
        assert caught.value.where.endswith("file p1.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "cause", "file"),
    [
        (lambda root: (root / "masks" / "2.png").unlink(), "1 of 4 images have no mask", "images/2.png"),
        (lambda root: write_picture(root / "masks" / "2.png", mask(2, 9)), "another size.*9×9, and not 8×8", "2.png"),
        (lambda root: write_picture(root / "masks" / "2.png", mask(2) + 1), "numbers that are no class", "2.png"),
        (lambda root: write_picture(root / "masks" / "2.jpg", mask(2)), "", ""),
    ],
)
def test_a_mask_that_is_amiss_is_named_and_no_number_quoted(tmp_path, spoil, cause, file):
    """Where it is, is told apart from what is the matter, which alone leaves a site. Other files are passed over."""
    spoil(pairs(tmp_path))
    if not cause:
        assert len(table(task(FOLDER), tmp_path).targets) == 4
        return
    with pytest.raises(DataError, match=cause) as caught:
        table(task(FOLDER), tmp_path)
    assert caught.value.where.endswith(f"file {file}") and "North" in caught.value.where
    assert file not in caught.value.cause + caught.value.remedy


def test_a_mask_of_colours_or_without_a_folder_is_explained(tmp_path):
    pairs(tmp_path, 1)
    write_picture(tmp_path / "masks" / "0.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="its mask: a mask of colours"):
        table(task(FOLDER), tmp_path)
    with pytest.raises(DataError, match="there are no masks"):
        table(task("image_folder"), tmp_path)
    with pytest.raises(DataError, match="no folder of masks"):
        table(task({"name": "image_folder", "masks": "labels"}), tmp_path)
    with pytest.raises(DataError, match="not one below"):
        table(task({"name": "image_folder", "masks": "../elsewhere"}), tmp_path)
    with pytest.raises(TaskError):
        table(task({"name": "image_folder", "masks": 3}), tmp_path)


def test_two_masks_of_one_image_are_refused(tmp_path):
    pairs(tmp_path, 1)
    nifti(tmp_path / "masks" / "0.nii", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match="two masks are of one image"):
        table(task(FOLDER), tmp_path)


def test_the_cache_keeps_pairs_and_sees_another_mask(tmp_path, monkeypatch):
    monkeypatch.setenv(PLACE, str(tmp_path / "kept"))
    root = pairs(tmp_path / "data")
    first, again = table(task(FOLDER), root), table(task(FOLDER), root)
    np.testing.assert_array_equal(first.targets, again.targets)
    write_picture(root / "masks" / "1.png", mask(9))
    np.testing.assert_array_equal(table(task(FOLDER), root).targets[1], mask(9))


RESIZED = [{"name": "resize", "size": [12, 10]}, {"name": "crop", "size": [8, 14]}]


def test_masks_are_resized_and_cropped_with_their_images():
    """A mask made an image and prepared as one, by its nearest pixel, is the mask prepared as a mask."""
    truth = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((9, 8)))[None].astype(np.float32)
    nearest = [RESIZED[0] | {"mode": "bilinear"}, RESIZED[1], {"name": "scale", "low": 0, "high": 5}]
    preparation = Preparation(ImageSpec.model_validate({"transforms": nearest}))
    moved = preparation.of_mask(truth, "here")
    assert moved.shape == (1, 8, 14) and set(np.unique(moved)) == {0, 1, 2, 3, 4, 5, 6}
    image = preparation(truth, "here") * 5
    assert (np.abs(image - moved.clip(0, 5))[moved < 6] < 0.01).mean() > 0.6
    assert not moved[..., :2].any() and not moved[..., -2:].any()


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (11, 12)])
def test_what_was_resized_and_cropped_comes_back(size):
    """Blocks of one class in the source are found again, but at their edges and where they were cropped away."""
    spec = ImageSpec.model_validate(
        {"transforms": [{"name": "resize", "size": [16, 16]}, {"name": "crop", "size": size}]}
    )
    preparation = Preparation(spec)
    source = np.zeros((1, 24, 20), np.float32)
    source[0, 9:15, 6:14] = 1
    probabilities = np.concatenate([1 - preparation.of_mask(source, ""), preparation.of_mask(source, "")])
    back = preparation.restored(probabilities, (24, 20), "").argmax(0)
    assert back.shape == (24, 20)
    assert 2 * (back * source[0]).sum() / (back.sum() + source.sum()) > 0.9


@pytest.mark.parametrize("transforms", [[], [{"name": "normalise", "by": "image"}]])
def test_what_was_neither_resized_nor_cropped_comes_back_as_it_is(transforms):
    values = np.random.default_rng(0).random((2, 5, 4)).astype(np.float32)
    back = Preparation(ImageSpec.model_validate({"transforms": transforms})).restored(values, (5, 4), "")
    np.testing.assert_array_equal(back, values)


def test_a_crop_comes_back_to_the_very_pixel():
    for side, cut in ((5, 4), (4, 3), (4, 7), (5, 8)):
        preparation = Preparation(ImageSpec.model_validate({"transforms": [{"name": "crop", "size": [cut, cut]}]}))
        source = np.random.default_rng(0).random((2, side, side)).astype(np.float32)
        back = preparation.restored(preparation.of_mask(source, ""), (side, side), "")
        kept = back != np.array([1, 0])[:, None, None]
        np.testing.assert_array_equal(back[kept], source[kept])
        assert kept[0].sum() == min(side, cut) ** 2


AUGMENT = [
    {"name": "flip", "axis": 0},
    {"name": "flip", "axis": 1},
    {"name": "rotate", "degrees": 40, "probability": 1},
    {"name": "zoom", "low": 0.7, "high": 1.3, "probability": 1},
    {"name": "noise", "std": 0.0001},
]


def middle(images, axis):
    """The center of mass along an axis, in pixels."""
    places = torch.arange(images.shape[axis]).float()
    along = images.sum([other for other in range(1, images.dim()) if other != axis])
    return (along * places).sum(1) / along.sum(1)


@pytest.mark.parametrize("shape", [(48, 48), (24, 32, 32)])
def test_augmentation_moves_masks_with_their_images(shape):
    masks = torch.zeros(40, *shape, dtype=torch.uint8)
    masks[(slice(None), *(slice(side // 5, side // 2) for side in shape))] = 2
    images = masks[:, None].float()
    images_spec = ImageSpec.model_validate({"augment": AUGMENT})
    moved, with_them = augmentation(images_spec, generator(0, "a"))(images, masks)
    assert with_them.dtype == torch.uint8 and set(with_them.unique().tolist()) == {0, 2}
    assert not torch.equal(with_them, masks)
    seen, there = (moved[:, 0] > 1).float(), (with_them == 2).float()
    overlap = 2 * (seen * there).flatten(1).sum(1) / (seen + there).flatten(1).sum(1)
    assert overlap.min() > 0.7 and overlap.mean() > 0.85
    for axis in range(1, len(shape) + 1):
        apart = middle(moved[:, 0].clip(0), axis) - middle(there, axis)
        assert apart.mean().abs() < 0.15, "an edge is a whole pixel, but no side of it comes off better"
    alone, _ = augmentation(images_spec, generator(0, "a"))(images, torch.arange(40))
    assert torch.equal(alone, moved)


def test_a_table_of_rows_has_no_masks(tmp_path):
    (tmp_path / "a.csv").write_text("mask,age\n1,2\n")
    with pytest.raises(DataError, match="a segmentation is of images"):
        table(task("csv"), tmp_path / "a.csv")
