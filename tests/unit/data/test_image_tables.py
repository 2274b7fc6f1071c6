"""From archives and folders of images to a site's table: labels, patients, splits, what is left out, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.data.image_files import grey, write_picture, write_slice

from medfed.core.errors import DataError, TaskError
from medfed.data.connectors import CONNECTORS
from medfed.data.connectors.npz import ArrayPicture
from medfed.data.division import divided
from medfed.data.encoding import encode, new_encoding
from medfed.data.images.loading import check_share
from medfed.data.kinds import Kind
from medfed.data.quality import data_sheet
from medfed.data.raw import Unread
from medfed.data.splits import DRAWN
from medfed.data.table import load_table
from medfed.spec.task import DataSpec, Partition


def spec(connector, **data):
    return DataSpec.model_validate({"connector": connector, **data})


def load(path, data, seed=0):
    raw = CONNECTORS.get(data.connector.name)(path, data, "North")
    return load_table(data, "classification", "North", raw, seed)


@pytest.fixture
def by_class(tmp_path):
    folder = tmp_path / "Röntgen 山"
    for index in range(6):
        name = f"{'ill' if index % 2 else 'well'}/{index}.png"
        write_picture(folder / name, grey(index))
    return folder


def test_folders_are_classes(by_class):
    table = load(by_class, spec("image_folder", label="class"))
    assert table.columns["image"].shape == (6, 1, 8, 8)
    assert sorted(table.targets.tolist()) == ["ill"] * 3 + ["well"] * 3
    np.testing.assert_array_equal(table.columns["image"][0, 0], grey(1))  # ill/1.png comes first
    encoding = new_encoding({"image": Kind.ARRAY}, {}, "none", ("ill", "well"))
    assert encode(table, encoding, None).targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_label_table_gives_label_and_patient(by_class):
    lines = [f"{'ill' if i % 2 else 'well'}/{i}.png,P{i // 2},{i % 2}" for i in range(5)]
    (by_class / "labels.csv").write_text("\n".join(["file,patient,y", *lines, "gone.png,P9,1"]), encoding="utf-8")
    table = load(by_class, spec("image_folder", label="y", id="patient"))
    assert table.rows() == 5 and table.patients() == 3
    assert table.findings.unlabelled.rows == 1
    for patient in ("P0", "P1"):
        assert len(set(table.split[table.ids == patient].tolist())) == 1


def test_splits_are_by_patient_whatever_the_order(by_class):
    rng = np.random.default_rng(0)
    splits = []
    for _ in range(2):
        lines = [f"{i},P{i // 2},{i % 2}" for i in rng.permutation(6)]
        (by_class / "t.csv").write_text("\n".join(["n,patient,y", *lines]))
        connector = {"name": "image_folder", "table": "t.csv", "key": "n", "by": "name"}
        table = load(
            by_class, spec(connector, label="y", id="patient", split={"train": 0.5, "validation": 0.0, "test": 0.5})
        )
        splits.append(dict(zip(table.ids.tolist(), table.split.tolist(), strict=True)))
        assert len(splits[-1]) == 3
    assert splits[0] == splits[1]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("file,y\nill/1.png,1\nill/1.png,0\n", "repeats a key in 2 lines"),
        ("file,y\nJohn Doe,1\n", "key of no image"),
        ("name,y\nill/1.png,1\n", "there is no column 'file'"),
        ("file,z\nill/1.png,1\n", "there is no column 'y'"),
        ("file,y\nill/1.png,\n", "no image has a label"),
    ],
)
def test_a_wrong_label_table_is_explained_without_its_values(by_class, content, cause):
    (by_class / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=cause) as caught:
        load(by_class, spec("image_folder", label="y"))
    assert "North" in caught.value.where
    assert caught.value.remedy
    assert "John" not in str(caught.value) and "ill/1.png" not in str(caught.value)


def test_a_label_table_outside_the_folder_is_refused(by_class):
    (by_class.parent / "labels.csv").write_text("file,y\nill/1.png,1\n")
    with pytest.raises(DataError, match="leads out"):
        load(by_class, spec({"name": "image_folder", "table": "../labels.csv"}, label="y"))


@pytest.mark.parametrize("name", ["image_folder", "dicom"])
def test_an_empty_folder_is_explained(tmp_path, name):
    if name == "dicom":
        pytest.importorskip("pydicom")
    with pytest.raises(DataError, match="holds no image"):
        CONNECTORS.get(name)(tmp_path, spec(name, label="class"), "North")


def test_an_unknown_option_is_refused(by_class):
    with pytest.raises(TaskError, match="no option 'tabel'"):
        load(by_class, spec({"name": "image_folder", "tabel": "x.csv"}, label="class"))


def test_broken_files_are_left_out_up_to_the_stated_share(by_class):
    (by_class / "ill" / "9.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 7 files cannot be read.*neither PNG nor JPEG") as caught:
        load(by_class, spec("image_folder", label="class"))
    assert "9.png" not in str(caught.value)
    table = load(by_class, spec("image_folder", label="class", images={"max_unreadable": 0.15}))
    assert table.rows() == 6
    assert table.findings.unreadable.rows == 1
    assert "images that cannot be read were left out: 14.3% of the files" in data_sheet(table, (), 1).warnings
    assert not [w for w in data_sheet(table, (), 5).warnings if "cannot be read" in w]


def test_images_of_two_shapes_are_explained(by_class):
    write_picture(by_class / "ill" / "9.png", grey(9, 12))
    with pytest.raises(DataError, match="differ in shape") as caught:
        load(by_class, spec("image_folder", label="class"))
    assert "resize" in caught.value.remedy


def test_colours_become_grey_by_their_luminance_and_grey_three_channels(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    write_picture(tmp_path / "a" / "1.png", colours)
    write_picture(tmp_path / "b" / "2.png", grey(2))
    one = load(tmp_path, spec("image_folder", label="class", images={"channels": 1})).columns["image"]
    np.testing.assert_allclose(one[0, 0], colours @ [0.299, 0.587, 0.114], rtol=1e-5)
    three = load(tmp_path, spec("image_folder", label="class", images={"channels": 3})).columns["image"]
    np.testing.assert_array_equal(three[1], np.stack([grey(2)] * 3))


def test_copies_of_an_image_are_one_patient_where_none_are_named(tmp_path):
    for index in range(40):
        write_picture(tmp_path / "a" / f"{index}.png", grey(index % 20))
    table = load(tmp_path, spec("image_folder", label="class"))
    assert table.patients() == 20
    for image in set(table.ids.tolist()):
        assert len(set(table.split[table.ids == image].tolist())) == 1


def write_archive(path, rows, **more):
    arrays = {}
    for part, count in rows.items():
        arrays[f"{part}_images"] = np.stack([grey(100 * len(part) + row) for row in range(count)])
        arrays[f"{part}_labels"] = (np.arange(count) % 2)[:, None]
    np.savez(path, **arrays, **more)
    return path


def test_an_archive_in_medmnists_form(tmp_path):
    path = write_archive(tmp_path / "a.npz", {"train": 6, "val": 3, "test": 4})
    data = spec("npz", label={"column": "label", "classes": [0, 1]}, split={"column": "split"})
    table = load(path, data)
    assert [table.rows(split) for split in DRAWN] == [6, 3, 4]
    np.testing.assert_array_equal(table.columns["image"][0, 0], grey(500))


def test_an_archive_with_ids_and_colours(tmp_path):
    images = np.random.default_rng(0).random((6, 5, 5, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(list("ababab")), ids=np.arange(6) // 2)
    table = load(tmp_path / "a.npz", spec("npz", label="label", id="id"))
    assert table.columns["image"].shape == (6, 3, 5, 5)
    assert table.patients() == 3
    assert load(tmp_path / "a.npz", spec("npz", label="label")).ids.tolist() == table.ids.tolist()


def test_an_image_without_a_line_in_the_label_table_is_left_out_though_it_has_no_split_either(by_class):
    (by_class / "labels.csv").write_text("file,y,part\nill/1.png,1,train\nwell/0.png,0,test\n")
    table = load(by_class, spec("image_folder", label="y", split={"column": "part"}))
    assert [table.rows(split) for split in DRAWN] == [1, 0, 1]
    assert table.findings.unlabelled.rows == 4


def test_a_patient_in_two_splits_is_reported(tmp_path):
    rows = {"train": 6, "test": 4}
    twice = write_archive(tmp_path / "a.npz", rows, train_ids=np.arange(6), test_ids=np.arange(5, 9))
    data = spec("npz", label={"column": "label", "classes": [0, 1]}, split={"column": "split"}, id="id")
    table = load(twice, data)
    assert table.findings.in_several_splits == 1
    assert any("more than one split" in warning for warning in data_sheet(table, ("0", "1"), 5).warnings)
    once = write_archive(tmp_path / "b.npz", rows, train_ids=np.arange(6), test_ids=np.arange(6, 10))
    assert not any("more than one split" in warning for warning in data_sheet(load(once, data), ("0", "1"), 5).warnings)


@pytest.mark.parametrize(
    ("arrays", "cause"),
    [
        ({"images": np.zeros((3, 4)), "labels": np.zeros(3)}, "holds no images"),
        ({"images": np.zeros((3, 4, 4))}, "no array 'labels'"),
        ({"images": np.zeros((3, 4, 4)), "labels": np.zeros((3, 14))}, "another shape"),
        ({"pictures": np.zeros((3, 4, 4))}, "holds no images"),
    ],
)
def test_an_archive_of_another_form_is_explained(tmp_path, arrays, cause):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=cause):
        load(tmp_path / "a.npz", spec("npz", label="label"))


def division(rows, **partition):
    data = spec("npz", label="label", id="id")
    from medfed.data.kinds import objects
    from medfed.data.raw import RawTable

    ids = [f"P{row // 2}" for row in range(rows)]
    labels = [str(row // 2 % 3) for row in range(rows)]
    raw = RawTable({"id": objects(ids), "label": objects(labels)}, "a.npz")
    return divided(raw, data, Partition(data="a.npz", **partition), seed=3)


@pytest.mark.parametrize("by", ["even", "quantity", "label"])
def test_a_data_set_is_divided_by_patient_and_whole(by):
    parts = division(600, sites=4, by=by, alpha=0.5)
    patients = [set(part.columns["id"].tolist()) for part in parts.values()]
    assert list(parts) == ["site-1", "site-2", "site-3", "site-4"]
    assert sum(part.rows for part in parts.values()) == 600
    assert sum(map(len, patients)) == len(set.union(*patients)) == 300
    assert min(map(len, patients)) >= 10
    sizes = [part.rows for part in parts.values()]
    assert (max(sizes) - min(sizes) <= 2) == (by == "even")
    again = division(600, sites=4, by=by, alpha=0.5)
    assert [part.columns["id"].tolist() for part in again.values()] == [
        p.columns["id"].tolist() for p in parts.values()
    ]


def test_a_small_alpha_makes_sites_unlike_in_their_classes_and_a_large_one_alike():
    def spread(alpha):
        parts = division(6000, sites=4, by="label", alpha=alpha)
        shares = [[np.mean(part.columns["label"] == name) for name in "012"] for part in parts.values()]
        return np.std(shares, axis=0).mean()

    assert spread(0.1) > 0.1 > 0.02 > spread(1000)


def test_a_division_that_cannot_be_is_explained():
    with pytest.raises(DataError, match="10 patients cannot be divided over 4 sites"):
        division(20, sites=4)


def slices(folder, patients=6, each=3, nameless=()):
    for patient in range(patients):
        for place in range(each):
            index = patient * each + place
            pixels = np.full((4, 4), index, np.uint16)
            said = "" if patient in nameless else f"P{patient}"
            write_slice(folder / f"p{patient}" / f"{place}.dcm", pixels, patient=said, place=float(place))
    return folder


OF_FILES = {"connector": {"name": "dicom", "by": "file"}, "label": "y"}


def labelled(folder, patients, each=3):
    lines = [f"p{patient}/{place}.dcm,{patient % 2}" for patient in patients for place in range(each)]
    (folder / "labels.csv").write_text("\n".join(["file,y", *lines]))


def test_dicom_files_say_whose_they_are_where_the_task_names_no_id(tmp_path):
    folder = slices(tmp_path / "scans")
    labelled(folder, range(6))
    data = DataSpec.model_validate(OF_FILES)
    table = load(folder, data)
    assert (table.rows(), table.patients()) == (18, 6)
    assert all(len(set(table.split[table.ids == patient].tolist())) == 1 for patient in set(table.ids))
    named = load(folder, data.model_copy(update={"id": "patient"}))
    assert (table.ids.tolist(), table.split.tolist()) == (named.ids.tolist(), named.split.tolist())
    sheet = data_sheet(table, ("0", "1"), 7)
    assert (sheet.rows, sheet.patients) == (None, None)  # 18 slices of 6 patients
    assert not [warning for warning in sheet.warnings if "whose" in warning]
    raw = CONNECTORS.get("dicom")(folder, data, "North")
    parts = divided(raw, data, Partition(data="scans", sites=2, minimum=1), seed=0)
    homes = [set(part.columns["patient"].tolist()) for part in parts.values()]
    assert homes[0].isdisjoint(homes[1])


def test_dicom_files_of_which_a_labelled_one_names_nobody_are_counted_as_images_with_a_warning(tmp_path):
    folder = slices(tmp_path / "scans", nameless=(5,))
    labelled(folder, range(5))
    assert load(folder, DataSpec.model_validate(OF_FILES)).patients() == 5  # the one without a name has no label
    labelled(folder, range(6))
    table = load(folder, DataSpec.model_validate(OF_FILES))
    assert table.patients() == table.rows() == 18
    assert [warning for warning in data_sheet(table, ("0", "1"), 1).warnings if "whose the images are" in warning]


def test_a_segmentation_of_volumes_takes_the_files_patients(tmp_path):
    folder = tmp_path / "scans"
    for patient in range(3):
        for series in range(2):
            name = f"p{patient}/{series}.dcm"
            write_slice(
                folder / name,
                np.full((4, 4), patient, np.uint16),
                patient=f"P{patient}",
                SeriesInstanceUID=f"1.2.{patient}.{series + 1}",
            )
            write_picture(folder / "masks" / name.replace(".dcm", ".png"), np.eye(4, dtype=np.uint8))
    data = DataSpec.model_validate(
        {"connector": {"name": "dicom", "masks": "masks"}, "label": {"column": "mask", "classes": [0, 1]}}
    )
    raw = CONNECTORS.get("dicom")(folder, data, "North")
    table = load_table(data, "segmentation", "North", raw)
    assert (table.rows(), table.patients()) == (6, 3)


def test_images_without_ids_are_counted_as_images_with_a_warning(by_class, tmp_path):
    archive = write_archive(tmp_path / "a.npz", {"train": 6})
    for path, data in ((by_class, spec("image_folder", label="class")), (archive, spec("npz", label="label"))):
        table = load(path, data)
        assert [w for w in data_sheet(table, (), 1).warnings if w.startswith("nothing says whose the images are")]


def test_a_series_and_a_file_of_many_frames_count_once_among_what_cannot_be_read(tmp_path):
    for patient in range(9):
        write_slice(
            tmp_path / f"whole{patient}.dcm", np.full((4, 4), patient, np.uint16), SeriesInstanceUID=f"1.{patient}"
        )
    for place in (0.0, 1.0, 2.0, 4.0, 5.0):
        write_slice(tmp_path / f"gap{place:.0f}.dcm", np.zeros((4, 4), np.uint16), place=place)
    data = {"connector": {"name": "dicom", "read": "volumes"}, "label": {"column": "patient", "classes": ["P1"]}}
    data["images"] = {"max_unreadable": 0.05}
    with pytest.raises(DataError, match=r"1 of 10 files cannot be read.*1: a series with slices missing"):
        load(tmp_path, DataSpec.model_validate(data))
    data["images"] = {"max_unreadable": 0.1}
    table = load(tmp_path, DataSpec.model_validate(data))
    assert (table.rows(), table.findings.unreadable.rows) == (9, 1)


def test_frames_of_one_file_count_once_among_what_cannot_be_read():
    unread = [Unread(f"a.dcm#{frame}", "damaged") for frame in range(1, 9)] + [Unread("b.dcm", "damaged")]
    read = [ArrayPicture(name, grey(0), False) for name in ("a.dcm#9", "c#1.dcm#1", "c#1.dcm#2", "c#2.dcm")]
    with pytest.raises(DataError, match=r"2 of 4 files .*\(2: damaged\)"):
        check_share(unread, read, 0.49, "North")
    check_share(unread, read, 0.5, "North")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_claims_frames_which_it_has_no_room_for_lists_none(tmp_path, compressed):
    from pydicom import dcmread
    from pydicom.uid import RLELossless

    write_slice(tmp_path / "whole.dcm", np.zeros((4, 4), np.uint16))
    write_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), NumberOfFrames=60_000)
    if compressed:
        ds = dcmread(tmp_path / "whole.dcm")
        ds.compress(RLELossless)
        ds.NumberOfFrames = 60_000
        ds.save_as(tmp_path / "a.dcm")
    raw = CONNECTORS.get("dicom")(tmp_path, spec("dicom", label="patient"), "North")
    assert (raw.rows, [(e.name, e.reason) for e in raw.pictures.unread]) == (
        1,
        [("a.dcm", "it ends before its last pixel")],
    )


@pytest.mark.parametrize(
    ("wrong", "more", "cause"),
    [
        ("5.png,P5,maybe,train", {}, "a label outside the declared set"),
        ("5.png,,1,train", {"id": "patient"}, "no patient id"),
        ("5.png,P5,1,trian", {"split": {"column": "split"}}, "neither train, validation nor test"),
    ],
)
def test_an_error_in_a_label_table_names_it_and_the_line(tmp_path, wrong, more, cause):
    for index in range(6):
        write_picture(tmp_path / "x" / f"{index}.png", grey(index))
    lines = ["file,patient,y,split", *(f"{i}.png,P{i},{i % 2},train" for i in (4, 3, 2, 1, 0)), wrong]
    (tmp_path / "x" / "reads.csv").write_text("\n".join(lines))
    connector = {"name": "image_folder", "table": "reads.csv"}
    data = DataSpec.model_validate({"connector": connector, "label": {"column": "y", "classes": [0, 1]}, **more})
    with pytest.raises(DataError) as caught:
        load(tmp_path / "x", data)
    assert caught.value.cause == f"{cause} in 1 row (first at line 7)"
    assert "x/reads.csv" in caught.value.where
    part = CONNECTORS.get("image_folder")(tmp_path / "x", data, "North").where(np.array([3, 5]))
    with pytest.raises(DataError, match="first at line 7"):
        load_table(data, "classification", "North", part)


def test_an_error_in_the_images_own_columns_counts_images(by_class):
    data = spec("image_folder", label={"column": "class", "classes": ["ill", "sane"]})
    with pytest.raises(DataError, match=r"in 3 rows \(first at image 4\)"):
        load(by_class, data)
