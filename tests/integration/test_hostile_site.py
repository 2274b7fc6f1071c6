"""A site that cheats, breaks or is revoked: the run ends as without it, and names it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from consortium_in_memory import SITES, Consortium, MemoryCarrier, task_over
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from medfed.core.codec import decode, encode
from medfed.core.errors import MedFedError, QuorumLost, Refused
from medfed.core.messages import Message
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.deployed.conduct import Conductor
from medfed.engine.deployed.messages import Ended, FromSite, ToSite
from medfed.engine.deployed.submission import Submission
from medfed.govern.chain import follow_ledger
from medfed.govern.heads import Head
from medfed.govern.keys import load_or_create_key

FIRST, LAST = "nord", "west"
TRAIN, OWN, SUMS = "fedavg.train_locally", "evaluation.own_metrics", "evaluation.class_sums"

Forge = Callable[["Forger", FromSite], bytes]


@dataclass
class Forger:
    """Carries messages; changes what one site answers to the steps that it is out for (None: to all).

    honest: the bytes of the answers that the site would have given, by its own software.
    """

    carrier: MemoryCarrier
    site: str
    forge: Forge | None
    steps: tuple[str, ...] | None
    honest: list[bytes] = field(default_factory=list)
    folder: Path = Path()

    def carry(self, messages: Mapping[str, ToSite], deadline: float | None) -> Iterator[tuple[str, bytes]]:
        for site, message in messages.items():
            for _, answer in self.carrier.carry({site: message}, deadline):
                asked = message.content
                out = isinstance(asked, Request) and (self.steps is None or asked.step in self.steps)
                if site != self.site or not out:
                    yield site, answer
                    continue
                self.honest.append(answer)
                if self.forge is not None:
                    yield site, self.forge(self, decode(answer, FromSite))


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the bits of its model, and (site, step) of each absence."""

    model: bytes
    absences: frozenset[tuple[str, str]]
    sentences: tuple[str, ...]


def play(
    root: Path,
    site: str,
    forge: Forge | None,
    steps: tuple[str, ...] | None,
    allowed: Callable[[str], None] | None = None,
) -> Outcome:
    """A run of four sites with a quorum of three, one of which is hostile."""
    consortium = Consortium.make(root)
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows"), quorum=3))
    consortium.approve(submission.proposal())
    carrier = Forger(MemoryCarrier(consortium.open_sites()), site, forge, steps, folder=root)
    try:
        Conductor(consortium.coordinator, submission, carrier, allowed or (lambda site: None)).conduct()
    finally:
        for each in carrier.carrier.sites.values():
            each.close()
    check_ledgers(consortium, submission)
    return outcome_of(submission)


def outcome_of(submission: Submission) -> Outcome:
    content = (submission.folder / "model.safetensors").read_bytes()
    told = [absent for _, event in submission.events() for absent in event.get("absent", ())]
    return Outcome(
        content[8 + int.from_bytes(content[:8], "little") :],
        frozenset((each["site"], each["step"]) for each in told),
        tuple(each["sentence"] for each in told),
    )


def check_ledgers(consortium: Consortium, submission: Submission) -> None:
    follow_ledger(submission.folder / "ledger", "coordinator", consortium.coordinator.key().verify_key)
    for site, folder in consortium.sites.items():
        follow_ledger(folder.ledger(submission.run), site, folder.key().verify_key)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...] | None], Outcome]:
    """The run in which the site was silent in place of hostile."""
    known: dict[tuple[str, tuple[str, ...] | None], Outcome] = {}

    def silent(site: str, steps: tuple[str, ...] | None) -> Outcome:
        if (site, steps) not in known:
            known[site, steps] = play(tmp_path_factory.mktemp("silent"), site, None, steps)
        return known[site, steps]

    return silent


# ------------------------------------------------------------------------------------------------------ the attacks


def body(change: Callable[[Any], Message]) -> Forge:
    """An attack by what the site releases."""

    def forge(_: Forger, answer: FromSite) -> bytes:
        assert isinstance(answer.content, Reply)
        return encode(with_reply(answer, body=change(answer.content.body)))

    return forge


def with_reply(answer: FromSite, **fields: Any) -> FromSite:
    assert isinstance(answer.content, Reply)
    return dataclasses.replace(answer, content=dataclasses.replace(answer.content, **fields))


def reply(**fields: Any) -> Forge:
    return lambda _, answer: encode(with_reply(answer, **fields))


def answer(**fields: Any) -> Forge:
    return lambda _, answer: encode(dataclasses.replace(answer, **fields))


def head(**fields: Any) -> Forge:
    def forge(_: Forger, answer: FromSite) -> bytes:
        assert answer.head is not None
        return encode(dataclasses.replace(answer, head=dataclasses.replace(answer.head, **fields)))

    return forge


