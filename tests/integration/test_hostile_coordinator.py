"""A coordinator that lies, cheats and sends rubbish to a deployed site: it gets a refusal, and the ledger has it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consortium_in_memory import SITES, WHY, Consortium, MemoryCarrier, task_over
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.algorithms.scaffold import Controlled, train_controlled
from medfed.core.codec import decode, encode
from medfed.core.errors import MedFedError
from medfed.core.messages import Message
from medfed.core.steps import installed_step
from medfed.core.wire import Failure, Reply, Request
from medfed.data.encoding import Encoding
from medfed.engine.deployed import siterun
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.deployed.messages import Ended, EndRun, FromSite, PartyKey, Propose, ShownHead, Standing, ToSite
from medfed.engine.deployed.office import office_ledger
from medfed.engine.deployed.site import DeployedSite
from medfed.engine.session import SiteSession
from medfed.engine.site import SiteNode
from medfed.govern import approvals
from medfed.govern.approvals import ApprovalStore
from medfed.govern.chain import follow_ledger
from medfed.govern.entries import (
    Entry,
    FailureEntry,
    RefusalEntry,
    ReleaseEntry,
    RepeatEntry,
    RequestEntry,
    WitnessEntry,
    decode_entry,
)
from medfed.govern.heads import Head
from medfed.govern.keys import SigningKey, load_or_create_key
from medfed.govern.ledger import LedgerFolder
from medfed.govern.proposals import Proposal

SITE = "nord"
TRAIN = "fedavg.train_locally"


@dataclass(frozen=True)
class Play:
    """An honest run, and the folders of one of its sites before it began: its messages can be sent to a copy."""

    consortium: Consortium
    before: Path
    proposal: Proposal
    messages: tuple[ToSite, ...]
    replies: tuple[FromSite, ...]

    @property
    def run(self) -> str:
        return self.messages[-1].run


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    consortium = Consortium.make(tmp_path_factory.mktemp("play"))
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows")))
    proposal = submission.proposal()
    consortium.approve(proposal)
    before = consortium.root / "before"
    shutil.copytree(consortium.sites[SITE].path, before)
    carrier = MemoryCarrier(consortium.open_sites())
    consortium.conductor(submission, carrier).conduct()
    there = tuple(decode(content, ToSite) for site, way, content in carrier.spied if (site, way) == (SITE, "there"))
    back = tuple(decode(content, FromSite) for site, way, content in carrier.spied if (site, way) == (SITE, "back"))
    return Play(consortium, before, proposal, there, back)


@dataclass
class Victim:
    """A site that a coordinator in a test talks to."""

    play: Play
    folder: SiteFolder
    site: DeployedSite

    @classmethod
    def of(cls, play: Play, path: Path) -> Victim:
        shutil.copytree(play.before, path)
        folder = SiteFolder.open(path)
        return cls(play, folder, DeployedSite(folder))

    def restart(self) -> None:
        self.site.close()
        self.site = DeployedSite(self.folder)

    def send(self, content: Message, **other: Any) -> FromSite:
        """A message of the honest run around a content."""
        return self.give(
            encode(
                ToSite(
                    **({"run": self.play.run, "task": self.play.proposal.digest} | self._rest(other)), content=content
                )
            )
        )

    @staticmethod
    def _rest(other: Mapping[str, Any]) -> dict[str, Any]:
        return {"heads": (), "known": 0} | dict(other)

    def give(self, content: bytes) -> FromSite:
        return decode(self.site.answer(content), FromSite)

    def led_to(self, step: str) -> Request:
        """Take part in the honest run up to the first request of a step; that request, which was not sent yet."""
        for message in self.play.messages:
            match message.content:
                case Request() as request if request.step == step:
                    return request
            answer = self.give(encode(message))
            assert failure_of(answer) is None
        raise AssertionError(f"{step} was never asked for")

    def entries(self) -> list[Entry]:
        """What is in all ledgers of the site."""
        lines = [
            line
            for path in sorted(self.folder.path.glob(f"ledger/*/{SITE}.jsonl"))
            for line in path.read_bytes().splitlines()
        ]
        return [decode_entry(line).entry for line in lines]

    def said_no(self) -> list[RefusalEntry | FailureEntry]:
        return [entry for entry in self.entries() if isinstance(entry, RefusalEntry | FailureEntry)]

    def releases(self) -> int:
        return sum(isinstance(entry, ReleaseEntry | RepeatEntry) for entry in self.entries())

    def check_ledgers(self) -> None:
        for folder in (self.folder.path / "ledger").iterdir():
            follow_ledger(folder, SITE, self.folder.key().verify_key)


@pytest.fixture
def victim(play: Play, tmp_path: Path) -> Iterator[Victim]:
    made = Victim.of(play, tmp_path / SITE)
    yield made
    made.site.close()
    made.check_ledgers()


def failure_of(answer: FromSite) -> Failure | None:
    body = answer.content.body if isinstance(answer.content, Reply) else answer.content
    return body if isinstance(body, Failure) else None


def refused(victim: Victim, attack: Callable[[], FromSite], sentence: str = "") -> Failure:
    """Check that an attack gets nothing but a refusal, which the ledger has."""
    left, told = victim.releases(), Counter(victim.said_no())
    failure = failure_of(attack())
    assert failure is not None, "something else than a refusal left the site"
    assert victim.releases() == left
    (entry,) = (Counter(victim.said_no()) - told).elements()
    assert sentence in failure.sentence and entry.sentence in failure.sentence
    assert "Traceback" not in failure.sentence
    return failure


def other(request: Request, **fields: Any) -> Request:
    return dataclasses.replace(request, **fields)


# --------------------------------------------------------------------------------------------------- malformed bytes


@pytest.fixture(scope="module")
def fuzzed(play: Play, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Victim, bytes]]:
    """A victim in the middle of a run, and the message that would be next."""
    victim = Victim.of(play, tmp_path_factory.mktemp("fuzzed") / SITE)
    victim.led_to(TRAIN)
    message = next(m for m in play.messages if isinstance(m.content, Request) and m.content.step == TRAIN)
    yield victim, encode(message)
    victim.site.close()
    victim.check_ledgers()


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(fuzzed: tuple[Victim, bytes], content: bytes) -> None:
    victim, _ = fuzzed
    refused(victim, lambda: victim.give(content))


@settings(max_examples=40)
@given(st.data())
def test_a_truncated_message_is_refused(fuzzed: tuple[Victim, bytes], data: st.DataObject) -> None:
    victim, whole = fuzzed
    length = data.draw(st.integers(0, len(whole) - 1))
    refused(victim, lambda: victim.give(whole[:length]))


@settings(max_examples=40)
@given(st.data())
def test_a_message_with_a_tail_is_refused(fuzzed: tuple[Victim, bytes], data: st.DataObject) -> None:
    victim, whole = fuzzed
    tail = data.draw(st.binary(min_size=1, max_size=100))
    refused(victim, lambda: victim.give(whole + tail))


_MUTATION = st.tuples(st.booleans(), st.integers(0, 2**16), st.integers(0, 255))
"""Whether in the header, at which place (beyond its end, from the beginning again), and the byte there."""


@settings(max_examples=150)
@given(st.lists(_MUTATION, min_size=1, max_size=3))
def test_a_mutated_message_gets_a_refusal_or_an_answer_that_the_ledger_has(
    fuzzed: tuple[Victim, bytes], mutations: list[tuple[bool, int, int]]
) -> None:
    """Where a mutation leaves a message that an honest coordinator might send, the answer is released as any other."""
    victim, whole = fuzzed
    content = bytearray(whole)
    header = 16 + int.from_bytes(whole[8:16], "little")
    for in_header, place, value in mutations:
        content[place % (header if in_header else len(whole))] = value
    before, left, told = victim.entries(), victim.releases(), len(victim.said_no())
    answer = victim.give(bytes(content))
    assert victim.entries()[: len(before)] != [] and (victim.releases() > left) != (len(victim.said_no()) > told)
    assert (failure_of(answer) is not None) == (len(victim.said_no()) > told)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(_JSON, st.sampled_from(["message", "fields", "content", "heads", "buffers"]))
def test_a_header_of_other_json_is_refused(fuzzed: tuple[Victim, bytes], value: object, place: str) -> None:
    victim, whole = fuzzed
    length = int.from_bytes(whole[8:16], "little")
    header = json.loads(whole[16 : 16 + length])
    match place:
        case "message" | "buffers":
            header[place] = value
        case "fields":
            header["message"]["fields"] = value
        case _:
            header["message"]["fields"][place] = value if value != [] else [value]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")
    refused(victim, lambda: victim.give(whole[:8] + len(text).to_bytes(8, "little") + text + whole[16 + length :]))


@pytest.mark.parametrize("bomb", ["nested", "array", "header", "int", "surrogate"])
def test_a_bomb_is_refused_before_it_goes_off(victim: Victim, bomb: str) -> None:
    header = {
        "nested": b'{"message":' + b"[" * 100_000,
        "array": b'{"message":{"type":"deployed.ended","fields":{}},"buffers":[["<f8",[1000000000000]]]}',
        "header": b"",
        "int": b'{"message":' + b"9" * 100_000 + b',"buffers":[]}',
        "surrogate": b'{"message":{"type":"\\ud800","fields":{}},"buffers":[]}',
    }[bomb]
    length = 2**62 if bomb == "header" else len(header)
    refused(victim, lambda: victim.give(b"MEDFED1\0" + length.to_bytes(8, "little") + header))


# ------------------------------------------------------------------------------------------- what nobody approved


def test_a_step_that_is_not_installed_is_refused(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    refused(victim, lambda: victim.send(other(request, step="os.system")), "no installed step")


def test_a_step_of_another_algorithm_is_refused(victim: Victim) -> None:
    request, step = victim.led_to(TRAIN), train_controlled
    vector = request.message.weights  # type: ignore[attr-defined]
    message = Controlled(vector, vector, by_rows=True)
    refused(victim, lambda: victim.send(other(request, step=step.name, message=message)), "not among those")


def test_a_step_with_another_message_is_refused(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    refused(victim, lambda: victim.send(other(request, message=EndRun("x"))), "takes another message")


@pytest.mark.parametrize("content", [Ended(), Standing("approved", ""), Failure("a", "b", "c")], ids=lambda c: c.WIRE)
def test_a_site_is_told_nothing_but_what_a_coordinator_may_say(victim: Victim, content: Message) -> None:
    """No message sets a policy, approves a task, or speaks as a site does."""
    settings_before = victim.folder.settings.read_bytes()
    refused(victim, lambda: victim.send(content))
    assert victim.folder.settings.read_bytes() == settings_before


def another_task(play: Play, **federation: object) -> Proposal:
    """A proposal that the coordinator signed, of a task that nobody approved."""
    task = task_over(dict.fromkeys(SITES, "rows"), **federation)
    steps = [installed_step(name) for name in play.proposal.steps]
    return Proposal.sign(play.consortium.coordinator.key(), task.spec, steps, **WHY)


def parties_of(play: Play) -> tuple[PartyKey, ...]:
    return next(m.content.parties for m in play.messages if isinstance(m.content, Propose))


def test_a_task_that_was_only_proposed_does_not_run(victim: Victim) -> None:
    proposal = another_task(victim.play, rounds=4)
    answer = victim.send(Propose(proposal, parties_of(victim.play)), task=proposal.digest)
    assert isinstance(answer.content, Standing) and answer.content.status == "waiting"
    first = next(m.content for m in victim.play.messages if isinstance(m.content, Request))
    request = other(first, run="b" * 32, task=proposal.digest)
    refused(victim, lambda: victim.send(request, run="b" * 32, task=proposal.digest), "has not decided")
    assert not victim.folder.ledger("b" * 32).exists()


def test_a_task_that_was_never_proposed_does_not_run(victim: Victim) -> None:
    request = other(victim.led_to(TRAIN), task="c" * 64)
    refused(victim, lambda: victim.send(other(request, run="b" * 32), run="b" * 32, task="c" * 64), "never proposed")
    refused(victim, lambda: victim.send(request), "another task than the one")
    refused(victim, lambda: victim.send(request, task="c" * 64), "another task than the message")


@pytest.mark.parametrize("field", ["task", "releases", "rounds", "purpose", "ethics_expires"])
def test_an_altered_task_under_an_approved_digest_is_refused(victim: Victim, field: str) -> None:
    changed = another_task(victim.play, rounds=1000)
    proposal = dataclasses.replace(
        victim.play.proposal,
        **{field: {"purpose": "another", "ethics_expires": "2100-01-01"}.get(field, getattr(changed, field))}
        | ({"releases": changed.releases[1:]} if field == "releases" else {}),
    )
    refused(victim, lambda: victim.send(Propose(proposal, parties_of(victim.play))))
    key = victim.play.consortium.coordinator.key()
    signed = dataclasses.replace(proposal, signature=key.sign(proposal._signed).hex())
    refused(victim, lambda: victim.send(Propose(signed, parties_of(victim.play))))
    assert victim.site._approvals.proposal(victim.play.proposal.digest).terms == victim.play.proposal.terms
    victim.led_to(TRAIN)  # the honest run goes on


def test_another_digest_over_an_approved_task_is_refused(victim: Victim) -> None:
    proposal = another_task(victim.play, rounds=9)
    refused(victim, lambda: victim.send(Propose(proposal, parties_of(victim.play))), "another task than the message")


def test_a_proposal_under_another_key_is_refused(victim: Victim, tmp_path: Path) -> None:
    task = task_over(dict.fromkeys(SITES, "rows"), rounds=2)
    steps = [installed_step(name) for name in victim.play.proposal.steps]
    proposal = Proposal.sign(load_or_create_key(tmp_path, "other"), task.spec, steps, **WHY)
    refused(victim, lambda: victim.send(Propose(proposal, parties_of(victim.play)), task=proposal.digest), "not signed")
    assert not (victim.folder.proposals / proposal.digest).exists()


def test_a_flood_of_proposals_is_refused(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "MAX_UNDECIDED", 3)
    parties = parties_of(victim.play)
    proposals = [another_task(victim.play, rounds=rounds) for rounds in range(5, 9)]
    for proposal in proposals[:3]:
        assert isinstance(victim.send(Propose(proposal, parties), task=proposal.digest).content, Standing)
    refused(
        victim, lambda: victim.send(Propose(proposals[3], parties), task=proposals[3].digest), "wait for a decision"
    )


def test_a_yaml_bomb_in_a_proposal_is_refused(victim: Victim) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    draft = dataclasses.replace(victim.play.proposal, task="\n".join(lines), digest="d" * 64)
    signed = dataclasses.replace(draft, signature=victim.play.consortium.coordinator.key().sign(draft._signed).hex())
    refused(victim, lambda: victim.send(Propose(signed, parties_of(victim.play)), task="d" * 64))


def test_the_keys_of_the_parties_do_not_change_under_a_task(victim: Victim, tmp_path: Path) -> None:
    victim.led_to(TRAIN)
    forged = load_or_create_key(tmp_path, "forged").verify_key.raw.hex()
    parties = tuple(PartyKey(p.party, forged if p.party == "ost" else p.key) for p in parties_of(victim.play))
    refused(victim, lambda: victim.send(Propose(victim.play.proposal, parties)), "other parties or keys")


@pytest.mark.parametrize("party", ["x" * 10_000, "ost"])
def test_impossible_parties_are_refused(victim: Victim, party: str) -> None:
    proposal = another_task(victim.play, rounds=6)
    parties = (PartyKey(party, "00" if party == "ost" else "00" * 32),)
    refused(victim, lambda: victim.send(Propose(proposal, parties), task=proposal.digest), "party")


# ------------------------------------------------------------------------------------------------ runs and requests


@pytest.mark.parametrize(
    "run", ["../../../tmp/x", "/tmp/x", "", "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n", "office"]
)
def test_a_run_that_is_a_path_is_refused(victim: Victim, run: str) -> None:
    request = other(victim.led_to(TRAIN), run=run)
    before = sorted(victim.folder.path.rglob("*"))
    refused(victim, lambda: victim.send(request, run=run), "no possible run")
    refused(victim, lambda: victim.send(EndRun("x"), run=run), "no possible run")
    assert sorted(victim.folder.path.rglob("*")) == before


def test_a_request_under_another_run_than_its_message_is_refused(victim: Victim) -> None:
    request = other(victim.led_to(TRAIN), run="b" * 32)
    refused(victim, lambda: victim.send(request), "another run than its message")


def test_another_sites_request_is_refused(victim: Victim) -> None:
    request = other(victim.led_to(TRAIN), site="ost")
    refused(victim, lambda: victim.send(request), "another site or run")


def test_a_second_run_under_one_approval_is_refused(victim: Victim) -> None:
    first = next(m.content for m in victim.play.messages if isinstance(m.content, Request))
    victim.led_to(TRAIN)
    again = other(first, run="b" * 32)
    refused(victim, lambda: victim.send(again, run="b" * 32), "for one run")
    victim.restart()
    refused(victim, lambda: victim.send(again, run="b" * 32), "for one run")
    assert not victim.folder.ledger("b" * 32).exists()


def test_a_new_approval_is_for_one_run_too(victim: Victim) -> None:
    """Also where the site's process still has the run open that the approval before was for."""
    request = victim.led_to(TRAIN)
    decide_anew(victim)
    assert failure_of(victim.send(request)) is None
    again = other(next(m.content for m in victim.play.messages if isinstance(m.content, Request)), run="b" * 32)
    refused(victim, lambda: victim.send(again, run="b" * 32), "for one run")


