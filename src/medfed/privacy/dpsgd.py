"""Differentially private stochastic gradient descent: Abadi et al. 2016, Algorithm 1.

In each step a batch is drawn by Poisson sampling with probability q; each row's gradient is clipped to the norm C;
noise N(0, σ²C²) is added to their sum, which is divided by the expected batch qn, never by the size of the batch that
came, for that would tell it. Whatever an optimizer makes of this gradient is post-processing and costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.privacy.clipping import Losses, clipped_sum
from medfed.privacy.keystream import Keystream
from medfed.privacy.layers import check_layers
from medfed.privacy.noise import add_noise
from medfed.privacy.sampling import poisson_sample

if TYPE_CHECKING:
    import torch


class DpSgd:
    """The private gradients of one network's local training (implements ``PrivateGradients``).

    losses: each row's own loss. clip_norm: C. noise_multiplier: σ; 0 adds none, and promises nothing. sampling_rate: q.
    expected_batch: qn. Raises UserError where a layer forbids it.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        losses: Losses,
        *,
        clip_norm: float,
        noise_multiplier: float,
        sampling_rate: float,
        expected_batch: float,
    ) -> None:
        check_layers(module)
        self._sum = clipped_sum(module, losses, clip_norm)
        self._scale = noise_multiplier * clip_norm
        self._rate = sampling_rate
        self._expected = expected_batch
        self._keystream = Keystream()

    def draw(self, rows: int) -> NDArray[np.int64]:
        """The rows of the next batch, drawn anew from all of them; there may be none."""
        return poisson_sample(rows, self._rate, self._keystream)

    def write(self, gradient: torch.Tensor, features: torch.Tensor, targets: torch.Tensor) -> None:
        """Overwrite the flat ``gradient`` (d,) by the private one of a batch (n, …), which may have no rows."""
        import torch

        total = np.zeros(gradient.numel())
        at_once = self._sum.rows_at_once(features) if len(targets) else 1
        for start in range(0, len(targets), at_once):
            some = slice(start, start + at_once)
            total += self._sum(features[some], targets[some]).numpy(force=True)
        add_noise(total, self._scale, self._keystream)
        total /= self._expected
        gradient.copy_(torch.from_numpy(total))
