"""A coordinator that does not keep to the protocol: what the site's node makes of its requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from medfed.algorithms.fedavg import Weights
from medfed.api import simulation_key
from medfed.core.examples import Split
from medfed.core.messages import Message
from medfed.core.wire import Failure, Request
from medfed.data.encoding import Encoding
from medfed.data.kinds import Kind
from medfed.engine.assembly import Assembly, assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.host import SiteHost
from medfed.engine.inprocess import InProcess
from medfed.engine.process import RunState
from medfed.engine.simulation import attached
from medfed.engine.site import SiteNode
from medfed.evaluate.evaluation import Candidate
from medfed.metrics.classification import ClassificationSums
from medfed.metrics.measure import Measures
from medfed.spec.loading import task_of

TASK = {
    "task_type": "classification",
    "model": "logistic",
    "federation": {"strategy": "fedavg", "rounds": 2},
    "data": {"id": "id", "label": {"column": "y", "classes": [0, 1]}, "split": {"column": "part"}},
}


def hospital(train: int, test: int, test_positive: int) -> pandas.DataFrame:
    rows = train + test
    positive = [i % 2 for i in range(train)] + [int(i < test_positive) for i in range(test)]
    return pandas.DataFrame(
        {
            "id": [f"p{i}" for i in range(rows)],
            "x": np.linspace(-1, 1, rows),
            "y": positive,
            "part": ["train"] * train + ["test"] * test,
        }
    )


@dataclass
class Attack:
    """A prepared federation of two hospitals, and requests written by hand to the first."""

    assembly: Assembly
    state: RunState

    def ask(self, step: str, message: Message, **changed: object) -> Message:
        base = self.state.versions.by_site()["A"]
        conversation = self.assembly.process.federation.conversation
        request = Request(conversation.run, conversation.task, "A", 1, 0, base, 0, step, message)
        return self.node.handle(replace(request, **changed)).body

    @property
    def node(self) -> SiteNode:
        parties = self.assembly.simulation.parties
        assert isinstance(parties, InProcess) and isinstance(parties.host, SiteHost)
        return parties.host.nodes["A"]

    @property
    def weights(self) -> np.ndarray:
        return self.assembly.process.weights(self.state)[""]


@pytest.fixture
def attack(tmp_path: Path) -> Iterator[Attack]:
    task = task_of(TASK)
    rows = {"A": hospital(20, 40, 2), "B": hospital(20, 40, 20)}
    assembly = assemble(task, load_hospitals(task, tmp_path, rows), tmp_path, "run", simulation_key())
    with attached(assembly.simulation):
        yield Attack(assembly, assembly.process.initialize())


def test_an_honest_request_is_answered(attack: Attack) -> None:
    assert not isinstance(attack.ask("fedavg.train_locally", Weights(attack.weights)), Failure)


def test_a_message_of_another_type_does_not_choose_what_a_step_reads(attack: Attack) -> None:
    body = attack.ask("fedavg.train_locally", Candidate(attack.weights, Split.TEST, 2))
    assert isinstance(body, Failure)
    assert body.code == "refused"


@pytest.mark.parametrize(
    "changed", [{"run": "another"}, {"site": "B"}, {"round": -1}, {"call": -1}, {"task": "0" * 64}]
)
def test_a_request_that_is_not_for_this_run_is_refused(attack: Attack, changed: dict[str, object]) -> None:
    body = attack.ask("fedavg.train_locally", Weights(attack.weights), **changed)
    assert isinstance(body, Failure)
    assert body.code == "refused"


def test_an_encoding_that_calls_numbers_levels_does_not_count_single_patients(attack: Attack) -> None:
    encoding = attack.state.lanes[0].encoding
    levels = tuple(str(value) for value in np.linspace(-1, 1, 60))
    forged = replace(encoding, kinds=(Kind.CATEGORICAL,), levels=(levels,), features=levels[1:])
    for step in ("prepare.moments", "prepare.deviations"):
        body = attack.ask(step, forged)
        assert isinstance(body, Failure)
        assert body.code == "refused"
    assert isinstance(encoding, Encoding)


def test_a_classification_is_not_measured_as_a_regression(attack: Attack) -> None:
    """The variance of the outcome would give the size of a small class away."""
    for step in ("evaluation.own_metrics", "evaluation.value_sums"):
        body = attack.ask(step, Candidate(attack.weights, Split.TEST, 0))
        assert isinstance(body, Failure)
        assert body.code == "refused"


@pytest.mark.parametrize("classes", [(), ("0",), ("1", "0"), ("0", "1", "2")])
def test_an_encoding_of_other_classes_than_declared_is_not_adopted(attack: Attack, classes: tuple[str, ...]) -> None:
    """Whether it fails for a row of a class that it lacks would tell that there is one."""
    body = attack.ask("prepare.adopt", replace(attack.state.lanes[0].encoding, classes=classes))
    assert isinstance(body, Failure)
    assert (body.code, body.sentence) == ("refused", "the encoding has other classes than the task declares")


def test_numbers_are_not_summed_of_classes(attack: Attack) -> None:
    """Squared errors under chosen weights have no bound for which noise could be chosen."""
    body = attack.ask("evaluation.value_sums", Candidate(attack.weights, Split.TEST, 2))
    assert isinstance(body, Failure)
    assert body.code == "refused"


def test_metrics_by_class_are_withheld_where_a_class_is_small(attack: Attack) -> None:
    body = attack.ask("evaluation.own_metrics", Candidate(attack.weights, Split.TEST, 2))
    assert isinstance(body, Measures)
    reasons = {m.metric: m.reason for m in body.measures}
    assert {name for name, reason in reasons.items() if reason == "withheld"} == {"auc", "recall", "specificity"}


def test_a_split_of_too_few_patients_adds_nothing_to_a_total_and_says_so(tmp_path: Path) -> None:
    task = task_of(TASK)
    rows = {"A": hospital(20, 3, 1), "B": hospital(20, 40, 20)}
    assembly = assemble(task, load_hospitals(task, tmp_path, rows), tmp_path, "run", simulation_key())
    with attached(assembly.simulation):
        few = Attack(assembly, assembly.process.initialize())
        body = few.ask("evaluation.class_sums", Candidate(few.weights, Split.TEST, 2))
        assert isinstance(body, ClassificationSums)
        assert (body.withheld, body.confusion.sum(), body.histogram.sum(), body.loss, body.brier) == (1, 0, 0, 0.0, 0.0)
        total = assembly.process.measure(few.state, Split.TEST)
    federated = {row.measure.metric: row.measure for row in total.rows if row.site == "federated"}
    assert federated["loss"].n == 40
    assert federated["loss"].reason == "without 1 site of too few patients"


def test_failing_does_not_get_round_a_limit_of_requests(attack: Attack) -> None:
    memory = attack.node.memory
    before = memory.requests
    attack.ask("fedavg.train_locally", Weights(np.zeros(99, np.float32)))
    assert memory.requests == before + 1