def filled(value: float) -> Callable[[Any], Message]:
    return lambda sums: dataclasses.replace(sums, delta=np.full_like(sums.delta, value))


def one(value: float) -> Callable[[Any], Message]:
    def change(sums: Any) -> Message:
        delta = sums.delta.copy()
        delta[-1] = value
        return dataclasses.replace(sums, delta=delta)  # type: ignore[no-any-return]

    return change


def shaped(*shape: int) -> Callable[[Any], Message]:
    return lambda sums: dataclasses.replace(sums, delta=np.zeros(shape, np.float32))


def earlier(forger: Forger, answer: FromSite) -> bytes:
    """The first answer to this kind of request, again and again."""
    return encode(answer) if len(forger.honest) == 1 else forger.honest[0]


def backwards(forger: Forger, answer: FromSite) -> bytes:
    """Each answer with the head of the first one."""
    return encode(dataclasses.replace(answer, head=decode(forger.honest[0], FromSite).head))


def resigned(forger: Forger, answer: FromSite) -> bytes:
    """Another root of the same size, under the site's own key: a rewritten history."""
    assert answer.head is not None
    key = load_or_create_key(forger.folder / "sites" / forger.site / "keys", "site")
    old = answer.head.head
    forged = Head.sign(forger.site, old.size, bytes(32), old.round, key)
    return encode(dataclasses.replace(answer, head=dataclasses.replace(answer.head, head=forged)))


def by_another_key(forger: Forger, answer: FromSite) -> bytes:
    assert answer.head is not None
    old = answer.head.head
    key = load_or_create_key(forger.folder / "other", "other")
    forged = Head.sign(forger.site, old.size, bytes.fromhex(old.root), old.round, key)
    return encode(dataclasses.replace(answer, head=dataclasses.replace(answer.head, head=forged)))


WRONG_AT_ONCE: dict[str, Forge] = {
    "nan": body(filled(np.nan)),
    "infinity": body(filled(np.inf)),
    "one minus infinity": body(one(-np.inf)),
    "beyond the bound": body(one(3e38)),
    "rows beyond the bound": body(lambda sums: dataclasses.replace(sums, rows=2**40)),
    "another length": body(shaped(3)),
    "no elements": body(shaped(0)),
    "another number of dimensions": body(shaped(1, 21)),
    "float64": body(lambda sums: dataclasses.replace(sums, delta=sums.delta.astype(np.float64))),
    "another message": body(lambda sums: Ended()),
    "no reply": answer(content=Ended()),
    "garbage": lambda *_: b"\x80\x05garbage" * 100,
    "nothing": lambda *_: b"",
    "truncated": lambda _, answer: encode(answer)[:-1],
    "a tail": lambda _, answer: encode(answer) + b"\0",
    "megabytes of garbage": lambda *_: bytes(50 * 2**20),
    "another site's name around it": answer(site="ost"),
    "another site's name in it": reply(site="ost"),
    "another request": reply(request="0" * 64),
    "no head": answer(head=None),
    "a head of another root": resigned,
    "a head by another key": by_another_key,
    "another site's head": head(party="ost"),
    "a failure": body(lambda sums: Failure("data", "I cannot", "x")),
    "a failure that names another code": body(lambda sums: Failure("no such code", "", "")),
}


@pytest.mark.parametrize("site", [FIRST, LAST])
@pytest.mark.parametrize("attack", WRONG_AT_ONCE)
def test_a_hostile_contribution_is_left_out_and_its_site_named(
    attack: str, site: str, tmp_path: Path, without: Callable[..., Outcome]
) -> None:
    ended = play(tmp_path, site, WRONG_AT_ONCE[attack], (TRAIN,))
    assert ended.model == without(site, (TRAIN,)).model
    assert ended.absences == {(site, TRAIN)}
    assert sum(map(len, ended.sentences)) < 2000


@pytest.mark.parametrize("attack", ["nan", "garbage", "another site's name around it", "no head"])
def test_a_site_that_is_hostile_from_the_beginning_takes_no_part(
    attack: str, tmp_path: Path, without: Callable[..., Outcome]
) -> None:
    forge = WRONG_AT_ONCE[attack] if attack != "nan" else answer(content=Ended())
    ended = play(tmp_path, FIRST, forge, None)
    silent = without(FIRST, None)
    assert (ended.model, ended.absences) == (silent.model, silent.absences)
    assert {site for site, _ in ended.absences} == {FIRST}


@pytest.mark.parametrize("forge", [earlier, backwards])
def test_an_answer_from_before_is_left_out(forge: Forge, tmp_path: Path) -> None:
    """In the first round it is the true one."""
    ended = play(tmp_path / "hostile", FIRST, forge, (TRAIN,))
    assert ended.absences == {(FIRST, TRAIN)}
    silent = play(tmp_path / "silent", FIRST, _silent_after_first, (TRAIN,))
    assert ended.model == silent.model


