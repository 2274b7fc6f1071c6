"""Loss, Dice and Hausdorff distance of masks, of each class but the first, and their mean over classes.

An image counts for a class unless neither its mask nor its prediction has any of it: nothing was to be found then, and
nothing was. Where one of the two has none, Dice is 0, and there is no distance: the image is left out of the distances,
which say how many were. A class that counts in no image is left out of the means over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medfed.core.examples import Predictions
from medfed.core.messages import Counts, Message, Moments, adds
from medfed.core.sensitivity import unmoved
from medfed.metrics.measure import Measure, Measures, ratio, without
from medfed.metrics.outlines import hausdorff

METRICS = ("loss", "dice", "hausdorff95", "hausdorff")

_IMAGES = 2.0**40
_DISTANCES = 2.0**60
_RESOLUTION = 2.0**-20


@dataclass(frozen=True, eq=False)
class SegmentationSums(Message, wire="metrics.segmentation_sums"):
    """What adds up over sites to every metric of a split; arrays are (C − 1,), of each class but the first.

    loss: Σ over images of their loss. dice: Σ of their Dice coefficients, 2 |P ∩ T| / (|P| + |T|), over those
    ``counted`` in which prediction or mask has the class. hausdorff95, hausdorff: Σ of the distances over those
    ``measured`` in which both have it. withheld: 1 where a site adds nothing because too few patients stand behind it.
    """

    images: int = adds(bound=_IMAGES)
    loss: float = adds(bound=_IMAGES, resolution=_RESOLUTION)
    dice: Moments = adds(bound=_IMAGES, resolution=_RESOLUTION)
    counted: Counts = adds(bound=_IMAGES)
    hausdorff95: Moments = adds(bound=_DISTANCES, resolution=_RESOLUTION)
    hausdorff: Moments = adds(bound=_DISTANCES, resolution=_RESOLUTION)
    measured: Counts = adds(bound=_IMAGES)
    withheld: int = adds(bound=1, sensitivity=unmoved)


def segmentation_sums(predictions: Predictions, classes: int) -> SegmentationSums:
    """The sums of one site's predictions."""
    dice, distances = np.zeros((2, classes - 1)), np.zeros((2, classes - 1))
    counted, measured = np.zeros(classes - 1, np.int64), np.zeros(classes - 1, np.int64)
    for predicted, truth in zip(predictions.scores, predictions.targets, strict=True):
        for index in range(classes - 1):
            marked, there = predicted == index + 1, truth == index + 1
            sizes = int(marked.sum()), int(there.sum())
            if not any(sizes):
                continue
            counted[index] += 1
            dice[0, index] += 2 * int((marked & there).sum()) / sum(sizes)
            if all(sizes):
                measured[index] += 1
                distances[:, index] += hausdorff(marked, there)
    losses = np.zeros(0) if predictions.losses is None else predictions.losses
    return SegmentationSums(
        images=len(predictions),
        loss=float(losses.sum()),
        dice=dice[0],
        counted=counted,
        hausdorff95=distances[0],
        hausdorff=distances[1],
        measured=measured,
        withheld=0,
    )


def summarize(sums: SegmentationSums, classes: Sequence[str]) -> Measures:
    """The metrics of a total, or of one site; classes: the names of all, the first of which is not measured.

    With more than one class to find, each has its own Dice and 95 % distance beside the means over classes.
    """
    every = slice(None)
    found = [
        ratio("loss", sums.loss, sums.images, sums.images, "no rows"),
        _dice("dice", sums, every, sums.images),
        _distance("hausdorff95", sums.hausdorff95, sums, every, sums.images),
        _distance("hausdorff", sums.hausdorff, sums, every, sums.images),
    ]
    for index, name in enumerate(classes[1:] if len(classes) > 2 else ()):
        this = slice(index, index + 1)
        found.append(_dice(f"dice_{name}", sums, this, int(sums.counted[index])))
        n = int(sums.measured[index])
        found.append(_distance(f"hausdorff95_{name}", sums.hausdorff95, sums, this, n))
    return without(sums.withheld, Measures(tuple(found)))


def measure_many(several: Sequence[Predictions], classes: Sequence[str]) -> list[Measures]:
    """The metrics of each of several sites."""
    return [summarize(segmentation_sums(each, len(classes)), classes) for each in several]


def _dice(metric: str, sums: SegmentationSums, classes: slice, n: int) -> Measure:
    value = _mean_over_classes(sums.dice[classes], sums.counted[classes])
    return Measure(metric, value, n, reason=None if value is not None else _nothing(sums, "no image has the class"))


def _distance(metric: str, totals: Moments, sums: SegmentationSums, classes: slice, n: int) -> Measure:
    """A mean distance, which says how many masks have none, since they or their predictions are empty."""
    value = _mean_over_classes(totals[classes], sums.measured[classes])
    if value is None:
        return Measure(metric, None, n, reason=_nothing(sums, "no image has the class in both mask and prediction"))
    empty = int((sums.counted[classes] - sums.measured[classes]).sum())
    left_out = f"without {empty} mask{'s' if empty > 1 else ''} which, or whose prediction, is empty"
    return Measure(metric, value, n, reason=left_out if empty else None)


def _mean_over_classes(totals: Moments, counts: Counts) -> float | None:
    """The mean over the classes that occur of each one's mean over images; None where none occurs."""
    occurs = counts > 0
    return float((totals[occurs] / counts[occurs]).mean()) if occurs.any() else None


def _nothing(sums: SegmentationSums, reason: str) -> str:
    return reason if sums.images else "no rows"
