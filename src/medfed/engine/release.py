"""Noise in the sums that a site releases: charged before they are formed, added before they leave."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from medfed.core.errors import DataError
from medfed.core.messages import Message
from medfed.core.sensitivity import Bounds
from medfed.core.steps import Release, Step
from medfed.core.wire import Request
from medfed.engine.charging import charge
from medfed.privacy.extra import require_privacy
from medfed.privacy.release import ReleaseNoise, moved_fields, noised, undeclared
from medfed.spec.policy import Policy
from medfed.spec.task import ReleasePrivacy

if TYPE_CHECKING:
    from medfed.engine.site import SiteNode


def declares_sensitivity(step: Step[Any, Any]) -> bool:
    """Whether a step releases a sum all of whose fields say how much one patient moves them."""
    return step.releases is Release.SUM and not undeclared(step.reply)


def bounds_of(release: ReleasePrivacy, classes: int) -> Bounds:
    """What the task bounds, where the outcome has so many classes."""
    low, high = release.outcome or (0.0, 0.0)
    return Bounds(release.rows_per_patient, classes, release.loss_bound, low, high)


def charge_release(node: SiteNode, request: Request, policy: Policy, step: Step[Any, Any], classes: int) -> None:
    """Charge the sum that a step is about to form, if it gets noise. Raises Refused where the budget forbids it."""
    release = node.task.privacy.release
    if release is None or not declares_sensitivity(step) or not moved_fields(step.reply, bounds_of(release, classes)):
        return
    require_privacy()
    _check_rows(node, release)
    charge(node, request, policy, ReleaseNoise.of(release).spend)


def _check_rows(node: SiteNode, release: ReleasePrivacy) -> None:
    """Raise DataError where a patient has more rows than the noise is for."""
    most = max(Counter(node.rows().table.ids.tolist()).values(), default=0)
    if most > release.rows_per_patient:
        raise DataError(
            f"a patient has more rows than privacy.release.rows_per_patient ({release.rows_per_patient})",
            where=node.site,
            remedy="raise it in the task, or keep fewer rows of each patient",
        )


def with_noise(body: Message, step: Step[Any, Any], release: ReleasePrivacy | None, classes: int) -> Message:
    """What a step gave, with noise if the task wants it of such a sum."""
    if release is None or not declares_sensitivity(step):
        return body
    return noised(body, ReleaseNoise.of(release), bounds_of(release, classes))