def _silent_after_first(forger: Forger, answer: FromSite) -> bytes:
    return encode(answer) if len(forger.honest) == 1 else b""


HARMLESS: dict[str, Forge] = {
    "a negative size held": answer(known=-1),
    "a size held that never was": answer(known=10**30),
    "a proof from elsewhere": head(since=10**6),
    "a version that is no number of a version": reply(version=10**30),
    "a negative version": reply(version=-5),
    "another round": reply(round=-7, call=10**9, run="x"),
}


@pytest.mark.parametrize("attack", HARMLESS)
def test_wrong_numbers_hurt_nobody_else(attack: str, tmp_path: Path, without: Callable[..., Outcome]) -> None:
    """The site's own answers may count or not; those of the others do, and the run ends."""
    ended = play(tmp_path, FIRST, HARMLESS[attack], None)
    assert {site for site, _ in ended.absences} <= {FIRST}
    assert ended.model


TALKATIVE: dict[str, Forge] = {
    "a sentence of megabytes": body(lambda sums: Failure("x", "na " * 10**6, "y" * 10**6)),
    "a code of megabytes": body(lambda sums: Failure("x" * 10**6, "no", "y")),
    "a sentence for a terminal": body(lambda sums: Failure("x", "\x1b[2J\x07\r\nall is well", "y")),
    "a failure in place of a reply": answer(content=Failure("x", "na " * 10**6, "y")),
}


@pytest.mark.parametrize("attack", TALKATIVE)
def test_what_a_site_says_is_cut_short(attack: str, tmp_path: Path, without: Callable[..., Outcome]) -> None:
    ended = play(tmp_path, FIRST, TALKATIVE[attack], (TRAIN,))
    assert ended.model == without(FIRST, (TRAIN,)).model
    assert ended.sentences and all(len(each) <= 1000 and each.isprintable() for each in ended.sentences)
    size = sum(path.stat().st_size for path in (tmp_path / "coordinator" / "runs").rglob("*") if path.is_file())
    assert size < 2**20


def test_negative_counts_do_not_cancel_those_of_others(tmp_path: Path, without: Callable[..., Outcome]) -> None:
    """Else one site could make the total zero, by which sums are divided."""
    total = sum(round(0.6 * rows) for site, rows in SITES.items() if site != FIRST)
    for number, rows in enumerate((-total, -1, 1 - total)):
        ended = play(
            tmp_path / str(number), FIRST, body(lambda sums, rows=rows: dataclasses.replace(sums, rows=rows)), (TRAIN,)
        )  # type: ignore[misc]
        assert ended.model == without(FIRST, (TRAIN,)).model
        assert ended.absences == {(FIRST, TRAIN)}


# ------------------------------------------------------------------------------------ what is asked of each by itself


def mutated(message: Any, draw: st.DataObject) -> Any:
    """A message of the same type, with other values in it; arrays keep their type."""
    match message:
        case np.ndarray():
            kind = draw.draw(st.sampled_from(["nan", "zero", "huge", "short", "long", "deep", "negative"]))
            shapes = {"short": message.reshape(-1)[:1], "long": np.concatenate([message.reshape(-1)] * 2)}
            if kind in shapes:
                return shapes[kind]
            if kind == "deep":
                return message.reshape(1, *message.shape)
            values = {"nan": np.nan if message.dtype.kind == "f" else 1, "zero": 0, "huge": 2**30, "negative": -1}
            return np.full_like(message, values[kind])
        case bool() | None:
            return message
        case int():
            return draw.draw(st.sampled_from([0, -1, 1, 2**31, 2**62]))
        case float():
            return draw.draw(st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e308]))
        case str():
            return draw.draw(
                st.sampled_from(["", "x", "<script>alert(1)</script>", "\x1b[2J", "federated", "y" * 5000])
            )
        case tuple():
            items = [mutated(item, draw) if draw.draw(st.booleans()) else item for item in message]
            return tuple(draw.draw(st.sampled_from([items, items[:1], [], items * 3])))
        case Message():
            values = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}  # type: ignore[arg-type]
            chosen = draw.draw(st.sets(st.sampled_from(sorted(values)), min_size=1))
            return type(message)(**values | {name: mutated(values[name], draw) for name in chosen})
    return message


@pytest.mark.slow
@settings(max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.data())
def test_whatever_a_site_says_of_itself_the_others_train_to_the_same_end(
    tmp_path_factory: pytest.TempPathFactory, without: Callable[..., Outcome], data: st.DataObject
) -> None:
    """Its metrics, its appraisal and its data sheet; a report of levels is not asked for where a task declares them."""

    def forge(_: Forger, answer: FromSite) -> bytes:
        assert isinstance(answer.content, Reply)
        if isinstance(answer.content.body, Failure):
            return encode(answer)
        return encode(with_reply(answer, body=mutated(answer.content.body, data)))

    asked = (OWN, "appraisal.own_appraisal", "prepare.describe")
    ended = play(tmp_path_factory.mktemp("own"), FIRST, forge, asked)
    assert ended.model == without(FIRST, asked).model


