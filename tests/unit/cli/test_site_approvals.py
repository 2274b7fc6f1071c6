from __future__ import annotations

import io
import json
import signal
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from cli_runs import Ended

from medfed.algorithms.fedavg import train_locally
from medfed.cli import main as medfed
from medfed.cli import site_approvals
from medfed.core.errors import Refused
from medfed.data import prepare
from medfed.evaluate import appraisal, evaluation
from medfed.govern.approvals import ApprovalStore
from medfed.govern.chain import ledger_path
from medfed.govern.entries import DecisionEntry, decode_entry
from medfed.govern.keys import SigningKey, load_or_create_key
from medfed.govern.proposals import Proposal
from medfed.spec.loading import task_of

POLICY = """\
contact: steward@north.example
datasets:
  default: {connector: csv, path: heart.csv}
policy: {task_types: [classification], algorithms: [fedavg], steps: "*", releases: [sum, levels]}
"""
PURPOSE = "predict heart disease\x1b[2J\n\nWhat never leaves\n\x9b31m everything"


@dataclass
class Office:
    """A site's folder, its coordinator's key, and medfed's commands on it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    coordinator: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.key = load_or_create_key(self.folder / "keys", "site")
        (self.folder / "keys" / "coordinator.pub").write_bytes(self.coordinator.verify_key.pem())
        (self.folder / "identity.json").write_text('{"consortium": "heart", "site": "north"}')
        (self.folder / "site.yaml").write_text(POLICY)
        rows = "".join(f"p{k},{40 + k % 30},{k % 2}\n" for k in range(60))
        (self.folder / "heart.csv").write_text(f"id,age,diagnosis\n{rows}")
        self.store = ApprovalStore(self.folder / "proposals", self.key, self.coordinator.verify_key)

    def propose(self, name: str = "heart", **changes: object) -> Proposal:
        """A proposal that the site has received."""
        task = task_of(
            {
                "name": name,
                "task_type": "classification",
                "model": "logistic",
                "federation": {"strategy": "fedavg", "rounds": 20},
                "data": {"id": "id", "label": {"column": "diagnosis", "classes": [0, 1]}},
            }
        )
        proposal = Proposal.sign(
            self.coordinator,
            task.spec,
            (train_locally, *prepare.STEPS, *evaluation.STEPS, *appraisal.STEPS),
            purpose=PURPOSE,
            legal_basis="consent",
            ethics_id="EK 7",
            ethics_expires="2999-12-31",
        )
        if changes:
            draft = replace(proposal, **changes, signature="")  # type: ignore[arg-type]
            proposal = replace(draft, signature=self.coordinator.sign(draft._signed).hex())
        self.store.receive(proposal)
        return proposal

    def site(self, command: str, *arguments: str, typed: str = "") -> Ended:
        """``medfed site COMMAND``, with what is typed at its questions."""
        app = typer.Typer()
        for name in ("proposals", "approve", "refuse", "withdraw"):
            app.command(name)(getattr(site_approvals, name))
        self.monkeypatch.setattr(medfed, "app", app)
        self.monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as leaving:
                medfed.main([command, *arguments, "--folder", str(self.folder)])
        finally:
            signal.signal(signal.SIGTERM, before)
        shown = self.capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        assert not {"\x1b", "\x9b"} & {*shown.out, *shown.err}
        return Ended(int(leaving.value.code or 0), shown.out, shown.err)

    def recorded(self) -> list[tuple[str, str, str]]:
        """(decision, by, reason) of the office ledger's decisions."""
        lines = ledger_path(self.folder / "ledger" / "office", "north").read_bytes().splitlines()
        entries = [decode_entry(line).entry for line in lines]
        return [(entry.decision, entry.by, entry.reason) for entry in entries if isinstance(entry, DecisionEntry)]


