"""Labels from the gradient of the last bias: Zhao et al. 2020, "iDLG"; counts after Yin et al. 2021, "GradInversion".

Under cross-entropy ∂L/∂b_k is the mean over the records of p_k − 1[y = k], p the predicted probabilities. Of one
record it is negative for its own class alone. Of many, the share of class k is the mean of p_k less the gradient, and
the attacker estimates that mean from the model and from records of the same kind that it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.attacks.intervals import proportion
from medfed.attacks.layers import last_bias
from medfed.attacks.results import Labels
from medfed.attacks.victim import Update, Victim
from medfed.core.examples import Examples

if TYPE_CHECKING:
    import torch


def applies(victim: Victim, records: Examples) -> bool:
    """Whether the targets are classes, and the outputs come from a linear layer with a bias."""
    return victim.classes > 0 and last_bias(victim.network, records.features) is not None


def recover_labels(victim: Victim, alone: Sequence[Update], updates: Sequence[Update]) -> Labels:
    """Labels of records sent alone, and the classes' shares behind updates as the task sends them."""
    truth = np.array([int(update.records.targets[0]) for update in alone])
    named = np.array([label(_bias(victim, update)) for update in alone])
    even = np.full(victim.classes, 1 / victim.classes)
    errors, guesses = [], []
    for update in updates:
        true = np.bincount(update.records.targets, minlength=victim.classes) / len(update.records)
        errors.append(np.abs(_shares(victim, update) - true).max())
        guesses.append(np.abs(even - true).max())
    return Labels(
        single=proportion(int((named == truth).sum()), len(alone)),
        majority=float(np.bincount(truth).max() / len(truth)),
        update_error=float(np.mean(errors)),
        guess_error=float(np.mean(guesses)),
    )


def _bias(victim: Victim, update: Update) -> torch.Tensor:
    place = last_bias(victim.network, update.records.features)
    assert place is not None  # noqa: S101 - see applies
    return victim.gradient(update)[place]


def label(bias: torch.Tensor) -> int:
    """The class of a single record, from the gradient of the last bias: of one logit, or of one a class."""
    return int(bias.item() < 0) if len(bias) == 1 else int(bias.argmin())


def _shares(victim: Victim, update: Update) -> NDArray[np.float64]:
    """The estimated share of each class behind an update; p is that of the model before and after it, averaged."""
    after = update.start + update.change
    means = [
        probabilities(victim.outputs(weights, update.public.features)).mean(0) for weights in (update.start, after)
    ]
    gradient = _bias(victim, update).double().numpy()
    if len(gradient) == 1:
        gradient = np.array([-gradient[0], gradient[0]])
    shares = np.clip(np.mean(means, axis=0) - gradient, 0, 1)
    found: NDArray[np.float64] = shares / (shares.sum() or 1.0)
    return found


def probabilities(outputs: torch.Tensor) -> NDArray[np.float64]:
    """(n, classes) from a network's outputs (n, k)."""
    import torch

    outputs = outputs.double()
    if outputs.shape[-1] == 1:
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=-1)
    found: NDArray[np.float64] = outputs.softmax(-1).numpy()
    return found