def test_of_two_runs_that_begin_at_once_one_is_refused(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look before either has taken the approval: as two processes would."""
    first = first_request(victim)
    second = DeployedSite(victim.folder)
    exists = Path.exists

    def late(path: Path, **arguments: Any) -> bool:
        if path.name == "run-1" and not exists(path):
            monkeypatch.setattr(Path, "exists", exists)
            encoded = encode(ToSite("b" * 32, victim.play.proposal.digest, (), 0, other(first, run="b" * 32)))
            assert failure_of(decode(second.answer(encoded), FromSite)) is None
            return False
        return exists(path, **arguments)

    monkeypatch.setattr(Path, "exists", late)
    failure = failure_of(victim.send(first))
    assert failure is not None and "for one run" in failure.sentence
    assert {entry.run for entry in victim.entries() if isinstance(entry, ReleaseEntry)} == {"b" * 32}
    second.close()


def test_a_replayed_request_gets_the_stored_reply(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    request = victim.led_to(TRAIN)
    reply = victim.send(request).content
    monkeypatch.setattr(SiteNode, "_timed_run", lambda *_: pytest.fail("it was computed twice"))
    for _ in range(2):
        again = victim.send(request).content
        assert encode(again) == encode(reply)
    victim.restart()
    assert encode(victim.send(request).content) == encode(reply)
    assert sum(isinstance(entry, RepeatEntry) for entry in victim.entries()) == 3


def test_another_message_under_the_same_numbers_is_on_the_record_and_counts(victim: Victim) -> None:
    """A coordinator that resumed may ask anew what it had asked; one that tries much else runs into the limits."""
    request = victim.led_to(TRAIN)
    weights = request.message.weights  # type: ignore[attr-defined]
    asked = sum(isinstance(entry, RequestEntry) for entry in victim.entries())
    for k in range(3):
        message = dataclasses.replace(request.message, weights=weights + np.float32(k))  # type: ignore[type-var]
        assert failure_of(victim.send(other(request, message=message))) is None
    numbers = [e for e in victim.entries() if isinstance(e, RequestEntry)][asked:]
    assert len({e.digest for e in numbers}) == 3 and {(e.round, e.call) for e in numbers} == {
        (request.round, request.call)
    }
    change_policy(victim, f"limits: {{requests: {asked + 3}}}")
    message = dataclasses.replace(request.message, weights=weights + np.float32(9))  # type: ignore[type-var]
    refused(victim, lambda: victim.send(other(request, message=message)), "limits.requests")


def test_a_round_beyond_those_approved_is_refused(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    refused(victim, lambda: victim.send(other(request, round=victim.play.proposal.rounds + 1)), "limits.rounds")
    refused(victim, lambda: victim.send(other(request, round=-1)), "numbered from 0")
    refused(victim, lambda: victim.send(other(request, call=-1)), "numbered from 0")


@pytest.mark.parametrize("field", ["base", "settled"])
@pytest.mark.parametrize("number", [-1, 10**6, 10**30])
def test_versions_that_never_were_lose_no_work(victim: Victim, field: str, number: int) -> None:
    request = victim.led_to(TRAIN)
    wrong = other(request, **{field: number})
    if field == "base":
        refused(victim, lambda: victim.send(wrong))
    else:
        assert failure_of(victim.send(wrong)) is None
    assert failure_of(victim.send(request)) is None


@pytest.mark.parametrize("known", [-1, 10**6, 10**30])
def test_a_site_proves_its_head_or_refuses_whatever_size_is_said_to_be_known(victim: Victim, known: int) -> None:
    request = victim.led_to(TRAIN)
    answer = victim.send(request, known=known)
    assert failure_of(answer) is not None or (answer.head is not None and answer.head.since == 0)
    assert failure_of(victim.send(request)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(3e38)])
def test_weights_that_are_not_finite_get_a_refusal_and_lose_no_work(victim: Victim, value: float) -> None:
    request = victim.led_to(TRAIN)
    weights = np.full_like(request.message.weights, value)  # type: ignore[attr-defined]
    message = dataclasses.replace(request.message, weights=weights)  # type: ignore[type-var]
    refused(victim, lambda: victim.send(other(request, message=message)), "finite")
    honest = next(
        r
        for m, r in zip(victim.play.messages, victim.play.replies, strict=True)
        if m.content is not None and isinstance(m.content, Request) and m.content.step == TRAIN
    )
    body = victim.send(request).content
    assert isinstance(body, Reply) and isinstance(honest.content, Reply)
    assert encode(body.body) == encode(honest.content.body)


@pytest.mark.parametrize("shape", [(0,), (1,), (10**6,), (3, 5)])
def test_weights_of_another_shape_get_a_refusal(victim: Victim, shape: tuple[int, ...]) -> None:
    request = victim.led_to(TRAIN)
    message = dataclasses.replace(request.message, weights=np.zeros(shape, np.float32))  # type: ignore[type-var]
    refused(victim, lambda: victim.send(other(request, message=message)))
    assert failure_of(victim.send(request)) is None


def test_an_encoding_that_does_not_fit_gets_a_refusal(victim: Victim) -> None:
    request = victim.led_to("prepare.adopt")
    encoding = request.message
    assert isinstance(encoding, Encoding)
    columns = ("dose", "no such column", "age")
    for wrong in (dataclasses.replace(encoding, columns=columns), dataclasses.replace(encoding, levels=())):
        refused(victim, lambda wrong=wrong: victim.send(other(request, message=wrong)))  # type: ignore[misc]
    assert failure_of(victim.send(request)) is None


def test_an_oversized_request_is_refused(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    change_policy(victim, "limits: {request_bytes: 4000}")
    message = dataclasses.replace(request.message, weights=np.zeros(2000, np.float32))  # type: ignore[type-var]
    refused(victim, lambda: victim.send(other(request, message=message)), "limits.request_bytes")


def test_an_oversized_message_is_refused_before_it_is_read(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    change_policy(victim, "limits: {request_bytes: 4000}")
    monkeypatch.setattr("medfed.engine.deployed.site.decode", lambda *_: pytest.fail("it was decoded"))
    refused(victim, lambda: victim.give(bytes(17 * 2**20)), "limits.request_bytes")


@pytest.mark.parametrize("text", ["x" * 201, "x" * 10**6])
def test_texts_that_would_fill_the_ledger_are_refused(victim: Victim, text: str) -> None:
    request = victim.led_to(TRAIN)
    before = sum(path.stat().st_size for path in victim.folder.path.glob("ledger/*/*.jsonl"))
    refused(victim, lambda: victim.send(other(request, step=text)), "characters")
    refused(victim, lambda: victim.send(EndRun(text)), "characters")
    assert sum(path.stat().st_size for path in victim.folder.path.glob("ledger/*/*.jsonl")) < before + 10_000


def test_a_run_that_was_ended_releases_on_the_record_only(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    assert isinstance(victim.send(EndRun("finished")).content, Ended)
    left = victim.releases()
    assert failure_of(victim.send(request)) is None and victim.releases() == left + 1


# ------------------------------------------------------------------------------- what the site's people decide


def change_policy(victim: Victim, line: str) -> None:
    path = victim.folder.settings
    path.write_text(path.read_text().rstrip("\n") + f"\n  {line}\n")
    os.utime(path, ns=(1, 1 + path.stat().st_mtime_ns))


def store_of(victim: Victim) -> ApprovalStore:
    return ApprovalStore(victim.folder.proposals, victim.folder.key(), victim.folder.coordinator_key())


def decide_anew(victim: Victim) -> None:
    """The steward withdraws and approves again."""
    store, digest = store_of(victim), victim.play.proposal.digest
    cohort = store.decisions(digest)[-1].cohort
    store.withdraw(digest, by="Dr. Test", reason="a second thought")
    with office_ledger(victim.folder.path) as ledger:
        store.approve(digest, cohort=cohort, dataset="rows", by="Dr. Test", ledger=ledger)


def test_after_withdrawal_nothing_more_leaves(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    store_of(victim).withdraw(victim.play.proposal.digest, by="Dr. Test", reason="a complaint")
    refused(victim, lambda: victim.send(request), "withdrew")
    victim.restart()
    refused(victim, lambda: victim.send(request), "withdrew")


def test_a_stored_reply_does_not_leave_after_withdrawal(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    assert failure_of(victim.send(request)) is None
    store_of(victim).withdraw(victim.play.proposal.digest, by="Dr. Test", reason="a complaint")
    refused(victim, lambda: victim.send(request), "withdrew")


def test_a_reply_does_not_leave_where_the_approval_was_withdrawn_while_its_step_ran(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, run, ran = victim.led_to(TRAIN), SiteNode._timed_run, []

    def slowly(node: SiteNode, admitted: Any, session: SiteSession) -> Message:
        store_of(victim).withdraw(victim.play.proposal.digest, by="Dr. Test", reason="a complaint")
        ran.append(True)
        return run(node, admitted, session)

    monkeypatch.setattr(SiteNode, "_timed_run", slowly)
    refused(victim, lambda: victim.send(request), "withdrew")
    assert ran


def test_an_approval_that_expires_in_the_middle_of_a_run_ends_it(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = victim.led_to(TRAIN)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2100, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(siterun, "datetime", Later)
    refused(victim, lambda: victim.send(request), "has ended")


def test_a_changed_dataset_needs_a_new_approval(victim: Victim, tmp_path: Path) -> None:
    table = victim.play.consortium.tables[SITE].read_text()
    changed = tmp_path / "changed.csv"
    changed.write_text(table + f"{SITE}-999,50.0,1,2.0,1\n")
    settings_file = victim.folder.settings
    settings_file.write_text(settings_file.read_text().replace(str(victim.play.consortium.tables[SITE]), str(changed)))
    victim.restart()
    refused(victim, lambda: victim.send(first_request(victim)), "dataset changed")


def test_quiet_hours_hold_at_once(victim: Victim) -> None:
    request = victim.led_to(TRAIN)
    change_policy(victim, 'quiet_hours: [{from: "00:00", to: "24:00"}]')
    refused(victim, lambda: victim.send(request), "quiet_hours")


# --------------------------------------------------------------------------------------------- what ledgers it shows


@dataclass
class Liar:
    """The coordinator's key in the hands of one who writes two histories."""

    key: SigningKey
    folder: Path

    def history(self, name: str, size: int) -> tuple[Head, Callable[[int], tuple[str, ...]]]:
        """A ledger of that name grown to a size, its head, and the proofs that it extends smaller sizes."""
        with LedgerFolder.open(self.folder / name, self.key, durable=False) as folder:
            ledger = folder.ledger("coordinator", briefly=True)
            ledger.append(*[WitnessEntry("a" * 32, k, name, 0, "") for k in range(ledger.size, size)])
            head, proofs = ledger.sign_head(1), {since: ledger.consistency(since) for since in range(1, size)}
        return head, proofs.__getitem__


@pytest.fixture
def liar(play: Play, tmp_path: Path) -> Liar:
    return Liar(play.consortium.coordinator.key(), tmp_path / "lies")


def shown(head: Head, since: int = 0, proof: tuple[str, ...] = (), party: str = "coordinator") -> tuple[ShownHead, ...]:
    return (ShownHead(party, head, since, proof),)


def test_a_head_that_the_coordinator_did_not_sign_is_refused(victim: Victim, tmp_path: Path) -> None:
    request = first_request(victim)
    other_liar = Liar(load_or_create_key(tmp_path, "other"), tmp_path / "lies")
    head, _ = other_liar.history("a", 1)
    refused(victim, lambda: victim.send(request, heads=shown(head)), "signature")
    refused(victim, lambda: victim.send(request, heads=shown(head, party="ost")), "signature")
    refused(victim, lambda: victim.send(request, heads=shown(head, party="nobody")), "no part in the task")


def first_request(victim: Victim) -> Request:
    """The first request of the honest run, after its proposal."""
    return victim.led_to(next(m.content.step for m in victim.play.messages if isinstance(m.content, Request)))


def witnessed(victim: Victim) -> list[tuple[int, str]]:
    return [(e.size, e.root) for e in victim.entries() if isinstance(e, WitnessEntry) and e.party == "coordinator"]


def test_a_rewritten_history_is_refused(victim: Victim, liar: Liar) -> None:
    """Of the same size, longer with a proof of its own, and shorter."""
    request = first_request(victim)
    true, _ = liar.history("true", 3)
    rewritten, _ = liar.history("rewritten", 3)
    longer, proof = liar.history("rewritten", 4)
    shorter, _ = liar.history("shorter", 2)
    assert failure_of(victim.send(request, heads=shown(true))) is None
    refused(victim, lambda: victim.send(request, heads=shown(rewritten)), "rewritten history or a split view")
    refused(victim, lambda: victim.send(request, heads=shown(rewritten, 1)), "rewritten history or a split view")
    refused(victim, lambda: victim.send(request, heads=shown(longer, 3, proof(3))), "rewritten history or a split view")
    refused(victim, lambda: victim.send(request, heads=shown(shorter)), "rewritten history or a split view")
    assert witnessed(victim) == [(true.size, true.root)]


def test_a_head_without_proof_from_what_is_held_takes_nobodys_place(victim: Victim, liar: Liar) -> None:
    """Also after a restart. The site says what it holds, and an honest coordinator proves its head from there."""
    request = first_request(victim)
    true, _ = liar.history("true", 3)
    longer, proof = liar.history("rewritten", 4)
    extended, true_proof = liar.history("true", 4)
    assert failure_of(victim.send(request, heads=shown(true))) is None
    for since in (0, 1, 2, 4, -1):
        answer = victim.send(request, heads=shown(longer, since, proof(2) if since == 2 else ()))
        assert answer.known == 3
        victim.restart()
    assert witnessed(victim) == [(true.size, true.root)]
    assert failure_of(victim.send(request, heads=shown(extended, 3, true_proof(3)))) is None
    assert witnessed(victim) == [(3, true.root), (4, extended.root)]


def test_what_was_witnessed_before_a_forged_head_in_one_message_is_kept(victim: Victim, liar: Liar) -> None:
    request = first_request(victim)
    true, _ = liar.history("true", 3)
    forged = dataclasses.replace(true, root="0" * 64, size=9)
    refused(victim, lambda: victim.send(request, heads=shown(true) + shown(forged, 3)), "signature")
    assert witnessed(victim) == [(true.size, true.root)]


# ---------------------------------------------------------------------------------------------------- the whole run


def test_the_ledger_of_an_honest_run_has_no_refusals(victim: Victim) -> None:
    """So that what the tests above find is there for their attacks alone."""
    for message in victim.play.messages:
        assert failure_of(victim.give(encode(message))) is None
    assert victim.said_no() == []


# ------------------------------------------------------------------------------------- over FLARE: jobs that ship code


@dataclass
class FlareServer:
    """A coordinator's FLARE server that allows everything, and four honest sites as processes."""

    consortium: Any
    admin: Any

    def give(self, change: Callable[[Path], None], seconds: float = 60) -> str:
        """Submit the job of a run that was approved, after a change to it; how FLARE says that it ended."""
        from medfed.engine.flare.job import write_job

        folder = self.consortium.root / "job"
        shutil.rmtree(folder, ignore_errors=True)
        write_job(folder, "f" * 32, 1)
        change(folder)
        try:
            job = self.admin.submit(folder)
        except MedFedError as error:
            return str(error)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status = self.admin._asked(lambda session: str(session.get_job_status(job)))
            if status.startswith(("FINISHED", "FAILED", "ABANDONED")):
                return str(status)
            time.sleep(0.5)
        raise AssertionError("the job did not end")

    def log_of(self, site: str) -> str:
        return str((self.consortium.root / f"{site}.log").read_text(errors="replace"))


@pytest.fixture(scope="module")
def hostile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlareServer]:
    import subprocess

    from flare_consortium import COORDINATOR, FlareConsortium, _kill

    from medfed.engine.flare.admin import Admin
    from medfed.engine.flare.job import COORDINATOR_VARIABLE
    from medfed.engine.flare.kits import admin_kit, server_command, server_workspace

    consortium = FlareConsortium.provision(tmp_path_factory.mktemp("over-flare"))
    folder = consortium.folder(COORDINATOR)
    command, local = server_command(folder), server_workspace(folder) / "local"
    allowed = json.loads((local / "authorization.json").read_text())
    allowed["permissions"] = {role: dict.fromkeys(rights, "any") for role, rights in allowed["permissions"].items()}
    (local / "authorization.json").write_text(json.dumps(allowed))
    resources = json.loads((local / "resources.json").read_text())
    resources = {key: value for key, value in resources.items() if not key.startswith("class_")}
    (local / "resources.json").write_text(json.dumps(resources))
    with (consortium.root / "server.log").open("wb") as log:
        environment = os.environ | {COORDINATOR_VARIABLE: str(folder)}
        server = subprocess.Popen(command, cwd=local.parent, stdout=log, stderr=log, env=environment)
    admin = Admin(admin_kit(folder))
    try:
        for site in SITES:
            consortium.services[site].start()
        until = time.monotonic() + 90
        while True:
            try:
                if len(admin.connected()) == len(SITES):
                    break
            except MedFedError:
                pass
            assert time.monotonic() < until, "the sites did not connect"
            time.sleep(0.5)
        yield FlareServer(consortium, admin)
    finally:
        admin.close()
        server.terminate()
        consortium.stop()
        _kill(consortium.processes())
        server.kill()
        server.wait()


