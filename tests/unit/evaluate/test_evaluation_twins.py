"""The batched twins of the evaluation steps: each site's reply is what it would give alone, and as withheld."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_sites import MemorySite, binary_site, by_name, is_withheld, policy
from sklearn import metrics as sklearn

from medfed.core.errors import Refused
from medfed.core.examples import Predictions, Split
from medfed.evaluate.evaluation import Candidate, class_sums, own_metrics, value_sums

STEPS = (class_sums, value_sums, own_metrics)


@dataclass
class MemoryStack:
    """Several sites in memory, whose predictions come in one call."""

    sites: list[MemorySite]
    calls: int = 0

    def predict(self, weights: np.ndarray, split: Split) -> list[Predictions]:
        self.calls += 1
        return [site.predict(weights, split) for site in self.sites]


def candidate(classes: int) -> Candidate:
    return Candidate(np.zeros(1, np.float32), Split.TEST, classes)


def stack_of(sites: list[MemorySite], classes: int) -> MemoryStack:
    for site in sites:
        site.classes = classes
    return MemoryStack(sites)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 5])), min_size=1, max_size=6), st.integers(0, 99))
def test_stacked_sites_release_what_scikit_learn_finds_at_each_and_nothing_of_the_small(described, seed):
    sites = [binary_site(rows, seed + i, policy(minimum_count=least)) for i, (rows, least) in enumerate(described)]
    stack = stack_of(sites, 2)
    replies, sums = own_metrics.run_many(stack, candidate(2)), class_sums.run_many(stack, candidate(2))
    assert stack.calls == 2
    for site, reply, part in zip(sites, replies, sums, strict=True):
        scores, targets = site.predictions.scores, site.predictions.targets
        rows, least = len(targets), site.policy.minimum_count
        found = by_name(reply)
        assert part.withheld == (0 < rows < least)
        if part.withheld:
            assert is_withheld(reply)
            assert (part.loss, part.brier, part.confusion.sum(), part.histogram.sum()) == (0.0, 0.0, 0, 0)
        elif rows:
            loss = sklearn.log_loss(targets, scores, labels=[0, 1])
            assert found["loss"].value == pytest.approx(loss, rel=1e-12)
            assert part.loss == pytest.approx(loss * rows, rel=1e-12)
            theirs = sklearn.confusion_matrix(targets, scores >= 0.5, labels=[0, 1])
            np.testing.assert_array_equal(part.confusion, theirs)
            small = min(n for n in (int((targets == k).sum()) for k in (0, 1)) if n) < least
            assert (found["recall"].reason == "withheld") is small
            if not small and len(set(targets.tolist())) == 2:
                assert found["auc"].value == pytest.approx(sklearn.roc_auc_score(targets, scores), rel=1e-12)


def test_stacked_sites_of_an_outcome_give_their_sums_and_their_own_r2():
    rng = np.random.default_rng(0)
    sites = []
    for rows in (12, 0, 3, 30):
        targets = rng.normal(size=rows)
        scores = targets + rng.normal(scale=0.3, size=rows)
        sites.append(MemorySite(Predictions(scores, targets), policy(minimum_count=5)))
    stack = stack_of(sites, 0)
    sums, replies = value_sums.run_many(stack, candidate(0)), own_metrics.run_many(stack, candidate(0))
    assert [(each.rows, each.withheld) for each in sums] == [(12, 0), (0, 0), (0, 1), (30, 0)]
    assert is_withheld(replies[2])
    for i in (0, 3):
        targets, scores = sites[i].predictions.targets, sites[i].predictions.scores
        assert sums[i].squared_error == pytest.approx(((targets - scores) ** 2).sum(), rel=1e-12)
        assert sums[i].second == pytest.approx((targets**2).sum(), rel=1e-12)
        assert by_name(replies[i])["r2"].value == pytest.approx(sklearn.r2_score(targets, scores), rel=1e-12)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_message_of_other_classes_is_refused_before_anything_is_predicted(step):
    stack = stack_of([binary_site(10, 1), binary_site(10, 2)], 2)
    stack.sites[1].classes = 3
    with pytest.raises(Refused, match="number of classes"):
        step.run_many(stack, candidate(2))
    assert stack.calls == 0
