"""Sums under masks as a run sees them: sites that drop out at any phase, resumed runs, and coordinators that pry."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import medfed
from medfed.algorithms.fedavg import FedAvg, WeightedDelta, Weights, train_locally
from medfed.api import simulation_key
from medfed.core.codec import encode
from medfed.core.errors import QuorumLost, Refused, TaskError
from medfed.core.protocols import Engine
from medfed.core.wire import Failure, Reply, Request
from medfed.data.prepare import Question, describe
from medfed.engine.assembly import Assembly, assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.process import Process
from medfed.engine.simulation import attached
from medfed.engine.strategies import resolve_strategy
from medfed.evaluate.evaluation import class_sums
from medfed.privacy.ring import Encoder, Layout
from medfed.privacy.secagg.messages import Contribution, Masked
from medfed.spec.loading import task_of

SITES = tuple(f"site {letter}" for letter in "abcdefg")
LEAST = 5
"""More than two thirds of seven."""

PHASES = ("secagg.open", "secagg.share", "fedavg.train_locally", "secagg.confirm", "secagg.reveal")


def hospitals(names: Sequence[str] = SITES) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    sites = {}
    for number, name in enumerate(names):
        random = np.random.default_rng([5, number])
        features = random.normal(0.2 * number, 1.0, (30 + 3 * number, 3)).astype(np.float32)
        sites[name] = features, (features[:, 0] + random.normal(0, 0.5, len(features)) > 0.3).astype(int)
    return sites


def described(aggregation: str = "secure", **federation: Any) -> dict[str, Any]:
    wanted = {"strategy": "fedavg", "rounds": 2, "local_updates": 3, "batch_size": 8, "lr": 0.1}
    return {
        "task_type": "classification",
        "model": "logistic",
        "federation": wanted | {"data_position": "fresh", "quorum": 1} | federation,
        "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.8, "validation": 0, "test": 0.2}},
        "privacy": {"aggregation": aggregation},
        "engine": {"batched": "off", "workers": 1},
        "seed": 3,
    }


@dataclass
class Lossy:
    """Loses what the sites named for a step would answer, and remembers all that passed."""

    engine: Engine
    lost: dict[str, set[str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    changed: Callable[[str, Reply], Reply] = lambda step, reply: reply

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        self.requests += requests
        for reply in self.engine.exchange(requests):
            self.replies.append(reply)
            step = next(request.step for request in requests if request.site == reply.site)
            if reply.site not in self.lost.get(step, set()):
                yield self.changed(step, reply)


def prepared(aggregation: str = "secure", **federation: Any) -> tuple[Process, Lossy]:
    process = medfed.build(described(aggregation, **federation), hospitals())
    process.initialize()
    conversation = process.federation.conversation
    conversation.engine = engine = Lossy(conversation.engine)
    conversation.begin_round(1, dict(conversation.versions))
    return process, engine


@functools.cache
def both() -> tuple[Process, Lossy, Process]:
    return *prepared(), prepared("clear")[0]


NEW = itertools.count(1)
"""Of rounds, and of questions: one that was asked before is summed over the same sites only."""


@given(
    leaving=st.dictionaries(st.sampled_from(SITES), st.sampled_from(PHASES), max_size=4),
    weights=st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_the_total_is_that_of_the_sites_that_contributed_or_there_is_none(
    leaving: dict[str, str], weights: list[float]
) -> None:
    """A site that leaves at a phase answers none of the later ones either."""
    process, engine, plain = both()
    round_ = next(NEW)
    message = Weights(np.array([*weights, round_ / 1024], np.float32))
    for each in (process, plain):
        conversation = each.federation.conversation
        conversation.begin_round(round_, dict(conversation.versions))
    engine.lost = {
        phase: {site for site, left in leaving.items() if PHASES.index(left) <= number}
        for number, phase in enumerate(PHASES)
    }
    contributed = [site for site in SITES if PHASES.index(leaving.get(site, PHASES[-1])) > 2]
    if len(SITES) - len(leaving) < LEAST:
        with pytest.raises(QuorumLost, match="a secure sum takes 5 of the 7"):
            process.federation.sum(train_locally, message)
        return
    found = process.federation.sum(train_locally, message)
    exact = plain.federation.sum(train_locally, message, sites=contributed)
    error = Encoder(WeightedDelta, len(SITES)).error(Layout.of(found))
    assert found.rows == exact.rows
    np.testing.assert_allclose(found.delta, exact.delta, rtol=2**-20, atol=error["delta"])


def test_who_left_is_named_with_the_phase() -> None:
    process, engine, _ = both()
    conversation = process.federation.conversation
    conversation.begin_round(next(NEW), dict(conversation.versions))
    engine.lost = {"secagg.share": {"site b"}, "secagg.reveal": {"site c"}}
    process.federation.sum(train_locally, Weights(np.full(4, 3.0, np.float32)))
    assert [(a.site, a.step) for a in conversation.absences] == [
        ("site b", "secagg.share"),
        ("site c", "secagg.reveal"),
    ]


def test_no_contribution_and_no_count_is_in_anything_that_passes() -> None:
    process, engine = prepared()
    message = Weights(np.array([0.5, -0.25, 0.125, 0.0625], np.float32))
    plain, _ = prepared("clear")
    process.federation.sum(train_locally, message)
    passed = b"".join(encode(each) for each in (*engine.requests, *engine.replies))
    for site in SITES:
        alone = plain.federation.sum(train_locally, message, sites=[site])
        assert alone.delta.tobytes() not in passed
        encoded = Encoder(WeightedDelta, len(SITES)).encode(alone)[64].tobytes()
        assert len(encoded) == 8 * 5 and encoded not in passed
    bodies = [reply.body for reply in engine.replies]
    assert not any(isinstance(body, WeightedDelta) for body in bodies)
    assert sum(isinstance(body, Masked) for body in bodies) == len(SITES)


def test_the_same_sum_over_one_site_fewer_is_refused_everywhere() -> None:
    """The difference of the two totals would be that site's contribution."""
    process, engine = prepared(cohort=5)
    message = Weights(np.array([0.5, -0.25, 0.125, 0.0625], np.float32))
    process.federation.sum(train_locally, message)
    engine.replies.clear()
    with pytest.raises(Refused, match="formed before over other sites"):
        process.federation.sum(train_locally, message, sites=SITES[1:])
    refusals = {reply.site for reply in engine.replies if isinstance(reply.body, Failure)}
    assert refusals == set(SITES[1:])