def set_executor(folder: Path, path: str) -> None:
    config = folder / "app" / "config" / "config_fed_client.json"
    content = json.loads(config.read_text())
    content["executors"][0]["executor"]["path"] = path
    config.write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of FLARE's own sockets
def test_a_job_that_ships_code_is_refused_by_every_site(hostile_server: FlareServer, tmp_path: Path) -> None:
    """Also under the name of the class that is allowed: nothing of it is ever imported."""
    marker = tmp_path / "it-ran"
    code = f"open({str(marker)!r}, 'a').write('x')\n"
    code += "from nvflare.apis.executor import Executor\nclass Evil(Executor): pass\n"

    def ship(folder: Path) -> None:
        custom = folder / "app" / "custom"
        custom.mkdir()
        (custom / "evil.py").write_text(code)
        (custom / "sitecustomize.py").write_text(code)
        set_executor(folder, "evil.Evil")

    def shadow(folder: Path) -> None:
        custom = folder / "app" / "custom" / "medfed" / "engine" / "flare"
        custom.mkdir(parents=True)
        for package in (custom, custom.parent, custom.parent.parent):
            (package / "__init__.py").write_text("")
        (custom / "executor.py").write_text(code.replace("Evil", "SiteExecutor"))

    for change in (ship, shadow):
        before = hostile_server.log_of("server").count("BYOC not permitted")
        status = hostile_server.give(change)
        assert not status.startswith("FINISHED:COMPLETED"), status
        assert hostile_server.log_of("server").count("BYOC not permitted") - before >= len(SITES), status
    assert not marker.exists()


def add_filter(folder: Path, path: str) -> None:
    config = folder / "app" / "config" / "config_fed_client.json"
    content = json.loads(config.read_text())
    content["task_data_filters"] = [{"tasks": ["*"], "filters": [{"path": path, "args": {}}]}]
    config.write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of FLARE's own sockets
@pytest.mark.parametrize("place", [set_executor, add_filter])
@pytest.mark.parametrize("path", ["nvflare.app_common.np.np_trainer.NPTrainer", "builtins.eval", "subprocess.Popen"])
def test_a_job_that_names_another_class_is_refused_by_every_site(
    hostile_server: FlareServer, path: str, place: Callable[[Path, str], None]
) -> None:
    no = f"Component '{path}'"
    before = {site: hostile_server.log_of(site).count(no) for site in SITES}
    status = hostile_server.give(lambda folder: place(folder, path))
    assert not status.startswith("FINISHED:COMPLETED")
    for site in SITES:
        assert hostile_server.log_of(site).count(no) > before[site]
        assert not (hostile_server.consortium.folder(site) / "ledger" / ("f" * 32)).exists()
