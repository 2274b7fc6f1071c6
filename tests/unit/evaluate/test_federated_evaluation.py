from __future__ import annotations

import numpy as np
import pytest
from memory_sites import (
    MemoryFederation,
    MemorySite,
    binary_site,
    by_name,
    candidates,
    is_withheld,
    one_class,
    policy,
    pooled,
)
from sklearn import metrics as sklearn

import medfed
from medfed.core.errors import QuorumLost, Refused
from medfed.core.examples import Predictions, Split
from medfed.core.steps import Release
from medfed.evaluate.evaluation import FEDERATED, evaluate
from medfed.metrics.measure import Measure, Measures

# ------------------------------------------------------------------------------------------ federated equals pooled


def check_binary(found: dict[str, Measure], of: Predictions, tolerance: float) -> None:
    predicted = of.scores >= 0.5
    assert {each.n for each in found.values()} == {len(of)}
    assert found["loss"].value == pytest.approx(sklearn.log_loss(of.targets, of.scores), rel=1e-12)
    assert found["accuracy"].value == sklearn.accuracy_score(of.targets, predicted)
    assert found["recall"].value == pytest.approx(sklearn.recall_score(of.targets, predicted), rel=1e-12)
    assert found["brier"].value == pytest.approx(sklearn.brier_score_loss(of.targets, of.scores), rel=1e-12)
    assert abs(found["auc"].value - sklearn.roc_auc_score(of.targets, of.scores)) <= tolerance


def test_the_federated_metrics_are_those_of_all_rows_and_each_sites_its_own():
    fed = MemoryFederation(
        {"a": binary_site(40, 1), "b": binary_site(7, 2, policy(minimum_count=0)), "c": binary_site(90, 3)}
    )
    measured = evaluate(fed, candidates(fed, 2))
    assert list(measured) == ["a", "b", "c", FEDERATED]
    total = by_name(measured[FEDERATED])
    assert 0 < total["auc"].error < 0.02
    check_binary(total, pooled(fed), total["auc"].error + 1e-12)
    for name, site in fed.members.items():
        assert by_name(measured[name])["auc"].error is None
        check_binary(by_name(measured[name]), site.predictions, 1e-12)


def test_each_site_is_measured_by_its_own_candidate():
    fed = MemoryFederation({"a": binary_site(40, 1), "b": binary_site(30, 2)})
    measured = evaluate(fed, candidates(fed, 2, b=0.02))
    moved = Predictions(fed.members["b"].predictions.scores + np.float32(0.02), fed.members["b"].predictions.targets)
    check_binary(by_name(measured["a"]), fed.members["a"].predictions, 1e-12)
    check_binary(by_name(measured["b"]), moved, 1e-12)


def test_several_classes_with_a_site_that_has_no_rows():
    rng = np.random.default_rng(0)
    scores, targets = rng.dirichlet(np.ones(3), 60), rng.integers(0, 3, 60)
    fed = MemoryFederation(
        {
            "a": MemorySite(Predictions(scores[:20], targets[:20])),
            "b": MemorySite(Predictions(scores[20:], targets[20:])),
            "empty": MemorySite(Predictions(np.empty((0, 3)), np.empty(0, np.int64))),
        }
    )
    measured = evaluate(fed, candidates(fed, 3))
    total = by_name(measured[FEDERATED])
    exact = sklearn.roc_auc_score(targets, scores, multi_class="ovr", average="macro")
    assert abs(total["auc"].value - exact) <= total["auc"].error + 1e-12
    assert total["accuracy"].value == sklearn.accuracy_score(targets, scores.argmax(1))
    assert {(each.value, each.reason) for each in measured["empty"].measures if each.metric in ("loss", "auc")} == {
        (None, "no rows")
    }