def test_a_sum_of_fewer_sites_than_the_task_asks_is_refused_everywhere() -> None:
    process, _ = prepared()
    with pytest.raises(Refused, match="other sites than the task says"):
        process.federation.sum(train_locally, Weights(np.zeros(4, np.float32)), sites=SITES[1:])


def test_a_sum_is_formed_again_over_those_of_the_first_time() -> None:
    process, engine = prepared()
    message = Weights(np.array([0.5, -0.25, 0.125, 0.0625], np.float32))
    engine.lost = {"fedavg.train_locally": {"site d"}}
    first = process.federation.sum(train_locally, message)
    engine.lost = {}
    second = process.federation.sum(train_locally, message)
    assert second.rows == first.rows
    np.testing.assert_array_equal(second.delta, first.delta)


@pytest.mark.parametrize("phase", ["secagg.open", "secagg.confirm"])
def test_a_site_that_signs_falsely_fails_alone(phase: str) -> None:
    process, engine = prepared()
    message = Weights(np.array([0.5, -0.25, 0.125, 0.0625], np.float32))

    def forged(step: str, reply: Reply) -> Reply:
        if reply.site != "site c" or step != phase:
            return reply
        return replace(reply, body=replace(reply.body, signature=bytes(64)))  # type: ignore[type-var]

    engine.changed = forged
    plain, _ = prepared("clear")
    contributed = [site for site in SITES if phase == "secagg.confirm" or site != "site c"]
    exact = plain.federation.sum(train_locally, message, sites=contributed)
    assert process.federation.sum(train_locally, message).rows == exact.rows
    (absence,) = process.federation.conversation.absences
    assert (absence.site, absence.step, absence.sentence) == ("site c", phase, "its signature is false")


@pytest.mark.parametrize("claimed", [("site c",), SITES[1:], ("elsewhere",)])
def test_a_site_that_claims_an_earlier_sum_of_others_is_left_out(claimed: tuple[str, ...]) -> None:
    process, engine = prepared()

    def lying(step: str, reply: Reply) -> Reply:
        if reply.site != "site c" or step != "secagg.open":
            return reply
        return replace(reply, body=replace(reply.body, formed=claimed))  # type: ignore[type-var]

    engine.changed = lying
    plain, _ = prepared("clear")
    message = Weights(np.array([0.5, -0.25, 0.125, 0.0625], np.float32))
    exact = plain.federation.sum(train_locally, message, sites=[site for site in SITES if site != "site c"])
    assert process.federation.sum(train_locally, message).rows == exact.rows


def test_sites_are_asked_the_same_in_a_secure_sum() -> None:
    process, _ = prepared()
    one, other = Weights(np.zeros(4, np.float32)), Weights(np.ones(4, np.float32))
    with pytest.raises(TypeError, match="asks all sites the same"):
        process.federation.sum(train_locally, dict.fromkeys(SITES[1:], one) | {SITES[0]: other})


@contextmanager
def assembled(folder: Path, aggregation: str = "secure", **federation: Any) -> Iterator[Assembly]:
    checked = task_of(described(aggregation, **federation))
    assembly = assemble(checked, load_hospitals(checked, folder, hospitals()), folder, "the-run", simulation_key())
    with attached(assembly.simulation):
        yield assembly


