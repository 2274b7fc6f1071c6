"""Membership inference by likelihood ratios: LiRA, Carlini et al. 2022, "Membership Inference Attacks From First
Principles", Algorithm 1, with the one variance for all records that suits few shadow models.

Shadow models are trained as the task trains, each on a part of the records. A record's score under a model is its
margin (φ, see :mod:`medfed.attacks.margins`). Those of models that had it are taken as normal, those of models that had
it not too, and the ratio of the two likelihoods of the attacked model's score tells whether it had it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.attacks.results import Success

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FALSE_POSITIVES = 0.01
AT_ONCE = 4
"""Shadow models whose members are drawn together."""

_FEWEST = 2
"""Models that have a record, and that have it not, at least: one may be the attacked one."""
_RESAMPLES = 400
_POINTS = 60


@dataclass(frozen=True, eq=False)
class Shadow:
    """One model. members: by record, whether it was trained on it. scores: its margin of each record."""

    members: Bools
    scores: Floats


@dataclass(frozen=True, eq=False)
class Trials:
    """Guesses to be judged: the log-likelihood ratio of each, whether it was a member, and which record it is."""

    ratios: Floats
    members: Bools
    records: NDArray[np.int64]


def members_of(records: int, quarters: int, random: np.random.Generator) -> Bools:
    """(4, records): which of them four models are trained on. They are dealt into four parts, of which each model
    has so many ``quarters`` (1 to 3), and so each record is in as many models as any other: their number tells nothing.

    Fewer than four records are in all models, for one might have none of them otherwise.
    """
    if records < AT_ONCE:
        return np.ones((AT_ONCE, records), bool)
    parts = random.permutation(np.arange(records) % AT_ONCE)
    models = np.arange(AT_ONCE)[:, None]
    members: Bools = (parts - models) % AT_ONCE < quarters
    return members


def judged(shadows: Sequence[Shadow], random: np.random.Generator) -> Trials:
    """Each shadow model attacked with the others. Raises ValueError where no record is in two models and out of two.

    The attacked model had a record, or had it not; one other of which the opposite is true is left out, so that the
    number of models on either side tells nothing.
    """
    scores, members = np.array([each.scores for each in shadows]), np.array([each.members for each in shadows])
    usable = _usable(members)
    scores, members = scores[:, usable], members[:, usable]
    ratios = []
    for target in range(len(shadows)):
        inside, outside = members.copy(), ~members
        inside[target] = outside[target] = False
        _drop_one(inside, ~members[target], random)
        _drop_one(outside, members[target], random)
        ratios.append(_ratios(scores[target], scores, inside, outside))
    records = np.tile(np.flatnonzero(usable), len(shadows))
    return Trials(np.concatenate(ratios), members.reshape(-1), records)


def _drop_one(chosen: Bools, where: Bools, random: np.random.Generator) -> None:
    """Leave one of the chosen models out, drawn for each record, of the records that are marked."""
    drawn = np.where(chosen, random.random(chosen.shape), -1.0).argmax(0)
    chosen[drawn[where], np.flatnonzero(where)] = False


def judged_model(scores: Floats, members: Bools, shadows: Sequence[Shadow]) -> Trials:
    """One more model attacked with the shadows: its ``scores`` of the records, and whether it had them."""
    known = np.array([each.members for each in shadows])
    usable = _usable(known)
    seen = np.array([each.scores for each in shadows])[:, usable]
    inside = known[:, usable]
    return Trials(_ratios(scores[usable], seen, inside, ~inside), members[usable], np.flatnonzero(usable))


def _usable(members: Bools) -> Bools:
    inside = members.sum(0)
    usable: Bools = (inside >= _FEWEST) & (len(members) - inside >= _FEWEST)
    if not usable.any():
        raise ValueError("no record is in two shadow models and out of two others")
    return usable


def _ratios(target: Floats, scores: Floats, inside: Bools, outside: Bools) -> Floats:
    """log p(φ | member) − log p(φ | not) of each record, by the models (models, records) on either side.

    φ is normal about the record's mean on that side, with one deviation for all records; a side on which no record has
    two models takes the other's.
    """
    sides = [_moments(scores, chosen) for chosen in (inside, outside)]
    deviations = [math.sqrt(squares / freedom) if freedom else 0.0 for _, squares, freedom in sides]
    spare = max(deviations) or 1.0
    mean_in, mean_out = (mean for mean, _, _ in sides)
    in_, out = (each or spare for each in deviations)
    found: Floats = ((target - mean_out) / out) ** 2 / 2 - ((target - mean_in) / in_) ** 2 / 2 + math.log(out / in_)
    return found


def _moments(scores: Floats, chosen: Bools) -> tuple[Floats, float, int]:
    """Each record's mean over the chosen models, and over all records the squared deviations and their freedom."""
    counts = chosen.sum(0)
    mean = np.where(chosen, scores, 0.0).sum(0) / counts
    return mean, float(((scores - mean)[chosen] ** 2).sum()), int((counts - 1).sum())


def success(
    trials: Trials,
    random: np.random.Generator,
    false_positives: float = FALSE_POSITIVES,
    patients: NDArray[np.int64] | None = None,
) -> Success:
    """How well the ratios tell members from others; 95 % intervals by bootstrap over patients, whose trials stay
    together, for those of one patient are not independent. patients: whose each record is; one each if not given."""
    auc, tpr = _auc(trials.ratios, trials.members), _tpr(trials.ratios, trials.members, false_positives)
    whose = trials.records if patients is None else patients[trials.records]
    names, place = np.unique(whose, return_inverse=True)
    order, counts = np.argsort(place, kind="stable"), np.bincount(place)
    starts = np.cumsum(counts) - counts
    drawn = []
    for _ in range(_RESAMPLES):
        chosen = random.integers(0, len(names), len(names))
        taken = np.concatenate([order[starts[i] : starts[i] + counts[i]] for i in chosen])
        ratios, members = trials.ratios[taken], trials.members[taken]
        if members.any() and not members.all():
            drawn.append((_auc(ratios, members), _tpr(ratios, members, false_positives)))
    (auc_low, tpr_low), (auc_high, tpr_high) = np.quantile(drawn, (0.025, 0.975), axis=0)
    fpr, curve = _curve(trials.ratios, trials.members)
    return Success(
        auc, float(auc_low), float(auc_high), false_positives, tpr, float(tpr_low), float(tpr_high), fpr, curve
    )


def _auc(ratios: Floats, members: Bools) -> float:
    """The area under the ROC curve: the mean rank of members (Mann and Whitney)."""
    from scipy.stats import rankdata

    inside, outside = int(members.sum()), int((~members).sum())
    ranks = rankdata(ratios)
    return float((ranks[members].sum() - inside * (inside + 1) / 2) / (inside * outside))


def _tpr(ratios: Floats, members: Bools, false_positives: float) -> float:
    """The share of members above the threshold that this share of the others exceeds at most."""
    threshold = np.quantile(ratios[~members], 1 - false_positives, method="higher")
    return float((ratios[members] > threshold).mean())


def _curve(ratios: Floats, members: Bools) -> tuple[tuple[float, ...], tuple[float, ...]]:
    outside = int((~members).sum())
    fpr = np.geomspace(1 / outside, 1, _POINTS)
    return tuple(fpr.tolist()), tuple(_tpr(ratios, members, each) if each < 1 else 1.0 for each in fpr)
