"""A site's noisy labels: drawn once for a task and its rows, charged once, the same in every round and resumed run."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.examples import Examples
from medfed.core.spending import Mechanism, Spend
from medfed.core.wire import Request
from medfed.engine.charging import charge_once
from medfed.engine.cohort import digest_of_rows
from medfed.privacy.extra import require_privacy
from medfed.privacy.response import answers, kept_share
from medfed.spec.policy import Policy
from medfed.spec.task import Privacy

if TYPE_CHECKING:
    from medfed.engine.site import SiteNode


@dataclass
class SiteLabels:
    """The answers that stand for a site's training labels. secret: the site's own key, durable, which never leaves."""

    secret: Callable[[], bytes]
    _answers: dict[tuple[str, ...], NDArray[np.int64]] = field(default_factory=dict)

    def answered(
        self, node: SiteNode, request: Request, policy: Policy, training: Examples, classes: tuple[str, ...]
    ) -> Examples:
        """The training rows with answers for labels, after these were charged.

        Raises Refused where the dataset's budget does not allow the draw, or the run drew for other classes before.
        """
        privacy = node.task.privacy.labels
        if privacy is None:
            return training
        if len(classes) < 2:
            raise DataError("there are no classes to answer with (privacy.labels)", where=node.site)
        if classes not in self._answers:
            require_privacy()
            key = hmac.digest(self.secret(), b"medfed noisy labels", "sha256")
            context = "\0".join((node.digest, digest_of_rows(key, node.rows().table).hex(), *classes))
            drawn = hmac.new(key, context.encode(), hashlib.sha256).hexdigest()
            charge_once(node, request, policy, Spend(1 / privacy.epsilon, 1.0, 1, Mechanism.RESPONSE), drawn)
            self._answers[classes] = answers(training.targets, len(classes), privacy.epsilon, key, context)
        return Examples(training.features, self._answers[classes])


def kept_of(privacy: Privacy, classes: int) -> float:
    """The share κ of labels that are kept; 1 where they are as they were."""
    return 1.0 if privacy.labels is None else kept_share(privacy.labels.epsilon, classes)
