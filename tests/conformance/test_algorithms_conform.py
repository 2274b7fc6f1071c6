"""What every registered algorithm keeps, asked of each by its name in the registry: a newcomer's too."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_runs import (
    ROUNDS,
    OverTheWire,
    Shuffled,
    Watched,
    algorithm_kind,
    assembled,
    hospitals,
    run_to_end,
    task,
)

import medfed
from medfed.algorithms import ALGORITHMS
from medfed.core import steps
from medfed.core.codec import decode, encode
from medfed.core.errors import Refused, TaskError
from medfed.core.examples import Examples
from medfed.core.messages import Message, additive_fields, out_of_bounds
from medfed.core.protocols import Algorithm, Law
from medfed.core.rng import generator
from medfed.core.steps import Release, Step, installed_step
from medfed.engine.federation import SiteFederation
from medfed.engine.folder import Origin, RunFolder
from medfed.engine.masking import Masking
from medfed.engine.process import RunState
from medfed.engine.securesum import SecureSums
from medfed.engine.strategies import RUN_STEPS, resolve_strategy
from medfed.models.batches import Position
from medfed.models.catalogue import build_network
from medfed.models.loss import cross_entropy
from medfed.models.training import train
from medfed.privacy.ring import Encoder, Layout
from medfed.spec.loading import task_of
from medfed.spec.policy import Policy

pytestmark = pytest.mark.parametrize("name", ALGORITHMS.names())


def run_through(wrapper: Any, name: str, sites: Any = None) -> tuple[Any, RunState]:
    """The wrapped engine and the last state of a run over it."""
    process = medfed.build(task(name), sites or hospitals())
    engine = process.federation.conversation.engine = wrapper(process.federation.conversation.engine)
    return engine, run_to_end(process)


def ledger_of(site: str, folder: Path) -> list[dict[str, Any]]:
    """The entries that a site wrote."""
    return [json.loads(line) for line in (folder / "ledger" / f"{site}.jsonl").read_text().splitlines()]


def declared(name: str, law: Law) -> type[Algorithm[Any]]:
    kind = algorithm_kind(name)
    if law not in kind.LAWS:
        pytest.skip(f"{name} does not declare that {law.value}")
    return kind


def test_protocol_and_declarations(name: str) -> None:
    kind = algorithm_kind(name)
    algorithm = kind(initial=np.zeros(2, np.float32), rounds=1, tolerance=0.0)  # type: ignore[call-arg]
    assert isinstance(algorithm, Algorithm)
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(isinstance(extra, str) for extra in kind.REQUIRES)
    assert isinstance(kind.LAWS, frozenset) and all(isinstance(law, Law) for law in kind.LAWS)
    assert kind.STEPS and all(installed_step(step.name) is step for step in kind.STEPS)
    assert type(kind.ASKS) is bool
    assert type(kind.PLAIN_SGD) is bool
    assert type(kind.AVERAGES) is bool
    assert inspect.getdoc(kind)


def test_three_rounds_give_a_model(name: str) -> None:
    algorithm_kind(name)
    process = medfed.build(task(name), hospitals())
    first = process.initialize()
    last = run_to_end(process, first)
    before, after = process.weights(first)[""], process.weights(last)[""]
    assert last.round == ROUNDS
    assert after.dtype == np.float32 and after.shape == before.shape
    assert np.isfinite(after).all()
    assert not np.array_equal(after, before)


def test_state_survives_the_codec_to_the_bit(name: str) -> None:
    algorithm_kind(name)
    process = medfed.build(task(name), hospitals())
    state = process.initialize()
    while True:
        for message in (state.lanes[0].algorithm, state):
            assert isinstance(message, Message)
            again = decode(encode(message), type(message))
            assert encode(again) == encode(message)
        if process.done(state):
            break
        state, _ = process.next(decode(encode(state), RunState))


def test_only_declared_steps_are_called(name: str) -> None:
    allowed = {step.name for step in (*RUN_STEPS, *algorithm_kind(name).STEPS)}
    engine, state = run_through(Watched, name)
    called = {request.step for request in engine.requests}
    assert called <= allowed
    assert called & {step.name for step in algorithm_kind(name).STEPS}
    assert state.absences == ()


def test_it_says_whether_it_asks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, asked = algorithm_kind(name), set()
    stream = SiteFederation.stream

    def watched(self: SiteFederation, step: Step[Any, Any], *arguments: Any, **named: Any) -> Any:
        asked.add(step.name)
        return stream(self, step, *arguments, **named)

    monkeypatch.setattr(SiteFederation, "stream", watched)
    run_to_end(medfed.build(task(name), hospitals()))
    assert "evaluation.own_metrics" in asked
    assert bool(asked & {step.name for step in kind.STEPS}) is kind.ASKS


def test_summed_replies_stay_within_their_bounds(name: str) -> None:
    own = {step.name for step in algorithm_kind(name).STEPS if step.releases is Release.SUM}
    engine, _ = run_through(Watched, name)
    for request, reply in engine.replies:
        if installed_step(request.step).releases is Release.SUM:
            assert out_of_bounds(reply.body) is None, request.step
    assert not own or own & {request.step for request, _ in engine.replies}


def test_engines_agree_to_the_bit(name: str) -> None:
    algorithm_kind(name)
    _, here = run_through(Watched, name)
    _, there = run_through(OverTheWire, name)
    assert encode(there) == encode(here)


def test_secure_sums_are_the_clear_sums_within_the_stated_quantisation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sum of a run: those of preparation and evaluation, and the algorithm's own."""
    if algorithm_kind(name).ASKS:
        pytest.skip(f"{name} asks for single replies")
    given: list[Message] = []
    seen: set[type[Message]] = set()
    mask, total_of = Masking.contribution, SecureSums.total

    def masked(self: Masking, step: Step[Any, Any], contribution: Message) -> Any:
        given.append(contribution)
        return mask(self, step, contribution)

    def compared(self: SecureSums, conversation: Any, step: Step[Any, Any], messages: Any, failures: Any) -> Any:
        given.clear()
        total = total_of(self, conversation, step, messages, failures)
        errors = Encoder(step.reply, self.parties, self.largest).error(Layout.of(total))
        assert len(given) == len(messages) and errors.keys() == additive_fields(step.reply).keys()
        for field, error in errors.items():
            exact = np.sum([np.asarray(getattr(each, field), np.float64) for each in given], axis=0)
            rounding = np.abs(exact) * (2.0**-23 if getattr(total, field).__class__ is np.ndarray else 2.0**-52)
            assert (np.abs(getattr(total, field) - exact) <= error + rounding).all(), (step.name, field)
        seen.add(step.reply)
        return total

    monkeypatch.setattr(Masking, "contribution", masked)
    monkeypatch.setattr(SecureSums, "total", compared)
    described = task(name) | {"privacy": {"aggregation": "secure"}, "engine": {"workers": 1}}
    last = run_to_end(medfed.build(described, hospitals()))
    assert last.round == ROUNDS and last.absences == ()
    own = {step.reply for step in algorithm_kind(name).STEPS if step.releases is Release.SUM}
    assert own <= seen and len(seen) > len(own)


