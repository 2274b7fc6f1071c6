"""What a model's answers rest on, on average over sites, where their policies say ``explanations: averages``.

What rests on a single row stays at the site (:mod:`medfed.evaluate.explained`) and is no message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.disclosure import releasable
from medfed.core.errors import RefusalReason, Refused, UserError
from medfed.core.messages import Message, Moments, adds
from medfed.core.protocols import Federation, SiteContext
from medfed.core.steps import Release, step
from medfed.data.table import SiteTable
from medfed.evaluate.evaluation import Candidate, check_classes
from medfed.models.attribution import gradcam, integrated_gradients, last_maps
from medfed.models.network import Network
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

GRID = 14
"""Cells along each of the two axes of an average map."""

MOST_ROWS = 2000
"""Rows of a part that an average is formed of at a site: the first ones."""


@dataclass(frozen=True, eq=False)
class Shares(Message, wire="explanation.shares"):
    """Σ over rows of each one's shares of its explanation, by feature, or of an image by cell of a grid, row by row.

    A row's shares add up to 1; one that has none counts in neither sum. withheld: 1 where a site adds nothing because
    too few patients stand behind it.
    """

    shares: Moments = adds(bound=2.0**40, resolution=2.0**-20)
    rows: int = adds(bound=2.0**40)
    withheld: int = adds(bound=1)


@dataclass(frozen=True, eq=False)
class Average:
    """The mean shares over rows of all sites: by feature, or of images by cell, shape (GRID²,).

    withheld: sites left out, because few patients stand behind what they would add.
    """

    shares: NDArray[np.float64]
    rows: int
    withheld: int


@step(releases=Release.SUM)
def mean_shares(site: SiteContext, message: Candidate) -> Shares:
    """The site's part in the average explanation. Raises Refused unless its policy lets averages leave."""
    policy, table = site.resource(Policy), site.resource(SiteTable)
    if policy.explanations != "averages":
        raise Refused(
            "the site's policy keeps explanations at the site",
            reason=RefusalReason.EXPLANATIONS,
            remedy="ask the site for `explanations: averages` in its policy, or leave out evaluation.explanations",
        )
    check_classes([site], message)
    task, examples = site.resource(TaskSpec), site.examples(message.split)
    inputs = examples.features[:MOST_ROWS]
    cells = GRID * GRID if inputs.ndim > 2 else inputs.shape[1]
    hidden = not releasable(table.patients(message.split), policy.minimum_count)
    if hidden or not len(inputs):
        return Shares(np.zeros(cells), 0, int(hidden))
    scores = site.predict(message.weights, message.split).scores[:MOST_ROWS]
    network: Network = site.model(message.weights, message.split)
    chosen = predicted_classes(scores, message.classes, task)
    if has_maps(network, inputs):
        found = gradcam(network, inputs, message.classes, chosen)
    else:
        baseline = examples.features.mean(0)
        found = np.abs(integrated_gradients(network, inputs, baseline, message.classes, chosen).attributions)
    amounts = in_cells(found).astype(np.float64) if inputs.ndim > 2 else found.astype(np.float64)
    totals = amounts.sum(1)
    some = totals > 0
    behind = len(np.unique(table.ids[table.mask(message.split)][:MOST_ROWS][some].astype(str)))
    if not releasable(behind, policy.minimum_count):  # a model may answer to a few rows alone
        return Shares(np.zeros(cells), 0, 1)
    return Shares((amounts[some] / totals[some, None]).sum(0), int(some.sum()), 0)


STEPS = (mean_shares,)


def average(fed: Federation, candidates: Mapping[str, Candidate]) -> Average | None:
    """The average explanation over sites; None where their policies keep it, or no row has one."""
    try:
        total = fed.sum(mean_shares, candidates, sites=tuple(candidates))
    except Refused:
        return None
    if not total.rows:
        return None
    shares = total.shares / total.rows
    return Average(shares, total.rows, total.withheld)


def predicted_classes(scores: NDArray[np.float64], classes: int, task: TaskSpec) -> NDArray[np.int64]:
    """The class that each row is taken for; 0 for regression."""
    if classes == 0:
        return np.zeros(len(scores), np.int64)
    if scores.ndim == 1:
        return (scores >= task.evaluation.threshold).astype(np.int64)
    found: NDArray[np.int64] = scores.argmax(1)
    return found


def has_maps(network: Network, inputs: NDArray[np.float32]) -> bool:
    """Whether Grad-CAM has feature maps to look at: the network has convolutions over the inputs' axes."""
    try:
        last_maps(network, inputs[:1])
    except UserError:
        return False
    return True


def in_cells(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps (n, …, height, width) summed over axes between, as means of GRID × GRID cells, (n, GRID²)."""
    import torch

    flat = torch.from_numpy(maps).reshape(len(maps), -1, *maps.shape[-2:]).sum(1, keepdim=True)
    found: NDArray[np.float32] = torch.nn.functional.adaptive_avg_pool2d(flat, GRID).flatten(1).numpy()
    return found
