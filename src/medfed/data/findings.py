"""What was found while a site's rows were read, counted in rows and in patients."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.data.kinds import Texts


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows, and the distinct patients behind them, who decide whether the rows may be shown."""

    rows: int
    patients: int

    @classmethod
    def of(cls, ids: Texts, mask: NDArray[np.bool_] | None = None) -> Tally:
        """The tally of the rows that the mask marks; of all rows without one."""
        chosen = ids if mask is None else ids[mask]
        return cls(len(chosen), len(set(chosen.tolist()))) if len(chosen) else NONE


NONE = Tally(0, 0)


def tallies_by_class(targets: NDArray[Any], ids: Texts) -> dict[Any, Tally]:
    """The tally of the rows of each class that occurs."""
    patients: defaultdict[Any, list[str]] = defaultdict(list)
    for name, patient in zip(targets.tolist(), ids.tolist(), strict=True):
        patients[name].append(patient)
    return {name: Tally(len(found), len(set(found))) for name, found in patients.items()}


def tallies_by_presence(masks: NDArray[Any], ids: Texts) -> dict[Any, Tally]:
    """(class, whether an image has it) → the tally of such images, of each class from 1 on that any image has.

    A patient whose images differ in it counts on both sides.
    """
    found: dict[Any, Tally] = {}
    for index in range(1, int(masks.max(initial=0)) + 1):
        present = (masks == index).reshape(len(masks), -1).any(axis=1)
        found |= {(index, has): Tally.of(ids, present == has) for has in (True, False)}
    return found


@dataclass(frozen=True)
class Findings:
    """What is no longer in the table, or cannot be seen in it.

    duplicates: rows equal to another in every column. unlabelled, incomplete: rows dropped for want of a
    label or of a feature. missing: column → rows without a value, before any were dropped. read: rows before
    any were dropped. ignored: columns that the task does not use. suspects: undeclared columns that look like
    identifiers or dates. unreadable: files of images that were left out. in_several_splits: patients whose rows a split
    column puts into more than one. elsewhere: patients whose ids another simulated site has too. simulated: what a
    simulation does to how the images look, in words. unnamed: nothing says whose the images are.
    """

    read: Tally
    duplicates: Tally = NONE
    unlabelled: Tally = NONE
    incomplete: Tally = NONE
    missing: dict[str, Tally] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    duplicates_kept: bool = False
    unreadable: Tally = NONE
    in_several_splits: int = 0
    elsewhere: int = 0
    simulated: str = ""
    unnamed: bool = False