def test_encrypted_sums_are_the_secure_sums_to_the_bit(name: str) -> None:
    """So they are off the clear sums by the same quantisation, and CKKS adds no error of its own."""
    pytest.importorskip("tenseal")
    if algorithm_kind(name).ASKS:
        pytest.skip(f"{name} asks for single replies")
    lanes = []
    for aggregation in ("secure", "encrypted"):
        described = task(name) | {"privacy": {"aggregation": aggregation}, "engine": {"workers": 1}}
        last = run_to_end(medfed.build(described, hospitals()))
        assert last.round == ROUNDS and last.absences == ()
        lanes.append([encode(lane) for lane in last.lanes])
    assert lanes[0] == lanes[1]


@pytest.mark.parametrize("aggregation", ["secure", "encrypted"])
def test_it_is_refused_where_parts_are_hidden_and_it_asks(name: str, aggregation: str) -> None:
    checked = task_of(task(name) | {"privacy": {"aggregation": aggregation}})
    if algorithm_kind(name).ASKS:
        with pytest.raises(TaskError, match="own reply"):
            resolve_strategy(checked, sorted(hospitals()))
    else:
        steps = resolve_strategy(checked, sorted(hospitals())).steps
        assert all(installed_step(each).releases is not Release.SITE for each in steps)


def test_the_order_of_sites_does_not_matter(name: str) -> None:
    declared(name, Law.SITE_ORDER)
    _, plain = run_through(Watched, name)
    _, reordered = run_through(Watched, name, dict(reversed(hospitals().items())))
    shuffled, late = run_through(Shuffled, name)
    assert shuffled.turned > ROUNDS
    assert encode(reordered) == encode(plain)
    assert encode(late) == encode(plain)


