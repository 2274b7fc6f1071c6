from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfed.algorithms.fedavg import WeightedDelta, Weights, train_locally
from medfed.core import steps
from medfed.core.codec import encode
from medfed.core.examples import Split
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.assembly import Assembly, assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.host import SiteHost
from medfed.engine.inprocess import InProcess
from medfed.engine.simulation import attached
from medfed.engine.stack import CannotStack, SessionStack
from medfed.engine.store import store_paths
from medfed.evaluate.evaluation import Candidate, class_sums
from medfed.govern.keys import SigningKey
from medfed.govern.verify import verify_ledgers
from medfed.spec.loading import task_of
from medfed.spec.policy import Limits, Policy

SITES = ("ash", "birch", "cedar", "dogwood")
KEY = SigningKey.generate()
HUGE = {"cedar": np.float32(1e37)}


def rows(scale: Mapping[str, np.float32]) -> dict[str, Any]:
    given = {}
    for number, site in enumerate(SITES):
        draw = np.random.default_rng([1, number])
        features = draw.normal(size=(30 + 7 * number, 13)).astype(np.float32)
        labels = (features[:, 0] + draw.normal(0, 0.5, len(features)) > 0).astype(np.int64)
        given[site] = features * scale.get(site, np.float32(1)), labels
    return given


def made(batched: str, **federation: Any) -> Any:
    settings = {"strategy": "fedavg", "rounds": 2, "local_updates": 5, "batch_size": 7, "lr": 0.1, "quorum": 1}
    return task_of(
        {
            "task_type": "classification",
            "model": "logistic",
            "federation": {**settings, **federation},
            "data": {
                "label": {"column": "y", "classes": [0, 1]},
                "split": {"train": 0.7, "validation": 0, "test": 0.3},
                "standardize": "none",
            },
            "engine": {"workers": 1, "batched": batched},
            "seed": 4,
        }
    )


@dataclass
class Opened:
    """The host of four sites whose data are prepared, and what it is asked."""

    assembly: Assembly
    host: SiteHost
    versions: dict[str, int]

    def requests(
        self, message: Any, step: Any = train_locally, *, sites: Sequence[str] = SITES, call: int = 0
    ) -> list[Request]:
        conversation = self.assembly.process.federation.conversation
        return [
            Request(
                conversation.run, conversation.task, s, 1, call, self.versions[s], self.versions[s], step.name, message
            )
            for s in sites
        ]

    def ask(self, message: Any, step: Any = train_locally, **where: Any) -> dict[str, Reply]:
        return {r.site: r for block in self.host.handle(self.requests(message, step, **where)) for r in block}


