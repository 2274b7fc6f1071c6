"""Sums under encryption as a run sees them: the totals of masking to the bit, dropouts, and coordinators that pry."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_secure_sums import SITES, Lossy, asked_of, assembled, described, hospitals, prepared

import medfed
from medfed.algorithms.fedavg import FedAvg, WeightedDelta, Weights, train_locally
from medfed.core.codec import encode
from medfed.core.errors import MissingExtra, QuorumLost, Refused, TaskError
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.assembly import check_parts
from medfed.engine.process import Process
from medfed.engine.spool import Spool
from medfed.engine.strategies import resolve_strategy
from medfed.privacy import extra
from medfed.privacy.he.coordinator import EncryptedSum
from medfed.privacy.he.messages import Decryption, Encrypted, SealedKeys
from medfed.privacy.he.words import words_of
from medfed.privacy.ring import Encoder
from medfed.spec.loading import task_of

pytest.importorskip("tenseal")

MESSAGE = Weights(np.array([0.5, -0.25, 0.125, 0.0625], np.float32))
PHASES = ("he.open", "fedavg.train_locally", "he.agree", "he.decrypt")


def summed(aggregation: str, sites: tuple[str, ...] = SITES) -> WeightedDelta:
    process, _ = prepared(aggregation)
    return process.federation.sum(train_locally, MESSAGE, sites=sites)


def encrypted(lost: dict[str, set[str]] | None = None, **settings: Any) -> tuple[Process, Lossy]:
    process, engine = prepared("encrypted", **settings)
    engine.lost = lost or {}
    return process, engine


def test_a_run_gives_the_bits_of_one_under_masks_and_its_ledger_says_what_left(tmp_path: Path) -> None:
    """Both round to the same whole numbers, so that both are off the clear total by that rounding alone."""
    models = []
    for aggregation in ("secure", "encrypted"):
        with assembled(tmp_path / aggregation, aggregation) as assembly:
            process = assembly.process
            state = process.initialize()
            while not process.done(state):
                state, _ = process.next(state)
            models.append(process.weights(state)[""].tobytes())
    assert models[0] == models[1]
    lines = (tmp_path / "encrypted" / "ledger" / "site a.jsonl").read_text().splitlines()
    left = {(e["release"], e["protection"]) for e in map(json.loads, lines) if e["kind"] == "release"}
    assert left == {
        ("levels", "none: in the clear"),
        ("sum", "homomorphic encryption: encrypted"),
        ("sum", "homomorphic encryption: keys and totals"),
    }


@pytest.mark.parametrize("phase", PHASES)
def test_sites_that_drop_out_at_any_phase_are_left_out(phase: str) -> None:
    leaving = {"site a", "site f"}
    lost = dict.fromkeys(PHASES[PHASES.index(phase) :], leaving)
    process, _ = encrypted(lost)
    contributed = SITES if PHASES.index(phase) > 1 else tuple(site for site in SITES if site not in leaving)
    found, exact = process.federation.sum(train_locally, MESSAGE), summed("clear", contributed)
    assert found.rows == exact.rows
    np.testing.assert_allclose(found.delta, exact.delta, rtol=1e-6, atol=1e-4)
    absent = {absence.site for absence in process.federation.conversation.absences}
    assert absent == (leaving if phase != "he.decrypt" else absent & leaving)


@pytest.mark.parametrize("phase", [*PHASES, "he.deal"])
def test_with_too_few_sites_there_is_no_total(phase: str) -> None:
    process, engine = encrypted({phase: set(SITES[:3]) if phase != "he.decrypt" else set(SITES)})
    with pytest.raises(QuorumLost, match=r"takes 5 of the 7|no site decrypted"):
        process.federation.sum(train_locally, MESSAGE)
    assert sum(request.step == "he.decrypt" for request in engine.requests) == (7 if phase == "he.decrypt" else 0)


def test_a_site_that_makes_no_key_is_left_out_and_another_makes_it() -> None:
    process, engine = encrypted({"he.deal": {"site a"}})
    assert process.federation.sum(train_locally, MESSAGE).rows == summed("clear", SITES[1:]).rows
    assert [r.site for r in engine.requests if r.step == "he.deal"] == ["site a", "site b"]


def test_nothing_that_passes_holds_a_contribution_or_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from medfed.privacy.he.ckks import SecretKey

    keys: list[bytes] = []
    content = SecretKey.content

    def noted(self: SecretKey) -> bytes:
        keys.append(content(self))
        return keys[-1]

    process, engine = encrypted()
    monkeypatch.setattr(SecretKey, "content", noted)
    total = process.federation.sum(train_locally, MESSAGE)
    passed = b"".join(encode(each) for each in (*engine.requests, *engine.replies))
    assert len(keys) == 1 and keys[0][200:300] not in passed
    for site in SITES:
        alone = summed("clear", (site,))
        assert alone.delta.tobytes() not in passed
        assert words_of(Encoder(WeightedDelta, len(SITES)).encode(alone)).tobytes() not in passed
    assert [type(r.body) for r in engine.replies].count(Encrypted) == len(SITES)
    assert total.delta.tobytes() in passed


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["he.deal", "fedavg.train_locally", "he.agree", "he.decrypt"])
def test_a_run_that_was_killed_within_a_sum_goes_on_to_the_same_bits(tmp_path: Path, lost: str) -> None:
    """The sites' processes begin anew, with another key; who has trained does not train again."""
    with assembled(tmp_path / "whole", "encrypted") as whole:
        process = whole.process
        state = process.initialize()
        while not process.done(state):
            state, _ = process.next(state)
        expected = process.weights(state)[""]
    with assembled(tmp_path / "cut", "encrypted") as first:
        state = first.process.initialize()
        conversation = first.process.federation.conversation
        conversation.engine = Lossy(conversation.engine, {lost: set(SITES)})
        with pytest.raises(QuorumLost):
            first.process.next(state)
    with assembled(tmp_path / "cut", "encrypted") as second:
        process = second.process
        while not process.done(state):
            state, _ = process.next(state)
        np.testing.assert_array_equal(process.weights(state)[""], expected)


