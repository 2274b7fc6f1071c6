from __future__ import annotations

import numpy as np
import pytest
from benchmarks import encrypted_sums, membership, privacy


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


def test_the_attack_of_the_benchmark_finds_members_of_models_that_learnt_rows_by_heart() -> None:
    """On labels drawn at random there is nothing to learn but the rows themselves."""
    random = np.random.default_rng(0)
    hospitals = [
        membership.Hospital(random.standard_normal((40, 20), np.float32), random.integers(0, 2, 40)) for _ in range(2)
    ]
    found = {row.name: row.value for row in membership.rows_of("noise", hospitals, 8, epsilons=(None,))}
    assert found["noise/none/auc"] > 0.8
    assert 0.3 < found["noise/none/accuracy"] < 0.7


@pytest.mark.parametrize("dropouts", [0, 1])
def test_a_whole_encrypted_sum_is_formed_and_compared_with_the_plain_one(dropouts: int) -> None:
    pytest.importorskip("tenseal")
    cost = encrypted_sums.one_sum(5_000, 5, dropouts)
    assert min(cost.site, cost.coordinator, cost.decryption) > 0
    assert 3 * 65_676 < cost.sent < 3 * 65_676 + 2_000
