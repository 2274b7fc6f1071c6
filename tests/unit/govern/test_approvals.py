from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposed_tasks import COHORT, COORDINATOR, SITE, proposed, resigned, spec_of

from medfed.core.codec import encode
from medfed.core.errors import RefusalReason, Refused, UserError
from medfed.govern import approvals
from medfed.govern.approvals import ApprovalStore, Status
from medfed.govern.chain import ledger_path
from medfed.govern.decisions import Decision, DecisionKind
from medfed.govern.entries import DecisionEntry, decode_entry
from medfed.govern.keys import SigningKey
from medfed.govern.ledger import Ledger, LedgerFolder
from medfed.govern.proposals import Proposal

NOW = datetime(2027, 5, 1, 12, tzinfo=UTC)
STEWARD = "Dr. A. Stern"


class Desk:
    """A site's folder: its store, and its ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = self.reopened()

    def reopened(self, key: SigningKey = SITE) -> ApprovalStore:
        return ApprovalStore(self.folder / "proposals", key, COORDINATOR.verify_key)

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with LedgerFolder.open(self.folder / "ledger", SITE, durable=False) as ledgers:
            yield ledgers.ledger("north")

    def approve(self, digest: str, cohort: str = COHORT, expires: str | None = None) -> Decision:
        with self.ledger() as ledger:
            return self.store.approve(
                digest, cohort=cohort, dataset="default", by=STEWARD, ledger=ledger, expires=expires
            )

    def recorded(self) -> list[DecisionEntry]:
        lines = ledger_path(self.folder / "ledger", "north").read_bytes().splitlines()
        entries = [decode_entry(line).entry for line in lines]
        return [entry for entry in entries if isinstance(entry, DecisionEntry)]

    def file(self, proposal: Proposal, name: str = "decisions.jsonl") -> Path:
        return self.folder / "proposals" / proposal.digest / name


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def why_not(store: ApprovalStore, digest: str, cohort: str = COHORT, now: datetime = NOW) -> str:
    with pytest.raises(Refused) as caught:
        store.check(digest, cohort, now)
    assert caught.value.reason is RefusalReason.TASKS
    assert caught.value.remedy
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- the states


def test_a_task_goes_from_unknown_to_approved_and_is_withdrawn_at_once(desk: Desk) -> None:
    store, proposal = desk.store, proposed()
    assert store.status(proposal.digest, NOW) is Status.UNKNOWN
    assert "never proposed" in why_not(store, proposal.digest)

    assert store.receive(proposal)
    assert store.status(proposal.digest, NOW) is Status.WAITING
    assert "has not decided" in why_not(store, proposal.digest)
    assert store.filed() == (proposal.digest,)
    assert store.proposal(proposal.digest) == proposal

    decision = desk.approve(proposal.digest)
    assert store.status(proposal.digest, NOW) is Status.APPROVED
    assert store.check(proposal.digest, COHORT, NOW) == decision
    assert (decision.by, decision.dataset, decision.expires) == (STEWARD, "default", "2999-12-31")

    desk.reopened().withdraw(proposal.digest, by=STEWARD, reason="a patient objected")
    assert store.status(proposal.digest, NOW) is Status.WITHDRAWN
    assert "a patient objected" in why_not(store, proposal.digest)

    desk.approve(proposal.digest)
    assert store.check_approved(proposal.digest, NOW).number == 3


def test_a_refused_task_says_why(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    desk.store.refuse(proposal.digest, by=STEWARD, reason="no ethics vote yet")
    assert desk.store.status(proposal.digest, NOW) is Status.REFUSED
    assert "refused this task: no ethics vote yet" in why_not(desk.store, proposal.digest)


def test_other_rows_need_a_new_approval(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    desk.approve(proposal.digest)
    changed = "c1" * 32
    assert "dataset changed since it was approved" in why_not(desk.store, proposal.digest, changed)
    desk.approve(proposal.digest, changed)
    assert desk.store.check(proposal.digest, changed, NOW).cohort == changed
    assert "dataset changed" in why_not(desk.store, proposal.digest, COHORT)


def test_an_approval_ends_with_its_last_day(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    desk.approve(proposal.digest, expires="2998-06-30")
    end = datetime(2998, 7, 1, tzinfo=UTC)
    desk.store.check(proposal.digest, COHORT, end - timedelta(seconds=1))
    assert "has ended" in why_not(desk.store, proposal.digest, now=end)
    assert desk.store.status(proposal.digest, end) is Status.EXPIRED


def test_nothing_outlasts_the_ethics_approval(desk: Desk) -> None:
    proposal = proposed(ethics_expires="2998-06-30")
    desk.store.receive(proposal)
    end = datetime(2998, 7, 1, tzinfo=UTC)
    assert desk.store.status(proposal.digest, end) is Status.EXPIRED
    with pytest.raises(UserError) as caught:
        desk.approve(proposal.digest, expires="2998-07-01")
    assert "2998-06-30" in caught.value.remedy
    assert desk.approve(proposal.digest).expires == "2998-06-30"
    assert desk.store.status(proposal.digest, end - timedelta(seconds=1)) is Status.APPROVED
    assert desk.store.status(proposal.digest, end) is Status.EXPIRED


@pytest.mark.parametrize("expires", ["2020-01-01", "2998-13-01", "29980101", "soon", ""])
def test_an_end_that_is_over_or_no_day_is_the_stewards_mistake(desk: Desk, expires: str) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    with pytest.raises(UserError):
        desk.approve(proposal.digest, expires=expires)
    assert desk.store.status(proposal.digest, NOW) is Status.WAITING


def test_an_ended_ethics_approval_cannot_be_approved(desk: Desk) -> None:
    proposal = proposed(ethics_expires="2020-01-01")
    desk.store.receive(proposal)
    with pytest.raises(UserError):
        desk.approve(proposal.digest)


@pytest.mark.parametrize("by", ["", "  ", "auto_approve", " auto_approve", "x" * 501])
def test_a_decision_needs_a_persons_name(desk: Desk, by: str) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    with pytest.raises(UserError):
        desk.store.refuse(proposal.digest, by=by, reason="why")
    with desk.ledger() as ledger, pytest.raises(UserError):
        desk.store.approve(proposal.digest, cohort=COHORT, dataset="default", by=by, ledger=ledger)


@pytest.mark.parametrize("reason", ["", " \n", "x" * 501])
def test_a_refusal_needs_a_reason(desk: Desk, reason: str) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    with pytest.raises(UserError):
        desk.store.withdraw(proposal.digest, by=STEWARD, reason=reason)


def test_what_was_never_proposed_cannot_be_decided(desk: Desk) -> None:
    with pytest.raises(Refused, match="never proposed"):
        desk.store.refuse("ab" * 32, by=STEWARD, reason="why")
    with pytest.raises(Refused, match="never proposed"):
        desk.approve("ab" * 32)
    assert desk.store.filed() == ()


# --------------------------------------------------------------------------------------------------- by rule, ledger


def test_a_rule_approves_only_where_nobody_has_decided(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    with desk.ledger() as ledger:
        decision = desk.store.auto_approve(proposal.digest, COHORT, "default", ledger)
        assert decision.by == "auto_approve"
        assert desk.store.check(proposal.digest, COHORT, NOW) == decision
        assert desk.store.auto_approve(proposal.digest, "c1" * 32, "default", ledger) == decision
        withdrawn = desk.store.withdraw(proposal.digest, by=STEWARD, reason="no")
        assert desk.store.auto_approve(proposal.digest, COHORT, "default", ledger) == withdrawn
    assert desk.store.status(proposal.digest, NOW) is Status.WITHDRAWN
    assert [entry.by for entry in desk.recorded()] == ["auto_approve"]


def test_the_ledger_has_an_approval_before_it_counts(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    with desk.ledger() as ledger:
        closed = ledger
    with pytest.raises(Refused) as caught:
        desk.store.approve(proposal.digest, cohort=COHORT, dataset="default", by=STEWARD, ledger=closed)
    assert caught.value.reason is RefusalReason.LEDGER
    assert desk.store.status(proposal.digest, NOW) is Status.WAITING

    decision = desk.approve(proposal.digest)
    assert desk.recorded() == [DecisionEntry("office", proposal.digest, "approve", STEWARD, "", COHORT)]
    assert desk.recorded() == [decision.entry()]


# ------------------------------------------------------------------------------------------- a hostile coordinator


def test_the_same_terms_may_come_again_and_others_may_not(desk: Desk) -> None:
    proposal = proposed()
    assert desk.store.receive(proposal)
    stored = desk.file(proposal, "proposal.bin").read_bytes()
    assert not desk.store.receive(proposal)
    assert not desk.store.receive(resigned(proposal, proposed="2026-01-01T00:00:00.000000+00:00"))
    for other in (
        proposed(purpose="sell the model"),
        proposed(ethics_expires="2999-12-30"),
        resigned(proposal, task=f"{proposal.task}# as before\n"),
        resigned(proposal, releases=()),
    ):
        with pytest.raises(Refused, match="other terms"):
            desk.store.receive(other)
    assert desk.file(proposal, "proposal.bin").read_bytes() == stored


def test_another_coordinator_and_an_altered_proposal_are_refused(desk: Desk) -> None:
    stranger = proposed(key=SigningKey.generate())
    altered = resigned(proposed(), rounds=21)
    for proposal, why in ((stranger, "not signed"), (altered, "number of rounds")):
        with pytest.raises(Refused, match=why):
            desk.store.receive(proposal)
        with pytest.raises(Refused, match=why):
            desk.store.receive(proposal)
    assert desk.store.filed() == ()


@pytest.mark.parametrize("digest", ["", ".", "..", "../../x", "/etc", "AB" * 32, "ab" * 31, "ab" * 32 + "\n", "ä" * 64])
def test_no_digest_leads_out_of_the_folder(desk: Desk, digest: str) -> None:
    with pytest.raises(Refused, match="no task can have this digest"):
        desk.store.receive(resigned(proposed(), digest=digest))
    for ask in (
        lambda: desk.store.status(digest, NOW),
        lambda: desk.store.check(digest, COHORT, NOW),
        lambda: desk.store.proposal(digest),
        lambda: desk.store.refuse(digest, by=STEWARD, reason="why"),
    ):
        with pytest.raises(Refused, match="no task can have this digest"):
            ask()
    assert [path.name for path in desk.folder.rglob("*") if path.is_file()] in ([], [".lock"])


def test_undecided_proposals_cannot_fill_the_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert approvals.MAX_UNDECIDED == 200
    monkeypatch.setattr(approvals, "MAX_UNDECIDED", 3)
    several = [proposed(spec_of(seed=seed)) for seed in range(5)]
    for proposal in several[:3]:
        desk.store.receive(proposal)
    with pytest.raises(Refused, match="3 proposals wait"):
        desk.store.receive(several[3])
    assert not desk.store.receive(several[0])
    desk.store.refuse(several[1].digest, by=STEWARD, reason="no")
    desk.approve(several[2].digest)
    desk.store.receive(several[3])
    desk.store.receive(several[4])
    with pytest.raises(Refused, match="3 proposals wait"):
        desk.store.receive(proposed(spec_of(seed=5)))
    assert len(desk.store.filed()) == 5


def test_a_huge_proposal_is_not_filed(desk: Desk) -> None:
    with pytest.raises(Refused, match="larger than 1 MiB"):
        desk.store.receive(resigned(proposed(), steps=("x" * 2**20,)))
    assert desk.store.filed() == ()


def test_files_are_for_their_owner_alone(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    desk.approve(proposal.digest)
    for path in (desk.file(proposal), desk.file(proposal, "proposal.bin")):
        assert path.stat().st_mode & 0o077 == 0


# -------------------------------------------------------------------------------------------------- damaged folders


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Proposal]:
    """A task that was approved, withdrawn, and approved anew."""
    desk, proposal = Desk(tmp_path_factory.mktemp("decided")), proposed()
    desk.store.receive(proposal)
    desk.approve(proposal.digest)
    desk.store.withdraw(proposal.digest, by=STEWARD, reason="wait: «ä»")
    desk.approve(proposal.digest)
    return desk, proposal


def refused_with(desk: Desk, proposal: Proposal, content: bytes) -> str:
    """How the store refuses where the file of decisions has this content, which is put back."""
    path = desk.file(proposal)
    before = path.read_bytes()
    try:
        path.write_bytes(content)
        with pytest.raises(Refused) as caught:
            desk.reopened().check(proposal.digest, COHORT, NOW)
        with pytest.raises(Refused):
            desk.store.check(proposal.digest, COHORT, NOW)
    finally:
        path.write_bytes(before)
    return caught.value.where


@given(st.data())
def test_any_byte_of_a_decision_that_changes_is_found_and_located(
    decided: tuple[Desk, Proposal], data: st.DataObject
) -> None:
    desk, proposal = decided
    content = desk.file(proposal).read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))
    where = refused_with(desk, proposal, content[:position] + bytes([other]) + content[position + 1 :])
    line = content.count(b"\n", 0, position) + 1
    assert where == f"{desk.file(proposal)}:{line}"


@given(st.permutations([0, 1, 2]), st.data())
def test_lines_in_another_order_or_repeated_are_found(
    decided: tuple[Desk, Proposal], order: list[int], data: st.DataObject
) -> None:
    desk, proposal = decided
    lines = desk.file(proposal).read_bytes().splitlines(keepends=True)
    again = data.draw(st.sampled_from([[], [0], [1], [2], [0, 0]]))
    chosen = [*order, *again]
    if chosen == [0, 1, 2]:
        return
    wrong = next(k for k, line in enumerate(chosen) if k > 2 or line != k)
    assert refused_with(desk, proposal, b"".join(lines[k] for k in chosen)).endswith(f":{wrong + 1}")


@pytest.mark.parametrize(("kept", "line"), [(-1, 3), (-40, 3), (40, 1), (0, 1)])
def test_a_torn_or_emptied_file_approves_nothing(decided: tuple[Desk, Proposal], kept: int, line: int) -> None:
    desk, proposal = decided
    content = desk.file(proposal).read_bytes()
    assert refused_with(desk, proposal, content[:kept]).endswith(f":{line}")


def test_a_signature_in_another_spelling_is_found(decided: tuple[Desk, Proposal]) -> None:
    desk, proposal = decided
    signature = desk.store.decisions(proposal.digest)[1].signature.encode()
    spelt = desk.file(proposal).read_bytes().replace(signature, signature.upper())
    assert refused_with(desk, proposal, spelt).endswith(":2")


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"null", b"\xff", b"{" * 5000, b'{"number":1}'])
def test_rubbish_among_the_decisions_is_located(decided: tuple[Desk, Proposal], line: bytes) -> None:
    desk, proposal = decided
    first, *_ = desk.file(proposal).read_bytes().splitlines(keepends=True)
    assert refused_with(desk, proposal, first + line + b"\n").endswith(":2")


def test_decisions_under_another_key_approve_nothing(decided: tuple[Desk, Proposal]) -> None:
    desk, proposal = decided
    with pytest.raises(Refused) as caught:
        desk.reopened(SigningKey.generate()).check(proposal.digest, COHORT, NOW)
    assert caught.value.where.endswith("decisions.jsonl:1")


def test_decisions_beside_another_task_approve_nothing(desk: Desk) -> None:
    one, two = proposed(), proposed(spec_of(seed=9))
    desk.store.receive(one)
    desk.store.receive(two)
    desk.approve(one.digest)
    desk.file(two).write_bytes(desk.file(one).read_bytes())
    assert "cannot be trusted" in why_not(desk.store, two.digest)
    desk.store.check(one.digest, COHORT, NOW)


def test_another_proposal_in_the_place_of_the_one_decided_on_is_found(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    desk.approve(proposal.digest)
    path = desk.file(proposal, "proposal.bin")
    path.write_bytes(encode(resigned(proposal, ethics_expires="2999-12-30")))
    assert "not the one that was decided on" in why_not(desk.store, proposal.digest)
    path.write_bytes(encode(proposed(key=SigningKey.generate())))
    assert "not signed" in why_not(desk.store, proposal.digest)
    path.write_bytes(b"rubbish")
    assert "cannot be read" in why_not(desk.store, proposal.digest)
    path.write_bytes(encode(proposed(spec_of(seed=9))))
    assert "not signed" in why_not(desk.store, proposal.digest)


def test_a_full_disk_leaves_the_last_decision_in_force(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    desk.store.refuse(proposal.digest, by=STEWARD, reason="no")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(Refused, match="No space left"):
            desk.store.withdraw(proposal.digest, by=STEWARD, reason="no")
        with pytest.raises(Refused, match="No space left"):
            desk.store.receive(proposed(spec_of(seed=9)))
    assert desk.reopened().status(proposal.digest, NOW) is Status.REFUSED
    assert len(desk.store.decisions(proposal.digest)) == 1
    assert desk.store.filed() == (proposal.digest,)


# --------------------------------------------------------------------------------------------------------- properties


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["approve", "refuse", "withdraw"]), min_size=1, max_size=6))
def test_in_any_order_the_last_decision_counts(kinds: list[str]) -> None:
    expected = {"approve": Status.APPROVED, "refuse": Status.REFUSED, "withdraw": Status.WITHDRAWN}
    with TemporaryDirectory() as folder:
        desk, proposal = Desk(Path(folder)), _ANY
        desk.store.receive(proposal)
        for kind in kinds:
            if kind == "approve":
                desk.approve(proposal.digest)
            else:
                getattr(desk.store, kind)(proposal.digest, by=STEWARD, reason="why")
            assert desk.store.status(proposal.digest, NOW) is expected[kind]
        assert desk.reopened().status(proposal.digest, NOW) is expected[kinds[-1]]
        assert [decision.kind for decision in desk.store.decisions(proposal.digest)] == [DecisionKind(k) for k in kinds]


_ANY = proposed()


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=40).filter(str.strip), st.text(min_size=1, max_size=40).filter(str.strip))
def test_any_words_come_back_as_they_were(by: str, reason: str) -> None:
    with TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        desk.store.receive(_ANY)
        decision = desk.store.refuse(_ANY.digest, by=by, reason=reason)
        (found,) = desk.reopened().decisions(_ANY.digest)
        assert found == decision
        assert (found.by, found.reason) == (by, reason)
        line = json.loads(desk.file(_ANY).read_bytes())
        assert (line["number"], line["kind"], line["digest"]) == (1, "refuse", _ANY.digest)


def test_decisions_taken_at_once_are_all_kept(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    stores = [desk.reopened() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda k: stores[k % 4].withdraw(proposal.digest, by=f"{k}", reason="why"), range(20)):
            pass
    decisions = desk.store.decisions(proposal.digest)
    assert [decision.number for decision in decisions] == list(range(1, 21))
    assert sorted(decision.by for decision in decisions) == sorted(str(k) for k in range(20))


def test_a_moment_without_a_time_zone_approves_nothing(desk: Desk) -> None:
    proposal = proposed()
    desk.store.receive(proposal)
    desk.approve(proposal.digest)
    with pytest.raises(ValueError, match="time zone"):
        desk.store.check(proposal.digest, COHORT, NOW.replace(tzinfo=None))
