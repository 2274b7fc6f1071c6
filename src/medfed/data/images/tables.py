"""A site's table of images: the images, and of the text beside them only label, patient and split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.columns import Place, absent, require_columns, wanted_columns, with_missing
from medfed.data.findings import Findings, Tally
from medfed.data.images.loading import Loaded, load_pictures
from medfed.data.images.masks import require_masks
from medfed.data.kinds import Kind, Texts, kind_of_targets, objects
from medfed.data.labels import declared_classes, typed_targets
from medfed.data.patients import id_column, named_patients
from medfed.data.raw import IMAGE, Pictures, RawTable
from medfed.data.table import SiteTable, assembled, given_splits, label_of
from medfed.spec.segmentation import mask_values
from medfed.spec.task import DataSpec, Label


def _how_to_label(column: str) -> str:
    if column == "class":  # the connectors' own name for an image's folder
        return "put each image into a folder called as its class"
    return (
        "put a label table (labels.csv) into the folder; if there is one, check that its keys are those of the images"
    )


def load_images(data: DataSpec, task_type: str, site: str, raw: RawTable, seed: int, pictures: Pictures) -> SiteTable:
    """The images of a site with their labels; those without a label are not read.

    Without ``data.id`` the connector's own column of patients is it, if every labelled image has one there; or else an
    image's content is its patient, so that copies of one image are never in two splits. Raises DataError naming site,
    source and column, never a value.
    """
    label, place = label_of(data, site, raw), Place(site, raw)
    where = f"{site} ({raw.source})"
    _refuse_columns(data, where)
    if task_type == "segmentation":
        require_masks(pictures, where)
    require_columns(wanted_columns(data), raw, site)
    if raw.rows == 0:
        raise DataError("there are no images", where=where, remedy="name the folder or file that holds them")
    targets, unlabelled = _labels(raw, label, data, task_type, place)
    if unlabelled.all():
        raise DataError(
            "no image has a label",
            where=f"{where}, column {label.column!r}",
            remedy=_how_to_label(label.column),
        )
    data = data.model_copy(update={"id": id_column(data, raw, ~unlabelled)})
    ids = _ids(raw, data, place, ~unlabelled)
    labelled = np.flatnonzero(~unlabelled)
    values = mask_values(label) if task_type == "segmentation" else None
    chosen = pictures.at(labelled)
    loaded = load_pictures(chosen, data.images, where, values)
    rows = labelled[loaded.kept]
    column = data.split.column
    splits = given_splits(raw.columns[column], column, place, ~unlabelled) if column else None
    patients = objects(list(loaded.digests)) if ids is None else ids[rows]
    table = SiteTable(
        site=site,
        kinds={IMAGE: Kind.ARRAY},
        columns={IMAGE: loaded.array},
        levels={},
        ids=patients,
        targets=targets[rows] if loaded.masks is None else loaded.masks,
        classes=declared_classes(label) if task_type != "regression" else None,
        split=np.zeros(len(rows), dtype=np.int8),
        findings=Findings(read=Tally(0, 0)),
        sources=objects([chosen.each[kept].name for kept in loaded.kept.tolist()]),
    )
    given = None if splits is None else splits[rows]
    repeated = _repeated(loaded, patients, table.targets, given)
    table = assembled(table, data, seed, given=given, repeated=repeated)
    lost = np.setdiff1d(labelled, rows)
    none = np.flatnonzero(unlabelled)
    findings = replace(
        table.findings,
        unlabelled=Tally.of(objects([""] * len(none)) if ids is None else ids[none]),
        unreadable=_unreadable(loaded, lost, ids),
        simulated=pictures.simulated,
        unnamed=ids is None,
    )
    return replace(table, findings=findings)


def _labels(
    raw: RawTable, label: Label, data: DataSpec, task_type: str, place: Place
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """What the label's column says of each image, and which lack it: of a segmentation, where its mask is."""
    values = with_missing(raw.columns[label.column], data.missing.markers)
    if task_type == "segmentation":
        return values, np.zeros(raw.rows, dtype=bool)
    targets = typed_targets(values, label, task_type, place)
    return targets, absent(targets, kind_of_targets(targets))


def _refuse_columns(data: DataSpec, where: str) -> None:
    if used := [name for name, column in data.columns.items() if column.type != "ignore"]:
        raise DataError(
            f"images are the only features, and the task declares the column {used[0]!r}",
            where=where,
            remedy="leave data.columns out",
        )


def _ids(raw: RawTable, data: DataSpec, place: Place, used: NDArray[np.bool_]) -> Texts | None:
    if data.id is None:
        return None
    return named_patients(with_missing(raw.columns[data.id], data.missing.markers), data.id, place, used)


def _repeated(
    loaded: Loaded, patients: Texts, targets: NDArray[Any], given: NDArray[np.int8] | None
) -> NDArray[np.bool_]:
    """The images that equal an earlier one of the same patient, label and split."""
    splits = [0] * len(patients) if given is None else given.tolist()
    seen: set[tuple[object, ...]] = set()
    found = []
    labels = targets.tolist() if targets.ndim == 1 else [mask.tobytes() for mask in targets]
    for row in zip(loaded.digests, patients.tolist(), labels, splits, strict=True):
        found.append(row in seen)
        seen.add(row)
    return np.array(found, dtype=bool)


def _unreadable(loaded: Loaded, lost: NDArray[np.int64], ids: Texts | None) -> Tally:
    """Files left out, and the patients behind them; a file that names none counts as a patient of its own."""
    amiss = sum(not each.ignored for each in loaded.unread)
    known = len(lost) if ids is None else len(set(ids[lost].tolist()))
    return Tally(amiss, known + amiss - len(lost))
