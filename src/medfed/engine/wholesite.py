"""Differential privacy of a whole site in a run: what it excludes, what it costs, and each site's part in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medfed.core.errors import Refused, UserError
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Trained
from medfed.core.wire import Request
from medfed.engine.charging import charge
from medfed.engine.federation import share
from medfed.privacy.accountant import pld_epsilon
from medfed.privacy.extra import require_privacy
from medfed.privacy.keystream import Keystream
from medfed.privacy.wholesite import SitePlan, noisy_within, norm_of, protect_update, shares_of_noise, site_plan
from medfed.spec.policy import Policy
from medfed.spec.task import FederationSpec, TaskSpec

if TYPE_CHECKING:
    from medfed.engine.site import SiteNode

_LARGEST_NORM = 2.0**60

_FARTHEST = 8.0
"""Standard deviations beyond which noise hardly ever lies: once in 1e15 draws."""


@dataclass(frozen=True)
class ClipNorm(Message, wire="site_privacy.clip_norm"):
    """The norm to which a site clips its updates of a round, as it was told."""

    round: int
    norm: float


@dataclass(frozen=True)
class NoisyWithin(Message, wire="site_privacy.noisy_within"):
    """Whether a site's last update was within the norm, with its noise, which was drawn once: what it says if asked."""

    round: int
    norm: float
    within: float


def plan_of(task: TaskSpec, sites: int) -> SitePlan | None:
    """The task's plan over so many sites; None without ``privacy.site``. Raises UserError where there can be none.

    A run may begin with as few sites as its quorum, and each round then asks and needs its own part of those.
    """
    privacy, federation = task.privacy.site, task.federation
    if privacy is None:
        return None
    asked = share(federation.cohort, max(sites, 1))
    answering = _fewest(federation, max(sites, 1))
    shares = shares_of_noise(asked, answering, secure=task.privacy.hides_parts)
    try:
        plan = site_plan(privacy, asked=asked, shares=shares, rounds=federation.total_rounds)
    except ValueError as error:
        remedy = "raise privacy.site.adaptive.count_noise above half the noise multiplier, or leave it out"
        raise UserError(str(error), remedy=remedy) from error
    bound, needed = task.privacy.update_bound, privacy.clip_norm + _FARTHEST * plan.share_of(privacy.clip_norm)
    if bound is not None and bound < needed:
        raise UserError(
            f"privacy.update_bound ({bound:g}) leaves no room for the noise: sites would fail for their updates' size",
            remedy=f"write update_bound: {math.ceil(needed)}, or leave it out",
        )
    return plan


def _fewest(federation: FederationSpec, sites: int) -> int:
    """The fewest sites over which a total may be formed in the clear."""
    return share(federation.quorum, share(federation.cohort, share(federation.quorum, sites)))


@dataclass(frozen=True)
class ProtectedUpdate:
    """What happens to a site's update, after it was charged. norm: C_t."""

    round: int
    norm: float
    plan: SitePlan

    def apply(self, start: Vector, trained: Trained) -> tuple[Trained, NoisyWithin | None]:
        """The training's outcome clipped and with noise, which counts as one row whatever the site's; and what the site
        says of it where the norm is adaptive."""
        keystream, said = Keystream(), None
        if self.plan.count_noise is not None:
            within = norm_of(start, trained.weights) <= self.norm
            said = NoisyWithin(self.round, self.norm, noisy_within(within, self.plan, keystream))
        protect_update(start, trained.weights, self.norm, self.plan, keystream)
        return replace(trained, rows=1), said


def protected_update(
    node: SiteNode, request: Request, policy: Policy, told: ClipNorm | None, *, first: bool
) -> ProtectedUpdate | None:
    """A site's part in a training request, after it was charged; None without ``privacy.site``.

    told: the norm that the coordinator sent last, if it is adaptive. first: as in :func:`charge`. Raises Refused where
    the run's plan does not allow it.
    """
    plan, privacy = plan_of(node.task, node.sites), node.task.privacy.site
    if plan is None or privacy is None:
        return None
    require_privacy()
    norm = privacy.clip_norm
    if privacy.adaptive is not None:
        if told is None or told.round != request.round:
            raise Refused("this site was not told to which norm it clips the round's update (privacy.site.adaptive)")
        norm = told.norm
    charge(node, request, policy, plan.round, most=plan.rounds, first=first)
    return ProtectedUpdate(request.round, norm, plan)


def is_norm(norm: float) -> bool:
    """Whether a number can be a clipping norm."""
    return 0 < norm < _LARGEST_NORM


def cost_in_words(task: TaskSpec, sites: int, parameters: int | None) -> list[str]:
    """What ``privacy.site`` costs, in figures: its epsilon, and its noise beside the largest update; none without it.

    sites: of the task; parameters: of its model, if known. Raises MissingExtra, UserError.
    """
    plan, privacy = plan_of(task, sites), task.privacy.site
    if plan is None or privacy is None:
        return []
    require_privacy()
    epsilon = pld_epsilon([plan.run], privacy.delta)
    asked = share(task.federation.cohort, sites)
    answering = _fewest(task.federation, sites)
    # of the mean over those asked, which all carry a share
    deviation = plan.update_noise * privacy.clip_norm / math.sqrt(plan.shares * asked)
    told = [
        f"privacy.site protects a whole site with epsilon {epsilon:.2f} at delta {privacy.delta:g} over {plan.rounds} "
        f"rounds (noise multiplier {plan.noise_multiplier:.3g})",
        f"the mean over {asked} sites carries noise of standard deviation {deviation:.3g} in each weight in each round"
        + (f": {_times(deviation * math.sqrt(parameters) / privacy.clip_norm)}" if parameters else ""),
    ]
    if asked < _MANY:
        told.append(
            f"with {asked} sites that is usually more than a model bears: privacy.record protects each row at a "
            "fraction of this noise, and does not ask for many sites"
        )
    if task.privacy.aggregation == "clear":
        told.append(
            f"totals are in the clear: the coordinator sees each update with a share of the noise alone "
            f"(1/{plan.shares} of its variance, {answering} sites having to answer), and is trusted with it; "
            "aggregation: secure hides it"
        )
    return told


_MANY = 100
"""Sites from which on the noise of a whole site is no longer told as a warning."""


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times the norm of the largest mean update (clip_norm)"