def test_two_worker_processes_give_the_same_bits() -> None:
    """Each makes and opens keys of its own sites."""
    found = []
    for workers in (1, 2):
        process = medfed.build(described("encrypted") | {"engine": {"batched": "off", "workers": workers}}, hospitals())
        state = process.initialize()
        while not process.done(state):
            state, _ = process.next(state)
        found.append(process.weights(state)[""].tobytes())
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------------------- attacks


@dataclass
class Prying(Lossy):
    """A coordinator that has the sites decrypt something else than the total."""

    swapped: Callable[[Decryption, list[NDArray[np.uint8]]], Decryption] = lambda question, parts: question
    parts: list[NDArray[np.uint8]] = field(default_factory=list)

    def exchange(self, requests: Any) -> Any:
        asked = {request.site: request.digest() for request in requests}
        if isinstance(requests[0].message, Decryption):
            requests = [replace(each, message=self.swapped(each.message, self.parts)) for each in requests]
        for reply in super().exchange(requests):
            if isinstance(reply.body, Encrypted):
                self.parts.append(reply.body.ciphertexts)
            yield replace(reply, request=asked[reply.site])


def without_one(question: Decryption, parts: list[NDArray[np.uint8]]) -> Decryption:
    scheme = EncryptedSum(b"", b"", 7).scheme
    rows = [scheme.add([part[k] for part in parts[1:]]) for k in range(len(parts[0]))]
    return replace(question, ciphertexts=np.stack(rows))


def twice_one(question: Decryption, parts: list[NDArray[np.uint8]]) -> Decryption:
    scheme = EncryptedSum(b"", b"", 7).scheme
    rows = [scheme.add([part[k] for part in (*parts, parts[0])]) for k in range(len(parts[0]))]
    return replace(question, ciphertexts=np.stack(rows))


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (lambda question, parts: replace(question, ciphertexts=parts[2]), "not the sum of the contributions"),
        (without_one, "not the sum of the contributions"),
        (twice_one, "not the sum of the contributions"),
        (lambda question, parts: replace(question, ciphertexts=np.zeros((1, 9), np.uint8)), "is no total"),
        (lambda question, parts: replace(question, sites=question.sites[:2], signatures=question.signatures[:2]),
         "2 sites agreed on the total, and it takes 5"),
        (lambda question, parts: replace(question, signatures=(bytes(64),) * 7), "agreed on another total"),
    ],
)  # fmt: skip
def test_nothing_but_the_agreed_total_is_decrypted(attack: Any, told: str) -> None:
    """The attack on a shared key: one site's ciphertext, or a part of the sum, shown to another site as the total."""
    process, engine = encrypted()
    process.federation.conversation.engine = Prying(engine, swapped=attack)
    with pytest.raises(Refused, match=told):
        process.federation.sum(train_locally, MESSAGE)
    answers = [r for r in engine.replies if isinstance(r.body, WeightedDelta)]
    assert not answers


def test_a_total_is_decrypted_once_at_each_site() -> None:
    process, engine = encrypted()
    process.federation.sum(train_locally, MESSAGE)
    request = next(r for r in engine.requests if r.step == "he.decrypt")
    (reply,) = process.federation.conversation.engine.exchange([request])
    assert isinstance(reply.body, Failure) and "came again" in reply.body.sentence


def test_the_same_sum_over_one_site_fewer_is_refused_everywhere() -> None:
    process, engine = encrypted(cohort=5)
    process.federation.sum(train_locally, MESSAGE)
    engine.replies.clear()
    with pytest.raises(Refused, match="formed before over other sites"):
        process.federation.sum(train_locally, MESSAGE, sites=SITES[1:])
    assert {reply.site for reply in engine.replies if isinstance(reply.body, Failure)} == set(SITES[1:])


