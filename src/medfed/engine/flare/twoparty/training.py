"""A run between a guest and a host, after they have met: each side's process, from its start to the model."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medfed.core.errors import MedFedError, QuorumLost, Refused, RunFolderError, TaskError, UserError
from medfed.core.files import write_atomically
from medfed.engine.assembly import check_parts
from medfed.engine.deployed.cohorts import cohort_of, table_of
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.deployed.kept import Keepsakes
from medfed.engine.deployed.messages import Figure
from medfed.engine.deployed.office import office_ledger
from medfed.engine.deployed.submission import Submission, Wish, submissions
from medfed.engine.deployed.submitting import resubmit, submit_task
from medfed.engine.flare.companion import Companion, together
from medfed.engine.flare.twoparty.pair import Pair, write_settings
from medfed.engine.flare.writing import private_folder
from medfed.govern.approvals import ApprovalStore, Status
from medfed.govern.proposals import Proposal
from medfed.spec.canonical import resolved, task_digest
from medfed.spec.loading import TaskFile
from medfed.spec.site import load_site

Tell = Callable[[str], None]
"""Shows this side's person a sentence."""

Show = Callable[[int, Sequence[Figure]], None]
"""Shows what was measured after a round."""

_LOOK = 0.2
_LINGER = 3.0
"""Seconds for the host's last answer to reach the guest."""

_WHY = {
    "purpose": "a run that both parties have started themselves, each by its own command",
    "legal_basis": "to be known to the people who started it",
    "ethics_id": "to be known to the people who started it",
    "ethics_expires": "2999-12-31",
}
_ERRORS: dict[int, type[MedFedError]] = {2: UserError, 3: Refused, 4: QuorumLost}


@dataclass(frozen=True)
class Work:
    """What one side was started with. every: seconds between two attempts to reach the other."""

    pair: Pair
    task: TaskFile
    rows: Path
    output: Path
    every: float
    tell: Tell
    show: Show

    @property
    def digest(self) -> str:
        """The task's digest."""
        return task_digest(self.task.spec)

    def check(self) -> None:
        """Raise what is wrong with the task or the output before anybody is waited for."""
        check_parts(self.task, (self.pair.guest, self.pair.host))
        _Output(self.output).check(self.digest)


def train(work: Work) -> Path:
    """Train to the end, from wherever an earlier start got; the folder with the run's outcome.

    The guest's is a whole run folder, the host's has the model. Raises RunFolderError where the output holds a finished
    run, UserError where it holds another task's, and what ends a run for good.
    """
    output = _Output(work.output)
    fresh = output.begin(work.digest)
    store = _approved(work, fresh)
    work.tell(f"connecting with {work.pair.host if work.pair.coordinates else work.pair.guest}")
    return _train_as_guest(work, output) if work.pair.coordinates else _train_as_host(work, output, store)


@dataclass(frozen=True)
class _Output:
    """The folder that a person named: which run it is for, and how far that was shown."""

    folder: Path

    def begin(self, digest: str) -> bool:
        """Take the folder for a task; returns whether nothing was begun in it."""
        self.check(digest)
        self.folder.mkdir(parents=True, exist_ok=True)
        if fresh := not self._read():
            self._write(task=digest)
        return fresh

    def check(self, digest: str) -> None:
        """Raise RunFolderError where a finished run is in the folder, UserError where another task was begun in it."""
        if (self.folder / "model.safetensors").exists():
            raise RunFolderError(
                "there is a finished run in this folder already",
                where=str(self.folder),
                remedy="name another folder by --output",
            )
        if self._read().get("task", digest) != digest:
            raise UserError(
                "another task was begun in this folder",
                where=str(self.folder),
                remedy="name another folder by --output, or give the task as it was",
            )

    @property
    def run(self) -> str | None:
        """The run's id, as far as it was submitted."""
        return self._read().get("run")

    def submitted(self, run: str) -> None:
        """Remember the run."""
        self._write(run=run)

    @property
    def shown(self) -> int:
        """The position in the run's events up to which they were shown."""
        return int(self._read().get("shown", 0))

    def show(self, position: int) -> None:
        """Remember what was shown."""
        self._write(shown=position)

    @property
    def _file(self) -> Path:
        return self.folder / "two_parties.json"

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._file.read_text())) if self._file.exists() else {}
        except (ValueError, TypeError) as error:
            raise RunFolderError("this file is damaged", where=str(self._file), remedy="remove it") from error

    def _write(self, **changes: object) -> None:
        write_atomically(self._file, json.dumps(self._read() | changes) + "\n")