@pytest.fixture
def office(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Office:
    return Office(tmp_path, capsys, monkeypatch)


def status(office: Office) -> list[str]:
    return [json.loads(line)["status"] for line in office.site("proposals", "--json").out.splitlines()]


def test_a_task_is_read_approved_and_withdrawn(office: Office) -> None:
    digest = office.propose().digest
    listed = office.site("proposals")
    assert listed.status == 0 and digest[:12] in listed.out and "waiting" in listed.out

    approved = office.site("approve", digest[:6], "--by", "Dr. Stern", "--expires", "2998-06-30", "--yes")
    assert approved.status == 0
    assert "60 rows of 60 patients" in approved.out
    assert f"approved by Dr. Stern until 2998-06-30: task {digest[:12]}" in approved.out
    (row,) = [json.loads(line) for line in office.site("proposals", "--json").out.splitlines()]
    assert (row["digest"], row["status"], row["by"], row["expires"]) == (digest, "approved", "Dr. Stern", "2998-06-30")
    assert row["name"] == "heart" and row["purpose"] == PURPOSE.replace("\x1b", "\\x1b").replace("\x9b", "\\x9b")

    withdrawn = office.site("withdraw", digest, "--reason", "a patient objected", "--by", "Dr. Stern")
    assert withdrawn.status == 0 and "withdrawn" in withdrawn.out
    assert status(office) == ["withdrawn"]
    assert office.recorded() == [("approve", "Dr. Stern", ""), ("withdraw", "Dr. Stern", "a patient objected")]


def test_the_coordinators_words_cannot_forge_the_explanation(office: Office) -> None:
    told = office.site("approve", office.propose().digest, "--by", "Dr. Stern", "--yes").out.splitlines()
    assert told.count("What never leaves") == 1
    assert any("\\x1b[2J" in line for line in told)
    assert max(map(len, told)) <= 100


def test_a_steward_is_asked_for_name_and_consent(office: Office) -> None:
    digest = office.propose().digest
    declined = office.site("approve", digest, typed="Dr. Stern\nn\n")
    assert declined.status == 0 and "nothing was decided" in declined.out
    assert status(office) == ["waiting"]
    assert office.site("approve", digest, typed="").status == 130
    assert status(office) == ["waiting"]
    assert office.site("approve", digest, typed="Dr. Stern\ny\n").status == 0
    assert status(office) == ["approved"]


def test_a_refusal_needs_a_reason_and_bears_a_name(office: Office) -> None:
    digest = office.propose().digest
    assert office.site("refuse", digest).status == 2
    assert office.site("refuse", digest, "--reason", " ").status == 2
    office.monkeypatch.setenv("LOGNAME", "stern")
    assert office.site("refuse", digest, "--reason", "no vote yet").status == 0
    assert status(office) == ["refused"]
    assert office.recorded() == [("refuse", "stern", "no vote yet")]


def test_an_approval_that_the_ledger_cannot_record_does_not_count_but_a_withdrawal_does(office: Office) -> None:
    digest = office.propose().digest
    (office.folder / "ledger").write_text("not a folder")
    ended = office.site("approve", digest, "--by", "Dr. Stern", "--yes")
    assert ended.status == 3 and "ledger" in ended.err
    assert status(office) == ["waiting"]
    (office.folder / "ledger").unlink()
    office.site("approve", digest, "--by", "Dr. Stern", "--yes")
    (office.folder / "ledger").rename(office.folder / "elsewhere")
    (office.folder / "ledger").write_text("not a folder")
    ended = office.site("withdraw", digest, "--reason", "now", "--by", "Dr. Stern")
    assert ended.status == 3 and "withdrawn" in ended.out and "ledger" in ended.err
    assert status(office) == ["withdrawn"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("approve", "3f2a", "--by", "x", "--yes"), "not the beginning of a digest"),
        (("approve", "../../etc/passwd", "--by", "x", "--yes"), "not the beginning of a digest"),
        (("approve", "0" * 64, "--by", "x", "--yes"), "no task was proposed"),
        (("withdraw", "0" * 6, "--reason", "x"), "no task was proposed"),
        (("approve", "DIGEST", "--yes"), "bears a steward's name"),
        (("approve", "DIGEST", "--by", "auto_approve", "--yes"), "name of the person"),
        (("approve", "DIGEST", "--by", "x", "--yes", "--expires", "2020-01-01"), "cannot be approved until"),
        (("approve", "DIGEST", "--by", "x", "--yes", "--expires", "3000-01-01"), "2999-12-31"),
        (("approve", "DIGEST", "--by", "x", "--yes", "--expires", "soon"), "cannot be approved until"),
    ],
)
def test_mistakes_are_told_with_their_remedy(office: Office, arguments: tuple[str, ...], told: str) -> None:
    digest = office.propose().digest
    ended = office.site(*[digest if argument == "DIGEST" else argument for argument in arguments])
    assert ended.status == 2
    assert told in ended.err and "remedy:" in ended.err
    assert status(office) == ["waiting"]


def test_a_prefix_of_two_digests_is_not_enough(office: Office) -> None:
    office.monkeypatch.setattr(ApprovalStore, "filed", lambda _: ("abcdef" + "0" * 58, "abcdef" + "1" * 58))
    ended = office.site("refuse", "abcdef", "--reason", "no")
    assert ended.status == 2 and "2 tasks begin with abcdef" in ended.err


def test_a_folder_without_a_site_is_a_mistake_and_stays_as_it_was(office: Office, tmp_path: Path) -> None:
    office.folder = elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ended = office.site("proposals")
    assert ended.status == 2 and "no site in this folder" in ended.err
    assert list(elsewhere.iterdir()) == []


def test_nothing_proposed_is_said(office: Office) -> None:
    assert office.site("proposals").out == "nothing was proposed yet\n"
    assert office.site("proposals", "--json").out == ""


def test_a_damaged_decision_is_told_and_the_other_tasks_are_listed(office: Office) -> None:
    one, two = office.propose("one"), office.propose("two")
    office.site("refuse", one.digest, "--reason", "no", "--by", "Dr. Stern")
    path = office.folder / "proposals" / one.digest / "decisions.jsonl"
    path.write_bytes(path.read_bytes().replace(b"refuse", b"approve"))
    ended = office.site("proposals")
    assert ended.status == 3
    assert f"{path}:1" in ended.err
    assert "unreadable" in ended.out and two.digest[:12] in ended.out
    assert office.site("approve", one.digest, "--by", "x", "--yes").status == 3


def test_a_proposal_that_hides_a_release_cannot_be_approved(office: Office) -> None:
    honest = office.propose("honest")
    kept = tuple(release for release in honest.releases if release.step != "evaluation.own_metrics")
    steps = tuple(release.step for release in kept)
    hiding = office.propose("hiding", releases=kept, steps=steps)
    ended = office.site("approve", hiding.digest, "--by", "Dr. Stern", "--yes")
    assert ended.status == 3 and "other things would be released" in ended.err
    with pytest.raises(Refused):
        office.store.check_approved(hiding.digest, datetime.now(UTC))