MALFORMED: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "no signature": (train_locally.name, lambda body: replace(body, signature=bytes(64)), "signature is false"),
    "another tag": (train_locally.name, lambda body: replace(body, tag=bytes(16)), "signature is false"),
    "flat": (train_locally.name, lambda body: replace(body, ciphertexts=body.ciphertexts[0]), "were expected"),
    "false key": ("he.open", lambda body: replace(body, box_key=bytes(32)), "shows a key that is none"),
    "few boxes": ("he.deal", lambda body: SealedKeys(body.boxes[1:]), "one key for each other site"),
    "no agreement": ("he.agree", lambda body: replace(body, signature=bytes(64)), "signature is false"),
    "short total": ("he.decrypt", lambda body: replace(body, delta=body.delta[1:]), "another layout"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_site_that_answers_falsely_fails_alone_by_name(name: str) -> None:
    step, change, told = MALFORMED[name]
    process, engine = encrypted()

    def changed(asked: str, reply: Reply) -> Reply:
        if (reply.site, asked) != ("site a", step) or isinstance(reply.body, Failure):
            return reply
        return replace(reply, body=change(reply.body))

    engine.changed = changed
    contributed = SITES if step in ("he.agree", "he.decrypt") else SITES[1:]
    assert process.federation.sum(train_locally, MESSAGE).rows == summed("clear", contributed).rows
    (absence,) = process.federation.conversation.absences
    assert (absence.site, absence.step) == ("site a", step) and told in absence.sentence


def test_ciphertexts_that_are_none_fail_their_site_although_it_signed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from medfed.privacy.he.ckks import SecretKey

    encrypt, sites = SecretKey.encrypt, itertools.count()

    def garbled(self: SecretKey, words: Any) -> Any:
        rows = encrypt(self, words)
        rows[:, 0] ^= 255 * (next(sites) == 0)
        return rows

    process, _ = encrypted()
    monkeypatch.setattr(SecretKey, "encrypt", garbled)
    assert process.federation.sum(train_locally, MESSAGE).rows == summed("clear", SITES[1:]).rows
    (absence,) = process.federation.conversation.absences
    assert absence.site == "site a" and "another form" in absence.sentence


def test_a_site_gives_nothing_in_the_clear_and_answers_no_question_of_masking(tmp_path: Path) -> None:
    from medfed.privacy.secagg.messages import Contribution, Survivors

    with assembled(tmp_path, "encrypted") as assembly:
        assembly.process.initialize()
        conversation = assembly.process.federation.conversation
        base = conversation.versions["site a"]
        common = Request("the-run", conversation.task, "site a", 1, 0, base, base, train_locally.name, MESSAGE)
        assert "only encrypted parts" in asked_of(assembly, "site a", common).sentence
        for stray in (Contribution(bytes(32), SITES, (), MESSAGE), Survivors(bytes(32), SITES)):
            failure = asked_of(assembly, "site a", replace(common, message=stray))
            assert failure.code == "refused" and "by homomorphic encryption" in failure.sentence


# ------------------------------------------------------------------------------------------------------ the task


@pytest.mark.parametrize(
    ("names", "federation", "told"),
    [
        (SITES, {"strategy": "local"}, "nothing to hide"),
        (SITES[:2], {}, "fewer than 3"),
        (tuple(f"site {k}" for k in range(128)), {}, "a ciphertext holds the sum of 127"),
    ],
)
def test_what_encryption_cannot_protect_is_refused_before_anything_runs(
    names: tuple[str, ...], federation: dict[str, Any], told: str
) -> None:
    with pytest.raises(TaskError, match=told):
        resolve_strategy(task_of(described("encrypted", **federation)), names)


def test_an_algorithm_that_asks_is_refused_and_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = task_of(described("encrypted"))
    with monkeypatch.context() as patch:
        patch.setattr(FedAvg, "ASKS", True)
        with pytest.raises(TaskError, match="which totals under encryption do not show"):
            resolve_strategy(checked, SITES)
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="tenseal is not installed") as missing:
        check_parts(checked, SITES)
    assert missing.value.remedy == "pip install 'medfed[he]'"


def test_an_update_beyond_the_bound_fails_its_site_by_name() -> None:
    process = medfed.build(
        described("encrypted", quorum=5) | {"privacy": {"aggregation": "encrypted", "update_bound": 1e-6}}, hospitals()
    )
    state = process.initialize()
    with pytest.raises(QuorumLost, match=r"site a: the field 'delta' is not finite, or beyond the 1e-06"):
        process.next(state)


def test_contributions_beyond_the_memory_wait_on_disk_and_are_the_same() -> None:
    from medfed.privacy.ring import Layout

    part = Encrypted(Layout((), ()), np.arange(4000, dtype=np.uint8).reshape(4, -1), b"t", b"s")
    with Spool(in_memory=5000) as spool:
        first, second = spool.kept(part), spool.kept(part)
        into = spool.empty((4, 1000))
        into[:] = second.ciphertexts
        assert first is part and second is not part
        assert second.digest() == part.digest() and isinstance(into, np.memmap)