def _approved(work: Work, fresh: bool) -> ApprovalStore:
    """Whoever started the command approves its task by that, for one run, and no other one any more."""
    pair, digest = work.pair, work.digest
    write_settings(pair, work.rows, digest)
    folder = SiteFolder.open(pair.site)
    table_of(folder, load_site(folder.settings), work.task)  # what is wrong with the rows is told at once, and here
    store = ApprovalStore(folder.proposals, folder.key(), folder.coordinator_key())
    for other in store.filed():
        if other != digest:
            _put_aside(folder, store, other)
    decided = store.decisions(digest)
    if decided and (fresh or store.status(digest, datetime.now(UTC)) is not Status.APPROVED):
        cohort = cohort_of(pair.site, store.proposal(digest))
        with office_ledger(pair.site) as ledger:
            store.approve(digest, cohort=cohort.digest, dataset=cohort.dataset, by=pair.here, ledger=ledger)
    return store


def _put_aside(folder: SiteFolder, store: ApprovalStore, other: str) -> None:
    """Another task is approved no longer; if it is proposed again, it is as new."""
    if store.status(other, datetime.now(UTC)) is Status.APPROVED:
        decision = store.withdraw(other, by=folder.site, reason="another task was started")
        with office_ledger(folder.path) as ledger:
            ledger.append(decision.entry())
    earlier = private_folder(folder.path / "earlier")
    shutil.move(folder.proposals / other, earlier / f"{other}-{time.time_ns()}")


# ----------------------------------------------------------------------------------------------------------- the guest


def _train_as_guest(work: Work, output: _Output) -> Path:
    pair, wish = work.pair, Wish(hand_over=True)
    if output.run is None:
        submission, _ = submit_task(pair.coordinator, work.task, wish, **_WHY)
        output.submitted(submission.run)
    else:
        submission = Submission(pair.coordinator / "runs" / output.run)
        if not (submission.folder / "results.json").exists():
            resubmit(pair.coordinator, output.run, wish)
    for other in submissions(pair.coordinator / "runs"):
        if other.run != submission.run:
            other.settle()  # what was begun in another output waits until the command names that again
    companions = [
        Companion("coordinator", pair.coordinator, work.every),
        Companion("site", pair.site, work.every),
    ]
    with together(companions):
        while submission.wanted:
            if _show_events(work, submission, output):
                time.sleep(max(work.every, 1.0))
                submission.ask(wish)
            for companion in companions:
                companion.watch()
            time.sleep(_LOOK)
        _show_events(work, submission, output)
    _copy_run(submission.folder, work.output)
    return work.output


def _show_events(work: Work, submission: Submission, output: _Output) -> bool:
    """Show what is new of a run; whether it stopped, and is to be asked for again. Raises what ends it for good."""
    stopped = False
    for position, event in submission.events(output.shown):
        output.show(position)
        stopped = _seen_by_guest(work, submission, event)
    return stopped