def asked_of(assembly: Assembly, site: str, request: Request) -> Failure:
    (reply,) = assembly.process.federation.conversation.engine.exchange([request])
    assert isinstance(reply.body, Failure)
    return reply.body


def test_a_site_gives_nothing_in_the_clear_once_the_task_promises_masks(tmp_path: Path) -> None:
    with assembled(tmp_path) as assembly:
        assembly.process.initialize()
        conversation = assembly.process.federation.conversation
        base = conversation.versions["site a"]
        common = Request("the-run", conversation.task, "site a", 1, 0, base, base, "", Question())
        weights = Weights(np.zeros(4, np.float32))
        for step, message in ((train_locally, weights), (describe, Question())):
            failure = asked_of(assembly, "site a", replace(common, step=step.name, message=message))
            assert failure.code == "refused" and "only totals under masks leave" in failure.sentence
        stray = Contribution(bytes(32), SITES, (), weights)
        failure = asked_of(assembly, "site a", replace(common, step=train_locally.name, message=stray))
        assert failure.code == "refused" and "holds no keys for that secure sum" in failure.sentence
        assert assembly.process.federation.ask(describe, Question()) == {}
    entries = [json.loads(line) for line in (tmp_path / "ledger" / "site a.jsonl").read_text().splitlines()]
    assert {e["code"] for e in entries if e["kind"] == "refusal"} == {"secure_sum"}
    protections = {(e["release"], e["protection"]) for e in entries if e["kind"] == "release"}
    assert protections == {
        ("levels", "none: in the clear"),
        ("sum", "secure aggregation: masked"),
        ("sum", "secure aggregation: keys and shares"),
    }


def test_where_totals_are_in_the_clear_no_question_of_the_protocol_is_answered(tmp_path: Path) -> None:
    with assembled(tmp_path, "clear") as assembly:
        assembly.process.initialize()
        conversation = assembly.process.federation.conversation
        stray = Contribution(bytes(32), SITES, (), Question())
        request = Request("the-run", conversation.task, "site a", 1, 0, 1, 1, class_sums.name, stray)
        assert "in the clear" in asked_of(assembly, "site a", request).sentence


@pytest.mark.parametrize("lost", ["secagg.open", "fedavg.train_locally", "secagg.reveal"])
def test_a_run_that_was_killed_within_a_sum_goes_on_to_the_same_bits(tmp_path: Path, lost: str) -> None:
    """The sites' processes begin anew, with other keys; who has trained does not train again."""
    with assembled(tmp_path / "whole") as whole:
        process = whole.process
        state = process.initialize()
        while not process.done(state):
            state, _ = process.next(state)
        expected = process.weights(state)[""]
    with assembled(tmp_path / "cut") as first:
        state = first.process.initialize()
        conversation = first.process.federation.conversation
        conversation.engine = Lossy(conversation.engine, {lost: set(SITES)})
        with pytest.raises(QuorumLost):
            first.process.next(state)
    with assembled(tmp_path / "cut") as second:
        process = second.process
        while not process.done(state):
            state, _ = process.next(state)
        np.testing.assert_array_equal(process.weights(state)[""], expected)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bits(workers: int) -> None:
    """Whole numbers add up to the same in any order; and every worker knows every site's identity."""
    found = []
    for number in (1, workers):
        process = medfed.build(described() | {"engine": {"batched": "off", "workers": number}}, hospitals())
        state = process.initialize()
        while not process.done(state):
            state, metrics = process.next(state)
        found.append((process.weights(state)[""].tobytes(), metrics.value("loss"), metrics.value("loss", "site a")))
    assert found[0] == found[1]
    assert found[0][1] is not None and found[0][2] is None


@pytest.mark.parametrize(
    ("names", "federation", "told"),
    [
        (SITES, {"strategy": "local"}, "nothing to hide"),
        (SITES, {"strategy": "pooled"}, "nothing to hide"),
        (SITES[:2], {}, "fewer than 3"),
        (SITES, {"cohort": 2}, "asks 2 of the sites"),
    ],
)
def test_what_secure_aggregation_cannot_protect_is_refused_before_anything_runs(
    names: tuple[str, ...], federation: dict[str, Any], told: str
) -> None:
    with pytest.raises(TaskError, match=told):
        resolve_strategy(task_of(described(**federation)), names)


def test_an_algorithm_that_asks_for_single_replies_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FedAvg, "ASKS", True)
    with pytest.raises(TaskError, match="asks for each site's own reply, which secure aggregation does not show"):
        resolve_strategy(task_of(described()), SITES)


def test_an_update_beyond_the_bound_fails_its_site_by_name() -> None:
    process = medfed.build(
        described(quorum=5) | {"privacy": {"aggregation": "secure", "update_bound": 1e-6}}, hospitals()
    )
    state = process.initialize()
    with pytest.raises(QuorumLost, match=r"site a: the field 'delta' is not finite, or beyond the 1e-06"):
        process.next(state)
