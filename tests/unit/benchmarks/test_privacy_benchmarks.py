from __future__ import annotations

import numpy as np
import pytest
from benchmarks import encrypted_sums, membership, privacy
from benchmarks.membership import Shadow
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score


@pytest.mark.parametrize("dropouts", [0, 1])
def test_a_whole_sum_is_formed_and_compared_with_the_plain_one(dropouts: int) -> None:
    cost = privacy.one_sum(20_000, 5, dropouts)
    assert cost.site > 0 and cost.coordinator > 0
    assert 80_000 < cost.sent < 90_000


def test_a_total_that_is_not_that_of_the_contributions_fails_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = privacy.Encoder.decode

    def doubled(self, rings, layout):  # type: ignore[no-untyped-def]
        total = decode(self, rings, layout)
        total.delta[:] *= 2
        return total

    monkeypatch.setattr(privacy.Encoder, "decode", doubled)
    with pytest.raises(AssertionError, match="not that of the contributions"):
        privacy.one_sum(1_000, 4, 0)


@pytest.mark.parametrize("dropouts", [0, 1])
def test_a_whole_encrypted_sum_is_formed_and_compared_with_the_plain_one(dropouts: int) -> None:
    pytest.importorskip("tenseal")
    cost = encrypted_sums.one_sum(5_000, 5, dropouts)
    assert min(cost.site, cost.coordinator, cost.decryption) > 0
    assert 3 * 65_676 < cost.sent < 3 * 65_676 + 2_000


def drawn(shift: float, models: int = 8, rows: int = 400) -> list[Shadow]:
    """Models whose members' scores are higher by so many standard deviations."""
    random = np.random.default_rng(3)
    members = membership._halves(rows, models, random)
    easy = random.normal(0, 2, rows)
    return [Shadow(each, easy + shift * each + random.normal(0, 1, rows), 1.0) for each in members]


def test_the_attack_finds_members_as_well_as_two_normal_distributions_allow() -> None:
    """AUC of the likelihood ratio of N(2, 1) and N(0, 1) is Φ(2/√2) = .921; means are estimated from a few models."""
    assert 0.85 < roc_auc_score(*reversed(membership.lira(drawn(2.0)))) < 0.93


def test_the_attack_guesses_where_members_score_like_others() -> None:
    assert 0.45 < roc_auc_score(*reversed(membership.lira(drawn(0.0)))) < 0.55


def test_every_row_is_in_half_of_the_models() -> None:
    halves = membership._halves(31, 6, np.random.default_rng(0))
    assert (halves.sum(0) == 3).all()
    assert set(halves.sum(1)) == {15, 16}


@pytest.mark.parametrize(("caught", "of"), [(0, 50), (3, 200), (120, 400)])
def test_the_interval_is_wilsons(caught: int, of: int) -> None:
    interval = binomtest(caught, of).proportion_ci(method="wilson")
    assert membership._wilson(caught, of) == pytest.approx((interval.low, interval.high), abs=1e-4)