def test_regression_keeps_its_r2_at_a_huge_mean_by_a_second_sum_about_it():
    rng = np.random.default_rng(0)
    targets = 1e9 + rng.normal(size=300)
    scores = targets + rng.normal(scale=0.4, size=300)
    fed = MemoryFederation(
        {
            "a": MemorySite(Predictions(scores[:50], targets[:50])),
            "b": MemorySite(Predictions(scores[50:], targets[50:])),
        }
    )
    measured = evaluate(fed, candidates(fed, 0))
    total = by_name(measured[FEDERATED])
    assert total["r2"].value == pytest.approx(sklearn.r2_score(targets, scores), rel=1e-9)
    assert total["loss"].value == pytest.approx(sklearn.mean_squared_error(targets, scores), rel=1e-12)
    assert total["rmse"].value == pytest.approx(sklearn.root_mean_squared_error(targets, scores), rel=1e-12)
    assert by_name(measured["a"])["r2"].value == pytest.approx(sklearn.r2_score(targets[:50], scores[:50]), rel=1e-9)
    assert [name.rpartition(".")[2] for name in fed.asked] == ["own_metrics", "value_sums", "value_sums"]


# ------------------------------------------------------------------------------------------ what is withheld


def test_a_site_that_refuses_its_own_metrics_still_counts_in_the_total():
    fed = MemoryFederation({"a": binary_site(40, 1), "shy": binary_site(30, 2, policy(releases=("sum",)))})
    measured = evaluate(fed, candidates(fed, 2))
    assert is_withheld(measured["shy"])
    assert not is_withheld(measured["a"])
    check_binary(by_name(measured[FEDERATED]), pooled(fed), by_name(measured[FEDERATED])["auc"].error + 1e-12)


def test_where_sums_are_refused_the_total_is_withheld():
    fed = MemoryFederation({"a": binary_site(40, 1), "b": binary_site(30, 2, policy(releases=("site",)))})
    measured = evaluate(fed, candidates(fed, 2))
    assert is_withheld(measured[FEDERATED])
    check_binary(by_name(measured["b"]), fed.members["b"].predictions, 1e-12)


@pytest.mark.parametrize(("rows", "withheld"), [(1, True), (19, True), (20, False), (21, False), (0, False)])
def test_a_split_below_the_minimum_count_is_withheld_at_the_site(rows, withheld):
    fed = MemoryFederation({"a": binary_site(40, 1), "b": one_class(rows, minimum_count=20)})
    measured = evaluate(fed, candidates(fed, 2))
    assert is_withheld(measured["b"]) is withheld
    total = by_name(measured[FEDERATED])["loss"]
    assert total.n == 40 + (0 if withheld else rows)
    assert total.reason == ("without 1 site of too few patients" if withheld else None)
    if rows == 0:
        assert by_name(measured["b"])["loss"] == Measure("loss", None, 0, reason="no rows")


def test_the_minimum_count_is_of_patients_not_of_rows():
    fed = MemoryFederation({"a": one_class(20, minimum_count=5), "b": one_class(20, minimum_count=5)})
    fed.members["b"].rows_each = 5
    measured = evaluate(fed, candidates(fed, 2))
    assert not is_withheld(measured["a"])
    assert is_withheld(measured["b"])


@pytest.mark.parametrize(("positives", "withheld"), [(1, True), (4, True), (5, False)])
def test_metrics_that_look_at_one_class_are_withheld_where_it_is_small(positives, withheld):
    scores = np.linspace(0.1, 0.9, 30)
    targets = np.array([0] * (30 - positives) + [1] * positives)
    fed = MemoryFederation({"a": MemorySite(Predictions(scores, targets), policy(minimum_count=5))})
    found = by_name(evaluate(fed, candidates(fed, 2))["a"])
    for metric in ("auc", "recall", "specificity"):
        assert (found[metric].reason == "withheld") is withheld
        assert (found[metric].value is None) is withheld
    assert found["brier"].value == pytest.approx(sklearn.brier_score_loss(targets, scores), rel=1e-12)


# ------------------------------------------------------------------------------------------ through a whole process


@pytest.fixture
def hospitals(tmp_path) -> dict[str, np.ndarray]:
    """Three files of two features and a label; the third has a policy, and few rows."""
    rng = np.random.default_rng(4)
    rows = {}
    for name, count in (("North", 60), ("South", 45), ("West", 30)):
        x = rng.normal(size=(count, 2)).round(3)
        y = (x[:, 0] - x[:, 1] + rng.normal(size=count) > 0).astype(int)
        rows[name] = np.column_stack([x, y])
        lines = [f"{name}{i},{a},{b},{int(c)}" for i, (a, b, c) in enumerate(rows[name])]
        (tmp_path / f"{name}.csv").write_text("\n".join(["patient,a,b,sick", *lines]) + "\n")
    return rows


