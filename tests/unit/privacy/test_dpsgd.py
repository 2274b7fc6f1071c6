from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from medfed.privacy.dpsgd import DpSgd


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.squeeze(-1) - targets).square()


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("expected", [4.0, 50.0])
def test_the_noise_has_standard_deviation_sigma_c_over_the_expected_batch(rows, expected):
    features, clip_norm, sigma = 60_000, 0.7, 1.3
    private = DpSgd(
        module := nn.Linear(features, 1, bias=False),
        squared,
        clip_norm=clip_norm,
        noise_multiplier=sigma,
        sampling_rate=0.1,
        expected_batch=expected,
    )
    silent = DpSgd(
        module, squared, clip_norm=clip_norm, noise_multiplier=0.0, sampling_rate=0.1, expected_batch=expected
    )
    x, y = torch.randn(rows, features), torch.randn(rows)
    noisy, plain = torch.zeros(features), torch.zeros(features)
    private.write(noisy, x, y)
    silent.write(plain, x, y)
    noise = (noisy - plain).double().numpy() * expected / (clip_norm * sigma)
    low, high = stats.chi2.interval(1 - 1e-7, features)
    assert low < float(np.square(noise).sum()) < high
    assert stats.kstest(noise, "norm").pvalue > 1e-7


def test_noise_differs_between_steps_and_between_trainings():
    def fresh() -> DpSgd:
        return DpSgd(nn.Linear(5, 1), squared, clip_norm=1.0, noise_multiplier=1.0, sampling_rate=0.1, expected_batch=4)

    torch.manual_seed(0)
    one, other = fresh(), fresh()
    drawn = []
    for private in (one, one, other):
        gradient = torch.zeros(6)
        private.write(gradient, torch.zeros(0, 5), torch.zeros(0))
        drawn.append(tuple(gradient.tolist()))
    assert len(set(drawn)) == 3