# ------------------------------------------------------------------------------------------------------- revocation


def test_a_site_that_was_revoked_gets_no_model_and_its_answers_do_not_count(
    tmp_path: Path, without: Callable[..., Outcome]
) -> None:
    """In the middle of the first round, while it trains."""
    revoked: list[str] = []

    def allowed(site: str) -> None:
        if site in revoked:
            raise Refused("the site was revoked", where=site)

    def revoke(forger: Forger, answer: FromSite) -> bytes:
        revoked.append(forger.site)
        return encode(answer)

    consortium = Consortium.make(tmp_path)
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows"), quorum=3))
    consortium.approve(submission.proposal())
    memory = MemoryCarrier(consortium.open_sites())
    Conductor(consortium.coordinator, submission, Forger(memory, FIRST, revoke, (TRAIN,)), allowed).conduct()
    sent = [decode(content, ToSite).content for site, way, content in memory.spied if (site, way) == (FIRST, "there")]
    asked = [content.step for content in sent if isinstance(content, Request)]
    assert asked.count(TRAIN) == 1 and sent[-1].step == TRAIN  # type: ignore[attr-defined]
    ended = outcome_of(submission)
    assert ended.model == without(FIRST, (TRAIN,)).model
    assert {site for site, _ in ended.absences} == {FIRST} and "revoked" in ended.sentences[0]


def test_too_many_hostile_sites_end_the_run_with_their_names(tmp_path: Path) -> None:
    consortium = Consortium.make(tmp_path)
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows"), quorum=3))
    consortium.approve(submission.proposal())
    memory = MemoryCarrier(consortium.open_sites())
    one_of_two = Forger(memory, FIRST, WRONG_AT_ONCE["garbage"], (TRAIN,))
    both = Forger(one_of_two, LAST, WRONG_AT_ONCE["nan"], (TRAIN,))  # type: ignore[arg-type]
    with pytest.raises(QuorumLost) as caught:
        Conductor(consortium.coordinator, submission, both, lambda site: None).conduct()
    assert isinstance(caught.value, MedFedError) and FIRST in str(caught.value) and LAST in str(caught.value)


def test_an_honest_run_counts_all_four(tmp_path: Path, without: Callable[..., Outcome]) -> None:
    """So that the runs above differ from it by the hostile site."""
    ended = play(tmp_path, FIRST, lambda _, answer: encode(answer), None)
    assert ended.absences == frozenset()
    assert ended.model != without(FIRST, (TRAIN,)).model


# ------------------------------------------------------------------------------- over FLARE: who may connect at all


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of FLARE's own sockets
def test_a_certificate_of_ones_own_making_and_a_revoked_one_connect_to_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each under the name of a site that is away, with the true root's certificate, which is public."""
    from flare_consortium import COORDINATOR, FlareConsortium, _kill

    from medfed.engine.flare.admin import Admin
    from medfed.engine.flare.kits import admin_kit
    from medfed.engine.flare.membership import restore_site, revoke_site

    true = FlareConsortium.provision(tmp_path_factory.mktemp("true"))
    false = FlareConsortium.provision(tmp_path_factory.mktemp("false"))
    kit, own = (each.folder(LAST) / "flare" / "startup" for each in (true, false))
    right = {name: (kit / name).read_bytes() for name in ("client.crt", "client.key")}
    admin = Admin(admin_kit(true.folder(COORDINATOR)))

    def connected(*sites: str, seconds: float = 60) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(MedFedError):
                if admin.connected() == frozenset(sites):
                    return True
            time.sleep(0.5)
        return False

    def stop_last() -> None:
        process = true.services[LAST].process
        assert process is not None
        process.terminate()
        true.services[LAST].wait(20)

    try:
        true.services[COORDINATOR].start()
        true.services[FIRST].start()
        assert connected(FIRST)
        for name in right:
            (kit / name).write_bytes((own / name).read_bytes())
        true.services[LAST].start()
        assert not connected(FIRST, LAST, seconds=15)
        stop_last()
        for name, content in right.items():
            (kit / name).write_bytes(content)
        revoke_site(true.folder(COORDINATOR), LAST, "its laptop was stolen", "Dr. Test")
        true.services[LAST].start()
        assert not connected(FIRST, LAST, seconds=15)
        stop_last()
        restore_site(true.folder(COORDINATOR), LAST)
        true.services[LAST].start()
        assert connected(FIRST, LAST)
    finally:
        admin.close()
        true.stop()
        _kill(true.processes())
