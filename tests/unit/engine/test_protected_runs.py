"""Whole sites, labels and released sums under differential privacy, as simulated runs have them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from scipy import stats

import medfed
from medfed.algorithms.fedavg import Weights, train_locally
from medfed.core.errors import Refused, TaskError
from medfed.core.examples import Split
from medfed.core.protocols import Engine
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.assembly import Assembly, assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.host import SiteHost
from medfed.engine.inprocess import InProcess
from medfed.engine.session import SiteSession
from medfed.engine.simulation import attached
from medfed.engine.wholesite import cost_in_words, plan_of
from medfed.evaluate.evaluation import Candidate, class_sums
from medfed.govern.keys import SigningKey
from medfed.govern.verify import verify_ledgers
from medfed.spec.loading import task_of
from medfed.spec.policy import Policy

LEAST = 1e-7
KEY = SigningKey.generate()
SITES = ("ash", "birch", "cedar", "elm")


def rows(columns: int = 4, sites: Sequence[str] = SITES) -> dict[str, Any]:
    given = {}
    for number, site in enumerate(sites):
        draw = np.random.default_rng([1, number])
        features = draw.normal(size=(50 + 10 * number, columns)).astype(np.float32)
        given[site] = features, (features[:, 0] + draw.normal(0, 0.5, len(features)) > 0).astype(np.int64)
    return given


def described(privacy: dict[str, Any], **federation: Any) -> dict[str, Any]:
    settings = {"strategy": "fedavg", "rounds": 3, "local_updates": 2, "batch_size": 10, "lr": 0.1}
    return {
        "task_type": "classification",
        "model": "logistic",
        "federation": {**settings, **federation},
        "data": {
            "label": {"column": "y", "classes": [0, 1]},
            "split": {"train": 0.6, "validation": 0, "test": 0.4},
            "standardize": "none",
        },
        "privacy": privacy,
        "engine": {"workers": 1},
        "seed": 4,
    }


def results(folder: Path, privacy: dict[str, Any], **federation: Any) -> dict[str, Any]:
    medfed.run(described(privacy, **federation), rows(), output=folder)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def entries(folder: Path, kind: str, site: str = "ash") -> list[dict[str, Any]]:
    lines = (folder / "ledger" / f"{site}.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


@dataclass
class Lossy:
    """Loses what the sites named for a step would answer."""

    engine: Engine
    lost: dict[str, set[str]]
    seen: list[Reply] = field(default_factory=list)

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        step = requests[0].step
        for reply in self.engine.exchange(requests):
            self.seen.append(reply)
            if reply.site not in self.lost.get(step, set()):
                yield reply


# ---------------------------------------------------------------------------------------------- whole sites


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam"])
@pytest.mark.parametrize(("privacy", "adaptive"), [({}, {}), ({"aggregation": "secure"}, {"adaptive": {}})])
def test_strategies_that_share_noise_run_and_the_report_says_epsilon(tmp_path, strategy, privacy, adaptive):
    found = results(tmp_path / "run", {**privacy, "site": {"noise_multiplier": 3.0, **adaptive}}, strategy=strategy)
    accountant = PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(3.0), 3)
    for site in SITES:
        spent = found["privacy"][site]
        assert spent["epsilon"] is None and spent["site"]["updates"] == 3
        assert spent["site"]["epsilon"] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)
    for name in ("report.html", "model_card.md"):
        assert f"{spent['site']['epsilon']:.3f}" in (tmp_path / "run" / name).read_text()


@pytest.mark.parametrize(
    ("strategy", "told"), [("scaffold", "share the noise"), ("pooled", "baseline"), ("local", "baseline")]
)
def test_strategies_that_cannot_share_noise_are_refused_before_anything_runs(tmp_path, strategy, told):
    text = json.dumps(described({"site": {"noise_multiplier": 3.0}}, strategy=strategy), indent=1)
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(TaskError, match=told) as refused:
        medfed.run(tmp_path / "task.yaml", rows(), output=tmp_path / "run")
    assert "task.yaml:" in str(refused.value) and "privacy.record" in refused.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("aggregation", "lost"), [("clear", 0), ("secure", 0), ("secure", 2)])
def test_the_total_carries_the_noise_whoever_drops_out(aggregation, lost):
    """Seven sites, of which five must answer under masks. Their updates are nothing: the total is noise alone."""
    names, sigma, norm, columns = tuple("abcdefg"), 2.0, 0.5, 600
    privacy = {"aggregation": aggregation, "site": {"noise_multiplier": sigma, "clip_norm": norm}}
    quorum = 1.0 if aggregation == "clear" else 5
    process = medfed.build(described(privacy, lr=1e-12, quorum=quorum), rows(columns, names))
    process.initialize()
    conversation = process.federation.conversation
    conversation.engine = Lossy(conversation.engine, {train_locally.name: set(names[:lost])})
    conversation.begin_round(1, dict(conversation.versions))
    total = process.federation.sum(train_locally, Weights(np.zeros(columns + 1, np.float32)))
    answering, shares = 7 - lost, plan_of(process.task, 7).shares
    assert total.rows == answering and shares == (6 if aggregation == "clear" else 3)
    variance = answering * (sigma * norm) ** 2 / shares
    low, high = stats.chi2.interval(1 - LEAST, columns + 1)
    found = float(np.square(total.delta.astype(float)).sum())
    assert low < found / variance < high
    assert found / (sigma * norm) ** 2 > low


def test_every_site_counts_alike_and_says_no_number_of_rows():
    process = medfed.build(described({"site": {"noise_multiplier": 1.0}}), rows())
    process.initialize()
    conversation = process.federation.conversation
    conversation.engine = engine = Lossy(conversation.engine, {})
    conversation.begin_round(1, dict(conversation.versions))
    process.federation.sum(train_locally, Weights(np.zeros(5, np.float32)))
    assert [reply.body.rows for reply in engine.seen] == [1] * len(SITES)  # type: ignore[attr-defined]


def test_a_coordinator_that_rewinds_gets_no_more_updates_than_the_noise_was_chosen_for(tmp_path):
    with opened(tmp_path, described({"site": {"noise_multiplier": 1.0}})) as site:
        replies = [site.ask(site.request(1, shift=0.1 * k)) for k in range(4)]
        assert [isinstance(reply.body, Failure) for reply in replies] == [False] * 3 + [True]
        assert entries(tmp_path, "refusal")[-1]["code"] == "privacy.site"
        again = site.ask(site.request(1, shift=0.2))
        assert again.version == replies[2].version and again.body.delta.tolist() == replies[2].body.delta.tolist()
        assert len(entries(tmp_path, "spend")) == 3


def test_a_norm_that_is_none_is_refused(tmp_path):
    from medfed.engine.adaptive import Norm, set_norm

    with opened(tmp_path, described({"site": {"noise_multiplier": 1.0, "adaptive": {}}})) as site:
        for norm in (0.0, -1.0, math.inf, math.nan):
            asked = replace(site.request(1), step=set_norm.name, message=Norm(1, norm))
            assert isinstance(site.ask(asked).body, Failure)


def test_a_round_has_one_norm_and_training_waits_for_it(tmp_path):
    from medfed.engine.adaptive import Norm, set_norm

    with opened(tmp_path, described({"site": {"noise_multiplier": 1.0, "adaptive": {}}})) as site:
        assert "not told to which norm" in site.ask(site.request(1)).body.sentence
        told = replace(site.request(1), step=set_norm.name, message=Norm(1, 0.5))
        base = site.ask(told).version
        other = replace(told, call=1, base=base, message=Norm(1, 0.25))
        assert "another clipping norm was told" in site.ask(other).body.sentence
        late = replace(told, call=2, base=base, message=Norm(2, 0.25))
        assert "of the round in progress" in site.ask(late).body.sentence
        assert not isinstance(site.ask(replace(site.request(1), call=3, base=base)).body, Failure)
        assert "not told to which norm" in site.ask(replace(site.request(2), base=base)).body.sentence


def test_the_count_of_clipped_updates_is_drawn_once_whoever_asks_again(tmp_path):
    from medfed.engine.adaptive import Norm, count_within, set_norm

    with opened(tmp_path, described({"site": {"noise_multiplier": 1.0, "adaptive": {}}})) as site:
        base = site.ask(replace(site.request(1), step=set_norm.name, message=Norm(1, 0.5))).version
        base = site.ask(replace(site.request(1), call=1, base=base)).version
        asked = [
            replace(site.request(1), call=k, base=base, step=count_within.name, message=Norm(1, 0.5)) for k in (2, 3)
        ]
        first, again = (site.ask(each).body for each in asked)
        assert first.within == again.within and first.within not in (0.5, -0.5)
        other = replace(asked[0], call=4, message=Norm(1, 0.25))
        assert isinstance(site.ask(other).body, Failure)
        assert len(entries(tmp_path, "spend")) == 1


def test_what_it_costs_is_told_with_its_figures():
    task = task_of(described({"site": {"noise_multiplier": 3.0}}, rounds=10)).spec
    told = " ".join(cost_in_words(task, 4, 1_000_000))
    deviation = 3.0 / math.sqrt(3 * 4)
    assert "epsilon 4.65" in told and f"{deviation:.3g}" in told and f"{deviation * 1000:.3g} times" in told
    assert "trusted" in told and cost_in_words(task_of(described({})).spec, 4, 5) == []
    secure = task_of(described({"aggregation": "secure", "site": {"noise_multiplier": 3.0}}, rounds=10)).spec
    assert "trusted" not in " ".join(cost_in_words(secure, 4, None))


# ---------------------------------------------------------------------------------------------- labels


def labels_of(site: Opened) -> list[int]:
    admitted = site.node.admit(site.request(1))
    assert not isinstance(admitted, Reply)
    targets: list[int] = site.node.session(admitted).examples(Split.TRAIN).targets.tolist()
    return targets


def test_labels_are_drawn_once_for_all_rounds_and_resumed_runs_and_charged_once(tmp_path):
    task = described({"labels": {"epsilon": 0.5}})
    with opened(tmp_path, task) as site:
        first, table = labels_of(site), site.node.rows().table
        truth = [int(label) for label in table.targets[table.mask(Split.TRAIN)]]
        assert first != truth and len(first) == len(truth)
        assert labels_of(site) == first
        bases = dict(site.bases)
    with opened(tmp_path, task, bases) as site:
        assert labels_of(site) == first
    (spend,) = entries(tmp_path, "spend")
    assert (spend["mechanism"], float(spend["noise_multiplier"])) == ("randomized response", 2.0)


def test_the_true_labels_of_training_rows_reach_no_training_and_no_metric(tmp_path):
    with opened(tmp_path, described({"labels": {"epsilon": 0.5}})) as site:
        first = labels_of(site)
        message = Candidate(np.zeros(5, np.float32), Split.TRAIN, 2)
        body = site.ask(replace(site.request(1), step=class_sums.name, message=message)).body
        assert body.confusion.sum(1).tolist() == [first.count(0), first.count(1)]


def test_other_classes_which_would_draw_anew_are_refused_and_cost_nothing(tmp_path):
    from medfed.data.prepare import adopt

    with opened(tmp_path, described({"labels": {"epsilon": 0.5}})) as site:
        encoding = site.encoding
        turned = replace(encoding, classes=tuple(reversed(encoding.classes)))
        spent = entries(tmp_path, "spend")
        reply = site.ask(replace(site.request(0), call=50, step=adopt.name, message=turned))
        assert isinstance(reply.body, Failure) and "other classes than the task declares" in reply.body.sentence
        assert len(entries(tmp_path, "refusal")) == 1 and entries(tmp_path, "spend") == spent


def test_the_budget_of_rows_counts_labels_steps_and_sums_together_and_whole_sites_apart(tmp_path):
    privacy = {
        "record": {"noise_multiplier": 3.0},
        "labels": {"epsilon": 0.5},
        "release": {"epsilon": 0.1},
        "site": {"noise_multiplier": 1.0},
    }
    found = results(tmp_path / "run", privacy)
    spent = found["privacy"]["ash"]
    accountant = PLDAccountant()
    sampled = dp_accounting.PoissonSampledDpEvent(spent["sampling_rate"], dp_accounting.GaussianDpEvent(3.0))
    accountant.compose(sampled, spent["steps"])
    alone = float(accountant.get_epsilon(1e-5))
    assert spent["steps"] == 6 and spent["sums"] == 5 and spent["labels"] == pytest.approx(0.5)
    assert spent["sums_epsilon"] == pytest.approx(0.5, abs=1e-3) and spent["sums_epsilon"] <= 0.5
    assert max(alone, 0.9) < spent["epsilon"] <= alone + 0.5 + 0.5 + 0.01
    assert spent["site"]["epsilon"] > 5
    kinds = [entry["mechanism"] for entry in entries(tmp_path / "run", "spend")]
    assert kinds.count("randomized response") == 1 and kinds.count("discrete Laplace") == 5


# ---------------------------------------------------------------------------------------------- released sums


RELEASE = {"record": {"noise_multiplier": 5.0}, "release": {"epsilon": 0.4}}


def test_the_budget_refuses_a_sum_that_would_exceed_it_before_it_is_formed(tmp_path, monkeypatch):
    with opened(tmp_path, described(RELEASE)) as site:
        site.obey(Policy.permissive().model_copy(update={"epsilon": 1.0, "delta": 1e-12}))
        formed = []
        form = SiteSession.predict
        monkeypatch.setattr(SiteSession, "predict", lambda *a: formed.append(1) or form(*a))
        replies = []
        for call in range(3):
            message = Candidate(np.full(5, 0.1 * call, np.float32), Split.TEST, 2)
            replies.append(site.ask(replace(site.request(1), call=call, step=class_sums.name, message=message)))
        assert [isinstance(reply.body, Failure) for reply in replies] == [False, False, True]
        assert entries(tmp_path, "refusal")[-1]["code"] == "policy.epsilon" and len(formed) == 2
        order = [json.loads(line)["kind"] for line in (tmp_path / "ledger" / "ash.jsonl").read_text().splitlines()]
        assert order[order.index("spend") :][:4] == ["spend", "release", "spend", "release"]
        site.assembly.simulation.sign_heads(1)
        verify_ledgers(tmp_path / "ledger", KEY.verify_key, finished=False)


def test_a_repeated_question_gets_the_same_noise_and_costs_nothing(tmp_path):
    with opened(tmp_path, described(RELEASE)) as site:
        message = Candidate(np.zeros(5, np.float32), Split.TEST, 2)
        asked = replace(site.request(1), step=class_sums.name, message=message)
        first, again = site.ask(asked).body, site.ask(asked).body
        assert first.confusion.tolist() == again.confusion.tolist() and first.loss == again.loss
        other = site.ask(replace(asked, call=1)).body
        assert other.histogram.tolist() != first.histogram.tolist()
        assert len(entries(tmp_path, "spend")) == 2


def test_a_patient_with_more_rows_than_the_noise_is_for_is_refused(tmp_path):
    with opened(tmp_path, described(RELEASE)) as site:
        table = site.node.rows().table
        table.ids[:2] = table.ids[0]
        message = Candidate(np.zeros(5, np.float32), Split.TEST, 2)
        reply = site.ask(replace(site.request(1), step=class_sums.name, message=message))
        assert isinstance(reply.body, Failure) and "rows_per_patient" in reply.body.sentence
        assert entries(tmp_path, "spend") == []


@pytest.mark.parametrize("aggregation", ["clear", "secure"])
def test_no_site_releases_figures_of_its_own_nor_its_number_of_rows(tmp_path, aggregation):
    found = results(tmp_path / "run", {**RELEASE, "aggregation": aggregation})
    assert found["rows"] == {} and found["metrics"]["test"]["ash"]["loss"]["value"] is None
    left = entries(tmp_path / "run", "release")
    assert {entry["release"] for entry in left} <= {"sum", "levels"}
    assert found["metrics"]["test"]["federated"]["loss"]["value"] is not None


def test_regression_sums_have_noise_for_the_range_of_the_outcome(tmp_path):
    task = described({"record": {"noise_multiplier": 5.0}, "release": {"epsilon": 2.0, "outcome": [-5, 5]}})
    task |= {"task_type": "regression", "model": "linear"}
    task["data"] = {**task["data"], "label": {"column": "y"}, "split": {"train": 0.6, "validation": 0, "test": 0.4}}
    given = {site: (x, x[:, 0].astype(np.float32)) for site, (x, _) in rows().items()}
    medfed.run(task, given, output=tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["privacy"]["ash"]["sums"] == 5  # three rounds, and two parts at the end


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": {"standardize": "federated"}}, "means and scales depend on all rows"),
        ({"data": {"standardize": "site"}}, "means and scales depend on all rows"),
        ({"data": {"split": {"stratify": True}}}, "one patient can move another"),
        (
            {"privacy": {"labels": {"epsilon": 1}}, "data": {"split": {"stratify": True}}},
            "one patient can move another",
        ),
        (
            {"privacy": {**RELEASE, "release": {"epsilon": 0.01, "mechanism": "gaussian", "delta": 1e-6}}},
            "within the error of the accountant",
        ),
        (
            {
                "privacy": {"site": {"noise_multiplier": 3}},
                "federation": {"strategy": "fedavg", "rounds": 3, "compression": "int8"},
            },
            "not in that of compressed ones",
        ),
        (
            {"privacy": {"release": {"epsilon": 0.4}}},
            "fedavg.train_locally does not declare how much one patient moves",
        ),
        ({"privacy": {**RELEASE, "release": {"epsilon": 0.4, "delta": 1e-6}}}, "takes no `delta`"),
        ({"privacy": {**RELEASE, "release": {"epsilon": 0.4, "mechanism": "gaussian"}}}, "needs a `delta`"),
        ({"privacy": {"labels": {"epsilon": 1}}, "task_type": "regression", "model": "linear"}, "needs classes"),
        ({"privacy": {"labels": {"epsilon": 1}}, "data": {"label": "y"}}, "read off the true labels"),
        ({"privacy": {"site": {"clip_norm": 1}}}, "says neither"),
        (
            {"privacy": {"aggregation": "secure", "update_bound": 4, "site": {"noise_multiplier": 3}}},
            "leaves no room for the noise",
        ),
        ({"privacy": {"site": {"noise_multiplier": 9, "adaptive": {"count_noise": 2}}}}, "leaves none"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(tmp_path, change, told):
    task = described(RELEASE)
    data = {**task["data"], **change.pop("data", {})}
    if change.get("task_type") == "regression":
        data["label"] = {"column": "y"}
    (tmp_path / "task.yaml").write_text(json.dumps({**task, "data": data, **change}, indent=1))
    with pytest.raises(TaskError, match=told) as refused:
        medfed.run(tmp_path / "task.yaml", rows(), output=tmp_path / "run")
    assert "task.yaml:" in str(refused.value) and "remedy:" in str(refused.value)


# ---------------------------------------------------------------------------------------------- one site, by hand


@dataclass
class Opened:
    """Sites whose data are prepared, of which ``ash`` is asked by hand."""

    assembly: Assembly
    bases: dict[str, int]
    encoding: Any = None

    @property
    def host(self) -> SiteHost:
        parties = self.assembly.simulation.parties
        assert isinstance(parties, InProcess) and isinstance(parties.host, SiteHost)
        return parties.host

    @property
    def node(self) -> Any:
        return self.host.nodes["ash"]

    def request(self, round_: int, shift: float = 0.0) -> Request:
        conversation = self.assembly.process.federation.conversation
        weights = Weights(np.full(5, shift, np.float32))
        name = train_locally.name
        return Request(conversation.run, conversation.task, "ash", round_, 0, self.bases["ash"], 0, name, weights)

    def ask(self, request: Request) -> Any:
        return self.node.handle(request)

    def obey(self, policy: Policy) -> None:
        self.host.nodes["ash"] = replace(self.node, policy=lambda: policy)


@contextmanager
def opened(folder: Path, task: dict[str, Any], bases: dict[str, int] | None = None) -> Iterator[Opened]:
    checked = task_of(task)
    assembly = assemble(checked, load_hospitals(checked, folder, rows()), folder, "run-1", KEY)
    with attached(assembly.simulation):
        if bases is not None:
            yield Opened(assembly, bases)
            return
        state = assembly.process.initialize()
        yield Opened(assembly, state.versions.by_site(), state.lanes[0].encoding)


def test_training_without_noise_for_rows_is_refused_under_a_budget_whatever_else_is_protected(tmp_path):
    with opened(tmp_path, described({"site": {"noise_multiplier": 9.0}, "labels": {"epsilon": 0.1}})) as site:
        site.obey(Policy.permissive().model_copy(update={"epsilon": 100.0}))
        reply = site.ask(site.request(1))
        assert isinstance(reply.body, Failure) and reply.body.code == Refused.code
        assert "privacy.record" in reply.body.sentence


def test_sites_that_never_train_carry_no_part_of_the_noise() -> None:
    """Each of the others then adds as much as if they were not there."""
    rng = np.random.default_rng(0)
    sites = {f"s{k}": (rng.normal(size=(30, 2)).astype(np.float32), np.arange(30) % 2) for k in range(7)}
    task = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg", "rounds": 1},
        "data": {"label": {"column": "y", "classes": [0, 1]}},
        "privacy": {"site": {"noise_multiplier": 1.0}},
        "engine": {"workers": 1},
    }
    counted = {}
    for held_out in ((), ("s5", "s6")):
        process = medfed.build(task | {"evaluation": {"holdout": list(held_out)}}, sites)
        nodes = process.federation.conversation.engine.host.nodes
        counted[len(held_out)] = {node.sites for node in nodes.values()}
    assert counted == {0: {7}, 2: {5}}
