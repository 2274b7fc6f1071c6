"""Sites in memory, whose predictions are given, for the evaluation steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from medfed.core.errors import Refused
from medfed.core.examples import Predictions, Split
from medfed.core.messages import add
from medfed.core.rng import generator
from medfed.data.encoding import Encoding, new_encoding
from medfed.data.findings import Findings, Tally
from medfed.data.kinds import objects
from medfed.data.splits import SPLITS
from medfed.data.table import SiteTable
from medfed.evaluate.evaluation import Candidate
from medfed.metrics.measure import Measure, Measures
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

TASK = TaskSpec.model_validate(
    {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg"},
        "evaluation": {"bins": 100},
    }
)


@dataclass
class MemorySite:
    """A site whose predictions are given; ``weights`` of a candidate are added to them.

    rows_each: the rows of one patient, who keeps one class.
    """

    predictions: Predictions
    policy: Policy = field(default_factory=Policy.permissive)
    rows_each: int = 1
    classes: int = 2

    def predict(self, weights: np.ndarray, split: Split) -> Predictions:
        assert split is Split.TEST
        return Predictions(self.predictions.scores + weights.sum(), self.predictions.targets)

    def recall(self, kind: type) -> Encoding:
        assert kind is Encoding
        return new_encoding({}, {}, "none", tuple(str(number) for number in range(self.classes)))

    def generator(self, purpose: str) -> np.random.Generator:
        return generator(0, "memory", purpose)

    def resource(self, kind: type) -> Any:
        return {TaskSpec: TASK, Policy: self.policy, SiteTable: self.table()}[kind]

    def table(self) -> SiteTable:
        """The rows behind the predictions, all of the test split."""
        targets, rows = self.predictions.targets, len(self.predictions)
        seen: Counter[float] = Counter()
        ids = []
        for target in targets.tolist():
            ids.append(f"{target}/{seen[target] // self.rows_each}")
            seen[target] += 1
        split = np.full(rows, SPLITS.index(Split.TEST), np.int8)
        return SiteTable("memory", {}, {}, {}, objects(ids), targets, None, split, Findings(Tally(rows, rows)))


def policy(**changes: Any) -> Policy:
    return Policy.permissive().model_copy(update=changes)


def binary_site(rows: int, seed: int, policy: Policy | None = None) -> MemorySite:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, rows)
    scores = np.clip(0.3 * targets + rng.uniform(0.05, 0.65, rows), 0, 1)
    return MemorySite(Predictions(scores, targets), policy or Policy.permissive())


def one_class(rows: int, **changes: Any) -> MemorySite:
    return MemorySite(Predictions(np.linspace(0.1, 0.9, rows), np.zeros(rows, np.int64)), policy(**changes))


def by_name(measures: Measures) -> dict[str, Measure]:
    return {each.metric: each for each in measures.measures}


def is_withheld(measures: Measures) -> bool:
    return {(each.value, each.n, each.reason) for each in measures.measures} == {(None, 0, "withheld")}


@dataclass
class MemoryFederation:
    """Both verbs over sites in memory: those that refuse are absent from ``ask`` and end a ``sum``."""

    members: dict[str, MemorySite]
    asked: list[str] = field(default_factory=list)

    def sum(self, step, message, *, sites):
        self.asked.append(step.name)
        if not all(self._allows(site, step) for site in sites):
            raise Refused("a site refused")
        return reduce(add, (step.run(self.members[site], message[site]) for site in sites))

    def ask(self, step, message, *, sites):
        self.asked.append(step.name)
        return {site: step.run(self.members[site], message[site]) for site in sites if self._allows(site, step)}

    def _allows(self, site, step) -> bool:
        allowed = self.members[site].policy.releases
        return allowed == "*" or step.releases.value in allowed


def candidates(fed: MemoryFederation, classes: int, **shifts: float) -> dict[str, Candidate]:
    for member in fed.members.values():
        member.classes = classes
    return {site: Candidate(np.array([shifts.get(site, 0.0)], np.float32), Split.TEST, classes) for site in fed.members}


def pooled(fed: MemoryFederation) -> Predictions:
    each = [site.predictions for site in fed.members.values()]
    return Predictions(np.concatenate([p.scores for p in each]), np.concatenate([p.targets for p in each]))