@contextmanager
def opened(
    folder: Path, batched: str = "auto", scale: Mapping[str, np.float32] = {}, **federation: Any
) -> Iterator[Any]:
    task = made(batched, **federation)
    assembly = assemble(task, load_hospitals(task, folder, rows(scale)), folder, "the-run", KEY)
    with attached(assembly.simulation):
        parties = assembly.simulation.parties
        assert isinstance(parties, InProcess) and isinstance(parties.host, SiteHost)
        state = assembly.process.initialize()
        yield Opened(assembly, parties.host, state.versions.by_site())


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The sites of each stack that a twin was asked to run."""
    calls: list[list[str]] = []

    def watched(twin: Callable[..., Any]) -> Callable[..., Any]:
        def run(stack: SessionStack, message: Any) -> Any:
            calls.append([session.site for session in stack.sites])
            return twin(stack, message)

        return run

    monkeypatch.setattr(steps, "_TWINS", {name: watched(twin) for name, twin in steps._TWINS.items()})
    return calls


WEIGHTS = Weights(np.linspace(-0.5, 0.75, 14, dtype=np.float32))


def alone(folder: Path, **options: Any) -> dict[str, Reply]:
    """What each site answers by itself."""
    with opened(folder / "alone", "off", **options) as one_by_one:
        found: dict[str, Reply] = one_by_one.ask(WEIGHTS)
    return found


def entries(folder: Path, site: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger" / f"{site}.jsonl").read_text().splitlines()]


def delta(reply: Reply) -> np.ndarray[Any, Any]:
    assert isinstance(reply.body, WeightedDelta)
    return reply.body.delta / reply.body.rows


def test_sites_asked_alike_are_answered_by_the_twin_as_each_alone_would(tmp_path: Path, twins: list[list[str]]) -> None:
    with opened(tmp_path / "together") as several:
        found = several.ask(WEIGHTS)
        assert several.host.stacked
    assert twins == [list(SITES)]
    expected = alone(tmp_path)
    assert twins == [list(SITES)]
    assert list(found) == list(expected) == list(SITES)
    for site in SITES:
        np.testing.assert_allclose(delta(found[site]), delta(expected[site]), rtol=0, atol=1e-6)
        assert np.abs(delta(found[site])).max() > 1e-3
        assert found[site].version == expected[site].version


@pytest.mark.parametrize("options", [{"batched": "off"}, {"deadline": 600.0}], ids=["batched: off", "a deadline"])
def test_no_site_is_stacked_where_the_task_does_not_allow_it(
    tmp_path: Path, twins: list[list[str]], options: dict[str, Any]
) -> None:
    with opened(tmp_path, **options) as several:
        assert len(several.ask(WEIGHTS)) == 4
        assert len(several.ask(Candidate(WEIGHTS.weights, Split.TEST, 2), class_sums, call=1)) == 4
        assert not several.host.stacked
    assert twins == []


def test_one_site_by_itself_needs_no_twin(tmp_path: Path, twins: list[list[str]]) -> None:
    with opened(tmp_path / "one") as several:
        found = several.ask(WEIGHTS, sites=["birch"])
    assert twins == []
    assert encode(found["birch"].body) == encode(alone(tmp_path)["birch"].body)


def test_sites_asked_differently_each_run_by_themselves(tmp_path: Path, twins: list[list[str]]) -> None:
    with opened(tmp_path) as several:
        requests = several.requests(WEIGHTS)
        requests[2] = replace(requests[2], message=Weights(WEIGHTS.weights * 2))
        assert [reply.site for block in several.host.handle(requests) for reply in block] == list(SITES)
    assert twins == []


def test_an_equal_message_that_is_another_object_is_alike(tmp_path: Path, twins: list[list[str]]) -> None:
    with opened(tmp_path) as several:
        requests = several.requests(WEIGHTS)
        requests[2] = replace(requests[2], message=Weights(WEIGHTS.weights.copy()))
        list(several.host.handle(requests))
    assert twins == [list(SITES)]


def test_where_one_site_diverges_it_alone_fails_and_the_others_are_what_they_are_alone(
    tmp_path: Path, twins: list[list[str]]
) -> None:
    with opened(tmp_path / "together", scale=HUGE) as several:
        found = several.ask(WEIGHTS)
    assert twins == [list(SITES)]
    expected = alone(tmp_path, scale=HUGE)
    for site in SITES:
        assert encode(found[site].body) == encode(expected[site].body)
    failure = found["cedar"].body
    assert isinstance(failure, Failure) and "diverged" in failure.sentence
    assert [site for site in SITES if isinstance(found[site].body, Failure)] == ["cedar"]
    for site in SITES:
        kinds = [
            entry["kind"] for entry in entries(tmp_path / "together", site) if entry.get("step") == train_locally.name
        ]
        assert kinds == (["failure"] if site == "cedar" else ["release"])


def test_a_site_that_refuses_leaves_the_others_stacked(tmp_path: Path, twins: list[list[str]]) -> None:
    with opened(tmp_path) as several:
        strict = Policy.permissive().model_copy(update={"minimum_patients": 1000})
        several.host.nodes["birch"] = replace(several.host.nodes["birch"], policy=lambda: strict)
        found = several.ask(WEIGHTS)
    assert twins == [["ash", "cedar", "dogwood"]]
    assert list(found) == list(SITES)
    refusal = found["birch"].body
    assert isinstance(refusal, Failure) and refusal.code == "refused"
    assert all(isinstance(found[site].body, WeightedDelta) for site in twins[0])
    assert entries(tmp_path, "birch")[-1]["kind"] == "refusal"


def test_a_limit_on_releases_is_kept_in_a_stack(tmp_path: Path) -> None:
    with opened(tmp_path) as several:
        limit = several.host.nodes["birch"].memory.released_bytes
        strict = Policy.permissive().model_copy(update={"limits": Limits(released_bytes=limit)})
        several.host.nodes["birch"] = replace(several.host.nodes["birch"], policy=lambda: strict)
        found = several.ask(WEIGHTS)
        assert several.host.nodes["birch"].memory.released_bytes == limit
    assert [site for site in SITES if isinstance(found[site].body, Failure)] == ["birch"]


@pytest.mark.parametrize("raised", [CannotStack(), ValueError("a patient of 71")], ids=["cannot", "a fault"])
def test_a_twin_that_raises_leaves_each_site_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    asked: list[int] = []

    def twin(stack: SessionStack, message: Weights) -> Any:
        asked.append(len(stack.sites))
        stack.sites[0].keep(message)
        raise raised

    monkeypatch.setitem(steps._TWINS, train_locally.name, twin)
    with opened(tmp_path / "together") as several:
        found = several.ask(WEIGHTS)
        assert Weights not in several.host.nodes["ash"].memory.at(found["ash"].version)
        several.ask(Weights(WEIGHTS.weights * 2), call=1)
        several.ask(Candidate(WEIGHTS.weights, Split.TEST, 2), class_sums, call=2)
    expected = alone(tmp_path)
    assert {site: encode(reply.body) for site, reply in found.items()} == {
        site: encode(reply.body) for site, reply in expected.items()
    }
    assert asked == [4, 4]
    log = tmp_path / "together" / "sites" / "ash.log"
    assert log.exists() == isinstance(raised, ValueError)


def versions_on_disk(folder: Path) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for store in store_paths(folder):
        connection = sqlite3.connect(store)
        found |= set(connection.execute("SELECT site, max(number) FROM version GROUP BY site").fetchall())
        connection.close()
    return found


@pytest.mark.parametrize("batched", ["auto", "off"])
def test_a_block_is_committed_whole_before_any_of_its_replies_leaves(tmp_path: Path, batched: str) -> None:
    with opened(tmp_path, batched) as several:
        for block in several.host.handle(several.requests(WEIGHTS)):
            assert versions_on_disk(tmp_path) >= {(reply.site, reply.version) for reply in block}
            assert len(block) == (4 if batched == "auto" else 1)


def test_a_block_that_cannot_be_committed_is_not_answered_from_half_of_it(tmp_path: Path) -> None:
    with opened(tmp_path) as several:
        other = sqlite3.connect(tmp_path / "sites" / "memory" / "0")
        fails = "ON version WHEN NEW.site = 'cedar' BEGIN SELECT RAISE(FAIL, 'full'); END"
        other.execute(f"CREATE TRIGGER full_for_new BEFORE INSERT {fails}")
        other.execute(f"CREATE TRIGGER full_for_spare BEFORE UPDATE {fails}")
        other.commit()
        before = several.host.nodes["cedar"].memory.requests
        found = several.ask(WEIGHTS)
        assert [site for site in SITES if isinstance(found[site].body, Failure)] == ["cedar"]
        assert {(s, found[s].version) for s in SITES if s != "cedar"} < versions_on_disk(tmp_path)
        other.execute("DROP TRIGGER full_for_new")
        other.execute("DROP TRIGGER full_for_spare")
        other.commit()
        other.close()
        again = several.ask(WEIGHTS)
        assert isinstance(again["cedar"].body, WeightedDelta)
        assert several.host.nodes["cedar"].memory.requests > before
        for site in ("ash", "birch", "dogwood"):
            assert encode(again[site]) == encode(found[site])


def test_a_repeated_exchange_is_answered_from_memory(tmp_path: Path, twins: list[list[str]]) -> None:
    with opened(tmp_path) as several:
        first = several.ask(WEIGHTS)
        again = several.ask(WEIGHTS)
        assert {site: encode(reply) for site, reply in again.items()} == {s: encode(r) for s, r in first.items()}
    assert len(twins) == 1
    for site in SITES:
        kinds = [entry["kind"] for entry in entries(tmp_path, site) if entry.get("step") == train_locally.name]
        assert kinds == ["release", "repeat"]


def test_a_repeated_exchange_of_which_some_sites_had_answered(tmp_path: Path, twins: list[list[str]]) -> None:
    with opened(tmp_path) as several:
        first = several.ask(WEIGHTS, sites=["birch", "dogwood"])
        again = several.ask(WEIGHTS)
        last = several.ask(WEIGHTS)
    assert twins == [["birch", "dogwood"], ["ash", "cedar"]]
    for site in SITES:
        assert encode(last[site]) == encode(again[site])
    for site in first:
        assert encode(again[site]) == encode(first[site])


@pytest.mark.parametrize("step", ["training", "metrics"])
def test_after_a_restart_stacks_give_the_same_bits(tmp_path: Path, step: str) -> None:
    message: Any = WEIGHTS if step == "training" else Candidate(WEIGHTS.weights, Split.TEST, 2)
    asked = {"step": train_locally if step == "training" else class_sums}
    found = []
    for name, before in (("warm", True), ("cold", False)):
        with opened(tmp_path / name) as several:
            if before:
                several.ask(message, **asked, sites=SITES[:3], call=5)
            found.append({site: encode(reply.body) for site, reply in several.ask(message, **asked).items()})
    assert found[0] == found[1]


def test_ledgers_have_the_same_kinds_of_entries_stacked_or_not(tmp_path: Path) -> None:
    kinds: dict[str, Any] = {}
    for batched in ("auto", "off"):
        folder = tmp_path / batched
        with opened(folder, batched) as several:
            process = several.assembly.process
            state = process.initialize()
            several.assembly.simulation.sign_heads(0)
            while not process.done(state):
                state, _ = process.next(state)
                several.assembly.simulation.sign_heads(state.round)
            handled = {site: node.memory.requests for site, node in several.host.nodes.items()}
            several.assembly.simulation.close("complete")
        verify_ledgers(folder / "ledger", KEY.verify_key, finished=True)
        kinds[batched] = {
            party: [(e["kind"], e.get("step"), e.get("round")) for e in entries(folder, party)]
            for party in (*SITES, "coordinator")
        }
        for site in SITES:
            assert sum(kind == "release" for kind, *_ in kinds[batched][site]) == handled[site]
    assert kinds["auto"] == kinds["off"]