def test_one_site_is_local_training(name: str) -> None:
    """Within float32's rounding, since what is added to the weights is their change."""
    declared(name, Law.ONE_SITE_IS_LOCAL)
    sites = hospitals(alone=40)
    described = task(name) | {"data": {**task(name)["data"], "standardize": "none", "split": {"train": 1, "test": 0}}}
    described["data"]["split"]["validation"] = 0
    process = medfed.build(described, sites)
    found = process.weights(run_to_end(process))[""]

    spec = task_of(described).spec
    network, position = build_network(spec.model, (3,), 1, spec.seed), Position()
    for number in range(1, ROUNDS + 1):
        session = train(
            network,
            Examples(*sites["alone"]),
            cross_entropy(None),
            spec.federation,
            round_number=number,
            position=position,
            optimizer=None,
            generator=lambda epoch: generator(spec.seed, "alone", "shuffle", epoch),
        )
        position = session.position
    np.testing.assert_allclose(found, network.vector(), rtol=0, atol=5e-7)


@pytest.mark.parametrize("interrupted_after", [0, 1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, interrupted_after: int, tmp_path: Path) -> None:
    """A round is lost with the process: the sites have trained and remember it, and do not train it again."""
    kind = declared(name, Law.RESUME)
    whole = run_to_end(medfed.build(task(name), hospitals()))

    run = RunFolder.create(tmp_path / "run", "", Origin("the-run", "", ""))
    with assembled(name, run.path) as first:
        state = first.process.initialize()
        for _ in range(interrupted_after):
            state, _ = first.process.next(state)
        run.record(state)
        first.process.next(state)
    with assembled(name, run.path) as second:
        restored = run.restore()
        assert restored is not None and restored.round == interrupted_after
        resumed = run_to_end(second.process, restored)

    for mine, theirs in zip(resumed.lanes, whole.lanes, strict=True):
        assert encode(mine) == encode(theirs)
    repeated = {entry["step"] for entry in ledger_of("birch", run.path) if entry["kind"] == "repeat"}
    assert repeated & {step.name for step in kind.STEPS}


def test_no_step_runs_where_the_policy_does_not_list_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempted = [
        step
        for step in algorithm_kind(name).STEPS
        if is_refused_at_birch(name, step, tmp_path / step.name, monkeypatch)
    ]
    assert attempted


def is_refused_at_birch(name: str, step: Step[Any, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a run under birch's policy came to this step at all; if so, birch refused it and did not run it."""
    ran: list[str] = []

    def sentinel(site: Any, message: Any) -> Any:
        ran.append(site.site)
        return step.run(site, message)

    def sentinel_twin(original: Any, stack: Any, message: Any) -> Any:
        ran.extend(site.site for site in stack.sites)
        return original(stack, message)

    folder.mkdir()
    others = {other.name for other in (*RUN_STEPS, *algorithm_kind(name).STEPS)} - {step.name}
    policy = Policy.permissive().model_copy(update={"steps": tuple(sorted(others))})
    refusal = pytest.raises(Refused, match=f"birch: .*{step.name}")
    with monkeypatch.context() as patch, assembled(name, folder, {"birch": policy}) as assembly:
        patch.setitem(steps._STEPS, step.name, dataclasses.replace(step, run=sentinel))
        if (original := step.run_many) is not None:
            patch.setitem(steps._TWINS, step.name, partial(sentinel_twin, original))
        with refusal if step.releases is Release.SUM else contextlib.nullcontext():
            run_to_end(assembly.process)

    entries = ledger_of("birch", folder)
    of_step = [(entry["kind"], entry.get("code")) for entry in entries if entry.get("step") == step.name]
    with contextlib.closing(sqlite3.connect(folder / "sites" / "memory" / "0")) as memory:
        kept = memory.execute("SELECT reply FROM version WHERE site = 'birch'").fetchall()
    replies = [decode(encoded, Message) for (encoded,) in kept]
    assert set(of_step) <= {("refusal", "policy.steps")}
    assert replies and not any(isinstance(reply, step.reply) for reply in replies)
    assert "birch" not in ran
    assert bool(of_step) is ("ashford" in ran)
    return bool(of_step)
