"""Sites given as arrays in memory: features (images, signals, plain matrices) and targets."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.columns import Place
from medfed.data.findings import Findings, Tally
from medfed.data.frames import as_texts
from medfed.data.kinds import Kind, objects
from medfed.data.labels import declared_classes, typed_targets
from medfed.data.raw import RawTable
from medfed.data.table import SiteTable, assembled
from medfed.spec.segmentation import mask_values
from medfed.spec.task import DataSpec, Label

_TARGET = "target"


@dataclass(frozen=True, eq=False)
class ArrayData:
    """A site's data in memory.

    features: (n, columns), or (n, …) for images and signals. targets: (n,) numbers or class names; for segmentation
    masks of images (n, channels, …), (n, …). ids: (n,) the patient of each row; without them each row is a patient of
    its own.
    """

    features: NDArray[Any]
    targets: NDArray[Any]
    ids: NDArray[Any] | None = None


def load_arrays(data: DataSpec, task_type: str, site: str, arrays: ArrayData, seed: int = 0) -> SiteTable:
    """The table of a site given as arrays; ``data.columns`` is not used.

    Two-dimensional features become continuous columns x0, x1, …; those of more dimensions one column of
    arrays, used as they are. Raises DataError where lengths differ or a number is infinite.
    """
    features = np.asarray(arrays.features)
    masked = task_type == "segmentation"
    if not masked and np.ndim(arrays.targets) != 1:
        raise DataError("targets have to be of shape (n,)", where=site, remedy="targets.ravel()")
    if masked and np.shape(arrays.targets) != (*features.shape[:1], *features.shape[2:]):
        raise DataError(
            "masks have to be of the images' shape without the channels, (n, …) for images (n, channels, …)",
            where=site,
            remedy="images without channels are features[:, None]",
        )
    lengths = {len(features), len(arrays.targets), len(features if arrays.ids is None else arrays.ids)}
    if features.ndim < 2 or len(lengths) > 1 or 0 in lengths:
        raise DataError(
            "features have to be of shape (n, …), with n targets and n ids, and n above 0",
            where=site,
            remedy="check the lengths; a single column is features.reshape(-1, 1)",
        )
    rows = len(features)
    columns = _columns(features, site)
    label = data.label or Label(column=_TARGET)
    table = SiteTable(
        site=site,
        kinds={name: Kind.CONTINUOUS if values.ndim == 1 else Kind.ARRAY for name, values in columns.items()},
        columns=columns,
        levels={},
        ids=objects([sys.intern(str(i)) for i in (range(rows) if arrays.ids is None else arrays.ids)]),
        targets=_masks(np.asarray(arrays.targets), label, site)
        if masked
        else _targets(np.asarray(arrays.targets), label, task_type, site),
        classes=declared_classes(label) if task_type != "regression" else None,
        split=np.zeros(rows, dtype=np.int8),
        findings=Findings(read=Tally(0, 0)),
    )
    return assembled(table, data, seed, given=None, repeated=np.zeros(rows, dtype=bool))


def _masks(masks: NDArray[Any], label: Label, site: str) -> NDArray[np.uint8]:
    """The class indices of masks. Raises DataError for numbers that are no class."""
    from medfed.data.images.masks import LIST_CLASSES, known_indices

    indices = known_indices(masks, mask_values(label))
    if indices is None:
        raise DataError("masks have numbers that are no class", where=site, remedy=LIST_CLASSES)
    return indices


def _columns(features: NDArray[Any], site: str) -> dict[str, NDArray[Any]]:
    """Copies of the features, a column each: changing the array given changes no table."""
    try:
        if features.ndim > 2:
            matrix: NDArray[Any] = np.array(features, dtype=np.float32, order="C")[None]
        else:
            narrow = features.dtype in (np.float16, np.float32)  # which takes half the memory, and loses nothing
            matrix = np.array(features.T, dtype=np.float32 if narrow else np.float64, order="C")
    except (TypeError, ValueError):
        raise DataError("features have to be numbers", where=site, remedy="encode text as numbers first") from None
    columns = dict(zip(_names(len(matrix)) if features.ndim == 2 else ("x",), matrix, strict=True))
    wrong = np.isinf(matrix) if features.ndim == 2 else ~np.isfinite(matrix)
    if wrong.any():
        name = next(name for name, cells in zip(columns, wrong, strict=True) if cells.any())
        raise DataError("numbers that are not finite", where=f"{site}, column {name!r}", remedy="mend the array")
    return columns


@cache
def _names(columns: int) -> tuple[str, ...]:
    """x0, x1, …: one text each, however many sites share it."""
    return tuple(f"x{i}" for i in range(columns))


def _targets(values: NDArray[Any], label: Label, task_type: str, site: str) -> NDArray[Any]:
    raw = RawTable({_TARGET: as_texts(values.astype(object))}, "array")
    return typed_targets(
        raw.columns[_TARGET], label.model_copy(update={"column": _TARGET}), task_type, Place(site, raw)
    )
