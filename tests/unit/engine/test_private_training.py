"""Training under record-level differential privacy at simulated sites: what it costs, and when it is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant

import medfed
from medfed.algorithms.fedavg import WeightedDelta, Weights, train_locally
from medfed.core.errors import Refused, TaskError
from medfed.core.wire import Failure, Reply, Request
from medfed.engine import session as sessions
from medfed.engine.assembly import Assembly, assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.host import SiteHost
from medfed.engine.inprocess import InProcess
from medfed.engine.memory import SiteMemory
from medfed.engine.simulation import attached
from medfed.govern.keys import SigningKey
from medfed.govern.verify import verify_ledgers
from medfed.models.catalogue import MODELS
from medfed.privacy.dpsgd import DpSgd
from medfed.spec.loading import task_of
from medfed.spec.policy import Policy

SIZES = {"ash": 50, "birch": 80}
KEY = SigningKey.generate()
RECORD: dict[str, Any] = {"noise_multiplier": 1.5}


def rows() -> dict[str, Any]:
    given = {}
    for number, (site, size) in enumerate(SIZES.items()):
        draw = np.random.default_rng([1, number])
        features = draw.normal(size=(size, 4)).astype(np.float32)
        given[site] = features, (features[:, 0] + draw.normal(0, 0.5, size) > 0).astype(np.int64)
    return given


def made(record: dict[str, Any] | None = None, *, model: Any = "logistic", **federation: Any) -> Any:
    settings = {"strategy": "fedavg", "rounds": 3, "local_epochs": 2, "batch_size": 10, "lr": 0.1}
    return task_of(
        {
            "task_type": "classification",
            "model": model,
            "federation": {**settings, **federation},
            "data": {
                "label": {"column": "y", "classes": [0, 1]},
                "split": {"train": 0.6, "validation": 0, "test": 0.4, "seed": 34},  # 30 and 48 training rows
                "standardize": "none",
            },
            "privacy": {"record": record} if record else {},
            "engine": {"workers": 1},
            "seed": 4,
        }
    )


@dataclass
class Opened:
    """Two sites whose data are prepared, and what they are asked."""

    assembly: Assembly
    folder: Path
    bases: dict[str, int]

    @property
    def host(self) -> SiteHost:
        parties = self.assembly.simulation.parties
        assert isinstance(parties, InProcess) and isinstance(parties.host, SiteHost)
        return parties.host

    def request(self, round_: int, *, site: str = "ash", base: int | None = None, shift: float = 0.0) -> Request:
        conversation = self.assembly.process.federation.conversation
        weights = np.full(5, shift, np.float32)
        at = self.bases[site] if base is None else base
        name = train_locally.name
        return Request(conversation.run, conversation.task, site, round_, 0, at, 0, name, Weights(weights))

    def ask(self, request: Request) -> Reply:
        return self.host.nodes[request.site].handle(request)

    def entries(self, kind: str, site: str = "ash") -> list[dict[str, Any]]:
        lines = (self.folder / "ledger" / f"{site}.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]

    def obey(self, policy: Policy, site: str = "ash") -> None:
        nodes = self.host.nodes
        nodes[site] = replace(nodes[site], policy=lambda: policy)


@contextmanager
def opened(folder: Path, task: Any) -> Iterator[Opened]:
    hospitals = load_hospitals(task, folder, rows())
    assembly = assemble(task, hospitals, folder, "run-1", KEY)
    with attached(assembly.simulation):
        state = assembly.process.initialize()
        yield Opened(assembly, folder, state.versions.by_site())


def budget(epsilon: float | None, **fields: Any) -> Policy:
    return Policy.permissive().model_copy(update={"epsilon": epsilon, **fields})


def cost(steps: Sequence[tuple[float, float, int]], delta: float = 1e-5) -> float:
    """By dp-accounting itself: (σ, q, T)."""
    accountant = PLDAccountant()
    for sigma, q, count in steps:
        accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)), count)
    return float(accountant.get_epsilon(delta))


def refused(reply: Reply) -> Failure:
    assert isinstance(reply.body, Failure) and reply.body.code == "refused", reply.body
    return reply.body


# ---------------------------------------------------------------------------------------------- what it costs


def test_the_reported_epsilon_is_that_of_the_steps_really_taken(tmp_path, monkeypatch):
    taken: dict[float, int] = {}

    class Counting(DpSgd):
        def write(self, gradient, features, targets):
            taken[self._rate] = taken.get(self._rate, 0) + 1
            super().write(gradient, features, targets)

    monkeypatch.setattr("medfed.engine.private.DpSgd", Counting)
    medfed.run(made({"epsilon": 2.0}), rows(), output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["privacy"]) == set(SIZES)
    for site, spent in results["privacy"].items():
        train = results["rows"][site]["train"]
        assert spent["sampling_rate"] == 10 / train
        assert spent["steps"] == taken[10 / train] == 3 * 2 * -(-train // 10)
        theirs = cost([(spent["noise_multiplier"], 10 / train, taken[10 / train])])
        assert theirs - 1e-3 <= spent["epsilon"] <= min(theirs + 0.02, 2.0)
    card = (tmp_path / "run" / "model_card.md").read_text()
    assert f"{results['privacy']['ash']['epsilon']:.3f}" in card and "one row, not all rows of a patient" in card
    assert "same task file gives the same model" not in card


def test_a_run_that_stops_early_reports_what_it_took_not_what_it_planned(tmp_path):
    task = made({"epsilon": 2.0})
    task = task_of(task.spec.model_dump(mode="json") | {"stop": {"tolerance": 1e9}})
    medfed.run(task, rows(), output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["rounds"] == 1
    spent, train = results["privacy"]["ash"], results["rows"]["ash"]["train"]
    assert spent["steps"] == 2 * -(-train // 10) and spent["epsilon"] < 1.6


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "scaffold", "fedadam", "local", "pooled"])
def test_every_strategy_that_ships_trains_under_it(tmp_path, strategy):
    medfed.run(made(RECORD, strategy=strategy), rows(), output=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["privacy"]) == ({"pooled"} if strategy == "pooled" else set(SIZES))
    assert all(spent["steps"] > 0 for spent in results["privacy"].values())


def test_two_runs_of_a_task_differ_for_noise_has_no_seed(tmp_path):
    models = []
    for name in ("one", "other"):
        medfed.run(made(RECORD), rows(), output=tmp_path / name)
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] != models[1]


def test_without_it_results_have_no_epsilon(tmp_path):
    medfed.run(made(), rows(), output=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["privacy"] == {}


def test_the_spend_is_written_before_anything_is_computed(tmp_path, monkeypatch):
    with opened(tmp_path, made(RECORD)) as site:
        seen = []
        monkeypatch.setattr(sessions, "train", lambda *a, **k: seen.append(len(site.entries("spend"))) or 1 / 0)
        assert isinstance(site.ask(site.request(1)).body, Failure)
        assert seen == [1]
        (entry,) = site.entries("spend")
        assert entry["steps"] == 2 * 3 and entry["noise_multiplier"] == "1.5"
        assert float(entry["sampling_rate"]) == 10 / 30
        assert (entry["dataset"], entry["round"], entry["step"]) == ("ash", 1, train_locally.name)


def test_a_ledger_that_cannot_be_written_trains_nothing(tmp_path, monkeypatch):
    with opened(tmp_path, made(RECORD)) as site:
        trained = []
        monkeypatch.setattr(sessions, "train", lambda *a, **k: trained.append(1))
        site.assembly.simulation.ledgers.close()
        refused(site.ask(site.request(1)))
        assert trained == []


# ---------------------------------------------------------------------------------------------- the budget


def test_the_budget_refuses_the_first_request_that_would_exceed_it(tmp_path):
    within, beyond = cost([(1.5, 10 / 30, 12)]), cost([(1.5, 10 / 30, 18)])
    with opened(tmp_path, made(RECORD)) as site:
        site.obey(budget((within + beyond) / 2))
        for round_ in (1, 2):
            reply = site.ask(site.request(round_))
            assert isinstance(reply.body, WeightedDelta)
            site.bases["ash"] = reply.version
        failure = refused(site.ask(site.request(3)))
        assert "privacy budget" in failure.sentence and "30" not in failure.sentence
        assert len(site.entries("spend")) == 2 and len(site.entries("release")) > 2
        (entry,) = site.entries("refusal")
        assert entry["code"] == "policy.epsilon"
        site.assembly.simulation.sign_heads(1)
        verify_ledgers(tmp_path / "ledger", KEY.verify_key, finished=False)


def test_a_lower_epsilon_takes_effect_at_the_next_request_and_a_higher_one_too(tmp_path):
    once = cost([(1.5, 10 / 30, 6)])
    with opened(tmp_path, made(RECORD)) as site:
        site.obey(budget(50.0))
        site.bases["ash"] = site.ask(site.request(1)).version
        site.obey(budget(once * 1.01))
        refused(site.ask(site.request(2)))
        site.obey(budget(0.0))
        refused(site.ask(site.request(2)))
        site.obey(budget(50.0))
        assert isinstance(site.ask(site.request(2)).body, WeightedDelta)


def test_the_budgets_delta_is_the_policys_own(tmp_path):
    lax, strict = cost([(1.5, 10 / 30, 6)], 1e-2), cost([(1.5, 10 / 30, 6)], 1e-7)
    with opened(tmp_path, made(RECORD)) as site:
        site.obey(budget((lax + strict) / 2, delta=1e-7))
        refused(site.ask(site.request(1)))
        site.obey(budget((lax + strict) / 2, delta=1e-2))
        assert isinstance(site.ask(site.request(1)).body, WeightedDelta)


def test_a_policy_with_an_epsilon_admits_no_training_without_differential_privacy(tmp_path):
    for batched in ("auto", "off"):
        task = task_of(made().spec.model_dump(mode="json") | {"engine": {"workers": 1, "batched": batched}})
        with opened(tmp_path / batched, task) as site:
            for name in SIZES:
                site.obey(budget(1000.0), name)
            requests = [site.request(1, site=name) for name in SIZES]
            replies = [reply for block in site.host.handle(requests) for reply in block]
            assert ["without differential privacy" in refused(reply).sentence for reply in replies] == [True, True]


def test_a_repeated_request_trains_once_and_is_charged_once(tmp_path):
    with opened(tmp_path, made(RECORD)) as site:
        first, again = site.ask(site.request(1)), site.ask(site.request(1))
        assert isinstance(first.body, WeightedDelta) and isinstance(again.body, WeightedDelta)
        assert first.version == again.version and np.array_equal(first.body.delta, again.body.delta)
        assert len(site.entries("spend")) == 1


def test_a_coordinator_that_rewinds_pays_again_and_gets_no_more_steps_than_were_planned(tmp_path):
    with opened(tmp_path, made(RECORD)) as site:
        base = site.bases["ash"]
        replies = [site.ask(site.request(1, base=base, shift=0.1 * k)) for k in range(4)]
        assert [type(reply.body) for reply in replies] == [WeightedDelta] * 3 + [Failure]
        assert "noise was chosen (18)" in refused(replies[3]).sentence
        assert [entry["steps"] for entry in site.entries("spend")] == [6, 6, 6]
        assert site.entries("refusal")[-1]["code"] == "privacy.record"
        again = site.ask(site.request(1, base=base, shift=0.0))
        refused(again)


@pytest.mark.parametrize("where", ["in training", "between the ledger's entry and the memory's"])
def test_after_a_kill_before_anything_left_the_same_request_is_not_charged_anew(tmp_path, monkeypatch, where):
    task = made(RECORD)
    with opened(tmp_path, task) as site:
        asked = site.request(1)

        def kill(*args: Any, **named: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            if where == "in training":
                killed.setattr(sessions, "train", kill)
            else:
                killed.setattr(SiteMemory, "record", kill)
            site.ask(asked)
        releases = len(site.entries("release"))
        assert len(site.entries("spend")) == 1
        bases = dict(site.bases)
    with reopened(tmp_path, task, bases) as site:
        assert isinstance(site.ask(asked).body, WeightedDelta)
        assert len(site.entries("spend")) == 1 and len(site.entries("release")) == releases + 1
        other = site.ask(site.request(1, shift=0.5))
        assert isinstance(other.body, WeightedDelta) and len(site.entries("spend")) == 2


def test_a_step_that_trains_twice_pays_twice(tmp_path):
    with opened(tmp_path, made(RECORD)) as site:
        node, asked = site.host.nodes["ash"], site.request(1)
        admitted = node.admit(asked)
        assert not isinstance(admitted, Reply)
        session = node.session(admitted)
        for _ in range(2):
            session.train(np.zeros(5, np.float32))
        assert [entry["steps"] for entry in site.entries("spend")] == [6, 6]


def test_a_failure_after_the_charge_may_tell_something_and_so_another_try_is_charged(tmp_path, monkeypatch):
    with opened(tmp_path, made(RECORD)) as site:
        with monkeypatch.context() as failing:
            failing.setattr(sessions, "train", lambda *a, **k: 1 / 0)
            assert isinstance(site.ask(site.request(1)).body, Failure)
        assert isinstance(site.ask(site.request(1)).body, WeightedDelta)
        assert len(site.entries("spend")) == 2


@contextmanager
def reopened(folder: Path, task: Any, bases: dict[str, int]) -> Iterator[Opened]:
    hospitals = load_hospitals(task, folder, rows())
    assembly = assemble(task, hospitals, folder, "run-1", KEY)
    with attached(assembly.simulation):
        yield Opened(assembly, folder, bases)


def test_what_was_spent_survives_reopening(tmp_path):
    once, twice = cost([(1.5, 10 / 30, 6)]), cost([(1.5, 10 / 30, 12)])
    task = made(RECORD)
    with opened(tmp_path, task) as site:
        site.obey(budget((once + twice) / 2))
        first = site.ask(site.request(1))
        assert isinstance(first.body, WeightedDelta)
        bases = {**site.bases, "ash": first.version}
    with reopened(tmp_path, task, bases) as site:
        site.obey(budget((once + twice) / 2))
        refused(site.ask(site.request(2)))


def test_a_whole_run_past_the_budget_is_refused_and_says_why(tmp_path):
    (tmp_path / "strict.yaml").write_text(
        'tasks: "*"\ntask_types: "*"\nalgorithms: "*"\nsteps: "*"\nreleases: "*"\nminimum_patients: 1\nepsilon: 1.0\n'
    )
    for site, (features, labels) in rows().items():
        (tmp_path / site).mkdir()
        lines = [",".join(map(str, (*row, label))) for row, label in zip(features.tolist(), labels, strict=True)]
        (tmp_path / site / "rows.csv").write_text("\n".join(["a,b,c,d,y", *lines]) + "\n")
    fields = made(RECORD).spec.model_dump(mode="json")
    fields["sites"] = {site: {"data": f"{site}/rows.csv", "policy": "strict.yaml"} for site in SIZES}
    with pytest.raises(Refused, match="privacy budget"):
        medfed.run(task_of(fields), data=tmp_path, output=tmp_path / "run")


# ---------------------------------------------------------------------------------------------- what is refused


def test_a_model_with_batch_normalisation_is_refused_before_anything_runs(tmp_path, monkeypatch):
    from torch import nn

    def build(shape: tuple[int, ...], outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(shape[0], 6), nn.BatchNorm1d(6), nn.Linear(6, outputs))

    found = type(MODELS).get
    monkeypatch.setattr(type(MODELS), "get", lambda self, name: build if self.kind == "model" else found(self, name))
    with pytest.raises(TaskError, match="BatchNorm1d") as told:
        medfed.run(made(RECORD), rows(), output=tmp_path / "run")
    assert "GroupNorm" in told.value.remedy and not (tmp_path / "run").exists()


def test_an_algorithm_that_does_not_declare_it_is_refused(monkeypatch):
    from medfed.algorithms import ALGORITHMS
    from medfed.engine.strategies import resolve_strategy

    kind = ALGORITHMS.get("fedavg")
    monkeypatch.delattr(kind, "POST_PROCESSES")
    resolve_strategy(made(), ["ash"])
    with pytest.raises(TaskError, match="does not declare"):
        resolve_strategy(made(RECORD), ["ash"])


def test_a_delta_that_would_let_a_row_be_published_is_refused_at_the_site(tmp_path):
    with opened(tmp_path, made({"noise_multiplier": 1.5, "delta": 0.05})) as site:
        reply = site.ask(site.request(1))
        assert isinstance(reply.body, Failure) and "delta" in reply.body.sentence
        assert site.entries("spend") == []
