"""Differential privacy of a whole site: its update is clipped, and the sites share the noise that their total carries.

After McMahan et al. 2018 ("Learning differentially private recurrent language models"), with sites for users: a site's
update Δ_k, its change of all weights in a round, becomes Δ_k · min(1, C/‖Δ_k‖₂), and every site counts alike. Were each
site weighed by its rows, one with many of them would move the total by more than C, and the weights themselves, which
are numbers of rows, would leave without noise. Each site adds N(0, (zC)²/K), K being the least number of shares of
noise that an observer does not know, so that the total carries zC or more.

The clipping norm may follow the updates (Andrew et al. 2021, "Differentially private learning with adaptive clipping",
Algorithm 1): each site also says, by b_k − ½ + noise, whether its update was within C_t; the total's noise is σ_b. One
noise multiplier z covers both if the update's is z_Δ = (z⁻² − (2σ_b)⁻²)^−½ (Theorem 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.messages import Vector
from medfed.core.spending import Mechanism, Spend
from medfed.privacy.accountant import noise_for
from medfed.privacy.graph import least_sites
from medfed.privacy.keystream import Keystream
from medfed.privacy.noise import add_noise
from medfed.spec.task import SitePrivacy

_AT_A_TIME = 2**20


@dataclass(frozen=True)
class SitePlan:
    """What every site of a task does to its updates.

    noise_multiplier: z, as it is accounted for. update_noise: z_Δ, which is z where the clipping norm is fixed.
    count_noise: σ_b, or None. shares: K. rounds: in how many the site's update is released at most.
    """

    noise_multiplier: float
    update_noise: float
    count_noise: float | None
    shares: int
    rounds: int

    def share_of(self, norm: float) -> float:
        """The standard deviation of one site's noise under a clipping norm C: z_Δ C/√K."""
        return self.update_noise * norm / math.sqrt(self.shares)

    @property
    def round(self) -> Spend:
        """What one round spends."""
        return Spend(self.noise_multiplier, 1.0, 1, Mechanism.WHOLE_SITE)

    @property
    def run(self) -> Spend:
        """What all rounds spend together."""
        return Spend(self.noise_multiplier, 1.0, self.rounds, Mechanism.WHOLE_SITE)


def shares_of_noise(asked: int, answering: int, *, secure: bool) -> int:
    """K: the least number of shares of noise in a total that whoever looks at it does not know.

    asked, answering: sites that a round asks, and those that must answer. In the clear the coordinator is trusted with
    each update, and any hospital knows its own share. Under secure aggregation, or encryption, a site lets a total of
    as few sites be opened as the protocol needs, of which as few may form it; those that may collude, fewer than a
    third, know theirs.
    """
    if secure:
        fewest = least_sites(asked)
        return max(least_sites(fewest) - max((fewest - 1) // 3, 1), 1)
    return max(answering - 1, 1)


def site_plan(privacy: SitePrivacy, *, asked: int, shares: int, rounds: int) -> SitePlan:
    """The plan of a task whose rounds ask so many sites. Raises ValueError where σ_b is too small for any z_Δ.

    Noise is the task's own, or that with which all rounds cost its epsilon at most, by PLD. Sites drawn for a cohort
    are no secret, so that nothing is gained by sampling: a site may be drawn in each round, and pays for those in which
    it is.
    """
    noise = privacy.noise_multiplier
    if privacy.epsilon is not None:
        noise = noise_for(privacy.epsilon, privacy.delta, 1.0, rounds)
    if noise is None:
        raise ValueError("privacy.site says neither epsilon nor noise_multiplier")
    if privacy.adaptive is None:
        return SitePlan(noise, noise, None, shares, rounds)
    count_noise = privacy.adaptive.count_noise or max(asked / 20, noise)
    return SitePlan(noise, split_noise(noise, count_noise), count_noise, shares, rounds)


def split_noise(noise: float, count_noise: float) -> float:
    """z_Δ = (z⁻² − (2σ_b)⁻²)^−½. Raises ValueError where 2σ_b ≤ z: the count alone would cost more than z does."""
    left = noise**-2 - (2 * count_noise) ** -2
    if left <= 0:
        raise ValueError(f"a count with noise {count_noise:g} leaves none of the noise multiplier {noise:g} to updates")
    return float(left**-0.5)


def norm_of(start: Vector, weights: Vector) -> float:
    """‖weights − start‖₂, formed in float64."""
    total = 0.0
    for begin in range(0, start.size, _AT_A_TIME):
        part = slice(begin, begin + _AT_A_TIME)
        change = weights[part].astype(np.float64) - start[part]
        total += float(np.dot(change, change))
    return math.sqrt(total)


def protect_update(start: Vector, weights: Vector, norm: float, plan: SitePlan, keystream: Keystream) -> None:
    """Overwrite ``weights`` by start + clipped change + this site's share of the noise. norm: C."""
    size = norm_of(start, weights)
    factor = min(1.0, norm / size) if size > 0 else 1.0
    scale = plan.share_of(norm)
    for begin in range(0, start.size, _AT_A_TIME):
        part = slice(begin, begin + _AT_A_TIME)
        change = weights[part].astype(np.float64) - start[part]
        change *= factor
        add_noise(change, scale, keystream)
        change += start[part]
        weights[part] = change


def noisy_within(within: bool, plan: SitePlan, keystream: Keystream) -> float:
    """b_k − ½ with this site's share of the noise σ_b; b_k: whether its update was within the norm."""
    if plan.count_noise is None:
        raise ValueError("the clipping norm is fixed")
    count: NDArray[np.float64] = np.array([float(within) - 0.5])
    add_noise(count, plan.count_noise / math.sqrt(plan.shares), keystream)
    return float(count[0])


def adapted(norm: float, within: float, sites: int, *, quantile: float, rate: float) -> float:
    """C_{t+1} = C_t · exp(−η_C (b̃ − γ)), b̃ being the noisy share of updates within C_t.

    within: Σ (b_k − ½) with its noise. What noise brings out of 0 to 1 is cut to it, so that a step stays bounded where
    sites are few; this is post-processing.
    """
    share = min(max(within / sites + 0.5, 0.0), 1.0)
    return norm * math.exp(-rate * (share - quantile))
