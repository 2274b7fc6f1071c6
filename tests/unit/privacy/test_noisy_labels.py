from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from medfed.models.loss import corrected_entropy, cross_entropy
from medfed.privacy.response import answers, kept_share

LEAST = 1e-7
KEY = b"k" * 32


@pytest.mark.parametrize(("epsilon", "classes"), [(0.5, 2), (2.0, 3), (1.0, 10)])
def test_answers_have_the_chances_of_randomised_response(epsilon, classes):
    rows = 60_000
    truth = np.arange(rows) % classes
    found = answers(truth, classes, epsilon, KEY, f"{epsilon} {classes}")
    whole = math.exp(epsilon) + classes - 1
    for label in range(classes):
        counts = np.bincount(found[truth == label], minlength=classes)
        chances = np.full(classes, 1 / whole)
        chances[label] = math.exp(epsilon) / whole
        assert stats.chisquare(counts, chances * counts.sum()).pvalue > LEAST
    kept = kept_share(epsilon, classes)
    assert kept + (1 - kept) / classes == pytest.approx(math.exp(epsilon) / whole)


def test_the_same_draw_comes_again_and_another_key_or_context_draws_anew():
    truth = np.arange(500) % 4
    first = answers(truth, 4, 0.5, KEY, "task")
    assert np.array_equal(first, answers(truth, 4, 0.5, KEY, "task"))
    assert not np.array_equal(first, answers(truth, 4, 0.5, KEY, "another task"))
    assert not np.array_equal(first, answers(truth, 4, 0.5, b"j" * 32, "task"))


def test_one_label_decides_on_its_own_answer_alone():
    truth = np.arange(500) % 4
    other = truth.copy()
    other[17] = (other[17] + 1) % 4
    changed = answers(truth, 4, 0.5, KEY, "task") != answers(other, 4, 0.5, KEY, "task")
    assert not np.delete(changed, 17).any()


@pytest.mark.parametrize("classes", [2, 5])
def test_the_corrected_loss_is_least_where_the_model_says_the_truth(classes):
    """Over answers of every label by their chances: its gradient vanishes at the true probabilities (a closed form)."""
    kept, truth = 0.4, torch.softmax(torch.linspace(-1, 1, classes), 0)
    shown = kept * truth + (1 - kept) / classes
    logits = (torch.log(truth[1] / truth[0])[None] if classes == 2 else torch.log(truth)).clone().requires_grad_()
    outputs = logits.expand(classes, -1)
    (shown * corrected_entropy(outputs, torch.arange(classes), kept)).sum().backward()
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-6)


def test_labels_that_are_all_kept_have_the_plain_loss():
    outputs, targets = torch.randn(20, 3), torch.arange(20) % 3
    plain = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    assert torch.allclose(corrected_entropy(outputs, targets, 1.0), plain, atol=1e-5)
    weights = torch.tensor([1.0, 2.0, 3.0])
    theirs = torch.nn.functional.cross_entropy(outputs, targets, weight=weights)
    assert torch.allclose(cross_entropy(weights, 1 - 1e-9)(outputs, targets), theirs, atol=1e-5)


def test_the_corrected_loss_is_bounded_where_the_plain_one_is_not():
    outputs, targets = torch.tensor([[80.0], [-80.0]]), torch.tensor([0, 1])
    assert float(corrected_entropy(outputs, targets, 0.5).max()) <= -math.log(0.25) + 1e-6