def _seen_by_guest(work: Work, submission: Submission, event: dict[str, Any]) -> bool:
    """Show an event; whether the run stopped, and is to be asked for again. Raises what ends it for good."""
    host = work.pair.host
    match event["event"]:
        case "begun":
            work.tell(f"{event['strategy']}, {event['rounds']} rounds" + _resumed(event["round"]))
        case "round":
            work.show(event["round"], [Figure(m["site"], m["metric"], m["value"]) for m in event["metrics"]])
            for absence in event["absent"]:
                work.tell(f"{absence['site']} did not take part in {absence['step']}: {absence['sentence']}")
        case "standing" if event["sites"].get(host) == Status.WAITING:
            raise UserError(
                "the host was started with another task than this one",
                where=host,
                remedy="its own screen says what differs; give both the same task file",
            )
        case "waiting":
            work.tell(f"waiting for {', '.join(event['sites'])}")
        case "aborted" | "paused":
            work.tell("the run goes on from its last round")
        case "handed_over" if host not in event["sites"]:
            work.tell(f"the model is ready; waiting until {host} has it too")
        case "failed":
            if event["status"] != QuorumLost.exit_status or submission.members() is None:
                error = _ERRORS.get(event["status"], MedFedError)
                raise error(event["cause"], remedy=event["remedy"], where=event["where"])
            work.tell(f"{event['cause']}; the run goes on as soon as both parties are here")
            return True
    return False


def _resumed(done: int) -> str:
    return f", from round {done + 1} on" if done else ""


def _copy_run(run: Path, output: Path) -> None:
    """The run folder into the output; what says that it is finished comes last."""
    aside = ("checkpoint", "results.json", "model.safetensors", "wish.json", "restart", "proposal.bin", "members.json")
    shutil.copytree(run, output, ignore=shutil.ignore_patterns(*aside), dirs_exist_ok=True)
    for name in ("model.safetensors", "results.json"):
        if (run / name).exists():
            shutil.copyfile(run / name, output / name)


# ------------------------------------------------------------------------------------------------------------ the host


def _train_as_host(work: Work, output: _Output, store: ApprovalStore) -> Path:
    folder = SiteFolder.open(work.pair.site)
    kept: Keepsakes | None = None
    companion = Companion("site", work.pair.site, work.every)
    with together([companion]):
        while kept is None or not kept.model.exists():
            _check_proposals(work, store)
            kept = _kept(folder, store, work.digest)
            _show_rounds(work, kept, output)
            companion.watch()
            time.sleep(_LOOK)
        _show_rounds(work, kept, output)
        time.sleep(_LINGER)
    for name in ("task.yaml", "encoding.bin", "model.safetensors"):
        shutil.copyfile(kept.model.with_name(name), work.output / name)
    return work.output


def _kept(folder: SiteFolder, store: ApprovalStore, digest: str) -> Keepsakes | None:
    """What is kept of the run for which the last approval was used; None before the guest began it."""
    used = folder.proposals / digest / f"run-{len(store.decisions(digest))}"
    return Keepsakes(folder.models(used.read_text())) if used.exists() else None


def _show_rounds(work: Work, kept: Keepsakes | None, output: _Output) -> None:
    for position, told in kept.rounds(output.shown) if kept is not None else ():
        output.show(position)
        work.show(told.round, told.figures)


def _check_proposals(work: Work, store: ApprovalStore) -> None:
    """Raise TaskError, which names what differs, where the guest proposes another task than this party's."""
    for digest in store.filed():
        if digest != work.digest and store.status(digest, datetime.now(UTC)) is Status.WAITING:
            proposal: Proposal = store.proposal(digest)
            told = differences(resolved(work.task.spec), resolved(proposal.task_file().spec))
            raise TaskError(
                f"the guest was started with another task: {'; '.join(told)}",
                where=work.pair.here,
                remedy="give both the same task file",
            )


def differences(here: Any, there: Any, most: int = 5) -> list[str]:
    """The first places in which two tasks differ: ``federation.lr is 0.05 here and 0.1 there``."""
    found = list(_differences(here, there, ""))
    return found[:most] + ([f"and {len(found) - most} more"] if len(found) > most else [])


def _differences(here: Any, there: Any, path: str) -> Iterator[str]:
    if isinstance(here, dict) and isinstance(there, dict):
        for key in dict.fromkeys((*here, *there)):
            yield from _differences(here.get(key), there.get(key), f"{path}.{key}".lstrip("."))
    elif here != there:
        yield f"{path} is {json.dumps(here, default=str)} here and {json.dumps(there, default=str)} there"