def build(folder, text: str):
    (folder / "west.yaml").write_text(text)
    sites = {name: {"data": f"{name}.csv"} for name in ("North", "South")}
    task = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg", "rounds": 2, "lr": 0.1},
        "data": {
            "label": "sick",
            "id": "patient",
            "standardize": "none",
            "split": {"train": 0.5, "validation": 0, "test": 0.5},
        },
        "sites": {**sites, "West": {"data": "West.csv", "policy": "west.yaml"}},
        "seed": 1,
    }
    return medfed.build(task, data=folder)


OPEN = 'tasks: "*"\ntask_types: "*"\nalgorithms: "*"\nsteps: "*"\nminimum_patients: 1\n'


def trained(process):
    state = process.initialize()
    state, metrics = process.next(state)
    return state, metrics


def test_the_metrics_of_a_run_are_those_of_its_own_predictions_by_scikit_learn(hospitals, tmp_path):
    process = build(tmp_path, OPEN + 'releases: "*"\n')
    state, _ = trained(process)
    (weights,) = {w.tobytes() for w in process.weights(state).values()}
    w = np.frombuffer(weights, np.float32).astype(float)
    train, test = process.measure(state, Split.TRAIN), process.measure(state, Split.TEST)
    for name in (*hospitals, FEDERATED):
        rows = np.concatenate(list(hospitals.values())) if name == FEDERATED else hospitals[name]
        scores = 1 / (1 + np.exp(-(rows[:, :2] @ w[:2] + w[2])))
        counts = [next(r.measure.n for r in m.rows if r.site == name) for m in (train, test)]
        assert sum(counts) == len(rows)
        for metric, exact in (
            ("loss", sklearn.log_loss(rows[:, 2], scores)),
            ("brier", sklearn.brier_score_loss(rows[:, 2], scores)),
            ("accuracy", sklearn.accuracy_score(rows[:, 2], scores >= 0.5)),
        ):
            both = [m.value(metric, name) for m in (train, test)]
            assert np.average(both, weights=counts) == pytest.approx(exact, rel=1e-5)


def test_a_policy_without_site_releases_prints_withheld_and_keeps_the_total_whole(hospitals, tmp_path):
    open_process = build(tmp_path, OPEN + 'releases: "*"\n')
    _, in_the_open = trained(open_process)
    shy_process = build(tmp_path, OPEN + "releases: [sum, levels]\n")
    _, shy = trained(shy_process)
    of_west = [row.measure for row in shy.rows if row.site == "West"]
    assert is_withheld(Measures(tuple(of_west)))
    for metric in ("loss", "accuracy", "auc", "brier"):
        assert shy.value(metric) == in_the_open.value(metric)
        assert shy.value(metric, "North") == in_the_open.value(metric, "North")
        assert in_the_open.value(metric, "West") is not None


def test_a_policy_without_sums_stops_the_run_as_a_refusal(hospitals, tmp_path):
    process = build(tmp_path, OPEN + "releases: [site, levels]\n")
    with pytest.raises((Refused, QuorumLost)) as caught:
        trained(process)
    assert caught.value.exit_status == 3
    assert "West" in caught.value.cause
    assert Release.SUM.value in caught.value.cause


def test_three_classes_are_measured_though_a_site_has_no_test_rows():
    rng = np.random.default_rng(0)

    def frame(count: int, parts: list[str]):
        import pandas

        x = rng.normal(size=count)
        return pandas.DataFrame(
            {
                "x": x,
                "grade": rng.permutation(np.arange(count) % 3),
                "part": [parts[i % len(parts)] for i in range(count)],
            }
        )

    task = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg", "rounds": 1},
        "data": {"label": {"column": "grade", "classes": [0, 1, 2]}, "split": {"column": "part"}},
    }
    process = medfed.build(task, {"a": frame(60, ["train", "test"]), "b": frame(30, ["train"])})
    _, metrics = trained(process)
    assert metrics.value("loss") == pytest.approx(metrics.value("loss", "a"), rel=1e-12)
    reasons = {row.measure.reason for row in metrics.rows if row.site == "b"}
    assert metrics.value("loss", "b") is None
    assert "no rows" in reasons
