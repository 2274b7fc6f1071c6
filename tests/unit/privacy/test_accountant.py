from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

from medfed.core.errors import DataError, MissingExtra, TaskError
from medfed.core.spending import Spend
from medfed.privacy import extra
from medfed.privacy.accountant import SMALLEST_NOISE, noise_for, pld_epsilon, prv_epsilon
from medfed.privacy.plan import plan_for
from medfed.spec.task import RecordPrivacy


def test_no_steps_cost_nothing_and_no_noise_costs_everything():
    assert prv_epsilon([], 1e-5) == pld_epsilon([Spend(1.0, 0.1, 0)], 1e-5) == 0.0
    assert prv_epsilon([Spend(0.0, 0.1, 1)], 1e-5) == pld_epsilon([Spend(0.0, 0.1, 1)], 1e-5) == math.inf


@pytest.mark.parametrize("spend", [Spend(0.3, 1.0, 10**7), Spend(0.5, 0.9, 10**6), Spend(0.0, 0.1, 1)])
def test_what_protects_nobody_costs_everything_and_is_told_at_once(spend):
    assert prv_epsilon([spend], 1e-5) == pld_epsilon([Spend(2.0, 0.1, 5), spend], 1e-5) == math.inf


@pytest.mark.parametrize(("rate", "steps", "epsilon"), [(0.5, 1000, 5.0), (0.001, 100, 0.5), (0.01, 5, 20.0)])
def test_noise_is_found_far_from_the_usual(rate, steps, epsilon):
    noise = noise_for(epsilon, 1e-5, rate, steps)
    assert prv_epsilon([Spend(noise, rate, steps)], 1e-5) <= epsilon
    assert noise == SMALLEST_NOISE or prv_epsilon([Spend(noise * 0.99, rate, steps)], 1e-5) > epsilon


def test_more_steps_rows_or_less_noise_cost_more():
    base = Spend(1.5, 0.05, 100)
    for more in (Spend(1.5, 0.05, 101), Spend(1.5, 0.06, 100), Spend(1.4, 0.05, 100)):
        for epsilon in (prv_epsilon, pld_epsilon):
            assert epsilon([more], 1e-5) > epsilon([base], 1e-5)


def test_splitting_or_reordering_spends_changes_nothing():
    one = [Spend(1.5, 0.05, 100), Spend(2.0, 0.1, 30)]
    other = [Spend(2.0, 0.1, 10), *[Spend(1.5, 0.05, 25)] * 4, Spend(2.0, 0.1, 20)]
    assert pld_epsilon(one, 1e-5) == pld_epsilon(other, 1e-5)
    assert prv_epsilon(one, 1e-5) == prv_epsilon(other, 1e-5)


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(3.0, 0.05, 200), (1.0, 0.3, 20), (8.0, 0.01, 1000)])
def test_the_solved_noise_is_the_least_that_keeps_the_epsilon(epsilon, rate, steps):
    noise = noise_for(epsilon, 1e-5, rate, steps)
    assert prv_epsilon([Spend(noise, rate, steps)], 1e-5) <= epsilon
    assert prv_epsilon([Spend(noise * 0.99, rate, steps)], 1e-5) > epsilon


def test_the_solved_noise_without_subsampling():
    noise = noise_for(2.0, 1e-5, 1.0, 5)
    assert pld_epsilon([Spend(noise, 1.0, 5)], 1e-5) <= 2.0 < pld_epsilon([Spend(noise * 0.99, 1.0, 5)], 1e-5)


def test_a_generous_epsilon_never_makes_the_noise_vanish():
    assert noise_for(100.0, 1e-5, 0.01, 3) == SMALLEST_NOISE


def test_an_impossible_epsilon_is_told():
    with pytest.raises(ValueError, match="no noise"):
        noise_for(0.01, 1e-5, 0.5, 10)
    assert prv_epsilon([Spend(noise_for(0.05, 1e-5, 0.1, 3), 0.1, 3)], 1e-5) <= 0.05


def test_a_plan_by_epsilon_and_by_noise():
    plan = plan_for(RecordPrivacy(epsilon=3), rows=640, batch=32, round_steps=20, rounds=5)
    assert (plan.sampling_rate, plan.expected_batch, plan.steps) == (0.05, 32, 100)
    assert 2.9 < prv_epsilon([Spend(plan.noise_multiplier, 0.05, 100)], 1e-5) <= 3
    assert plan.round == Spend(plan.noise_multiplier, 0.05, 20)
    plan = plan_for(RecordPrivacy(noise_multiplier=2), rows=64, batch=64, round_steps=1, rounds=5)
    assert plan.round == Spend(2.0, 1.0, 1)


def test_more_steps_than_can_be_accounted_for_are_refused():
    with pytest.raises(TaskError, match="10,000,010 noisy steps"):
        plan_for(RecordPrivacy(epsilon=3), rows=640, batch=32, round_steps=10**6 + 1, rounds=10)


@pytest.mark.parametrize(("rows", "refused"), [(99, False), (100, True), (5000, True)])
def test_delta_is_below_one_over_the_rows(rows, refused):
    privacy = RecordPrivacy(noise_multiplier=1, delta=0.01)
    if refused:
        with pytest.raises(DataError, match="delta"):
            plan_for(privacy, rows=rows, batch=10, round_steps=1, rounds=1)
    else:
        assert plan_for(privacy, rows=rows, batch=9, round_steps=1, rounds=1).sampling_rate == 9 / 99


def test_a_missing_library_is_named_with_its_pip_line(monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "opacus" else object())
    with pytest.raises(MissingExtra, match="opacus") as missing:
        extra.require_privacy()
    assert "dp-accounting" not in missing.value.cause
    assert missing.value.remedy == "pip install 'medfed[privacy]'"


def test_the_accountant_that_underestimates_is_used_nowhere():
    """Opacus's GDP accountant gives 3.40 where PRV gives 4.69."""
    source = Path(extra.__file__).parents[1]
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [alias.name for alias in node.names]
                assert not any("gdp" in f"{getattr(node, 'module', '')} {name}".lower() for name in names), path
                assert "GaussianAccountant" not in names and "create_accountant" not in names, path
