"""``medfed submit``: from a task to a proposal that the coordinator signed, in a run folder that its service finds."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

from medfed.core.errors import RunFolderError, UserError
from medfed.core.steps import installed_step
from medfed.engine.assembly import check_parts
from medfed.engine.deployed.folders import CoordinatorFolder
from medfed.engine.deployed.submission import Submission, Wish
from medfed.engine.folder import Origin, RunFolder
from medfed.engine.teacher import resolve_sources
from medfed.govern.proposals import Proposal
from medfed.spec.canonical import dump_task
from medfed.spec.consortium import load_consortium
from medfed.spec.loading import TaskFile


def submit_task(
    path: Path,
    task: TaskFile,
    wish: Wish,
    purpose: str,
    legal_basis: str,
    ethics_id: str,
    ethics_expires: str,
) -> tuple[Submission, int]:
    """Begin a run of a task. Returns it, and the position after which its events are new.

    Raises TaskError or UserError for a task that cannot run over this consortium, or a proposal that is not complete.
    """
    folder = CoordinatorFolder.open(path)
    consortium = load_consortium(folder.path / "consortium.yaml")
    sites = tuple(sorted(task.spec.sites))
    unknown = [site for site in sites if site not in consortium.sites]
    if not sites or unknown:
        cause = f"the consortium has no site called {unknown[0]!r}" if unknown else "the task names no sites"
        raise task.error("sites", cause=cause, remedy=f"name some of: {', '.join(sorted(consortium.sites))}")
    if task.spec.federation.strategy.name == "pooled":
        raise task.error("federation", "strategy", cause="rows are pooled in a simulation only", remedy="use fedavg")
    given = {"purpose": purpose, "legal-basis": legal_basis, "ethics-id": ethics_id, "ethics-expires": ethics_expires}
    if missing := [name for name, value in given.items() if not value.strip()]:
        raise UserError(
            f"a steward decides on what a proposal says, and it does not say: {', '.join(missing)}",
            remedy=f"add {' … '.join(f'--{name}' for name in missing)} …",
        )
    task, sources = resolve_sources(task)
    strategy = check_parts(task, sites)
    proposal = Proposal.sign(
        folder.key(),
        task.spec,
        [installed_step(name) for name in strategy.steps],
        purpose=purpose,
        legal_basis=legal_basis,
        ethics_id=ethics_id,
        ethics_expires=ethics_expires,
    )
    run = uuid.uuid4().hex
    origin = Origin(run, "", datetime.now(UTC).isoformat(timespec="seconds"))
    RunFolder.create(folder.runs / run, dump_task(task.spec), origin, sources)
    submission = Submission(folder.runs / run)
    submission.begin(proposal, wish)
    return submission, 0


def resubmit(path: Path, run: str, wish: Wish) -> tuple[Submission, int]:
    """Ask for a run to go on, or only watch it where it does. Raises RunFolderError: there is none, or it ended."""
    folder = CoordinatorFolder.open(path)
    found = sorted(each for each in folder.runs.glob(f"{run}*") if each.is_dir()) if run.isalnum() else []
    if len(found) != 1:
        raise RunFolderError(f"{len(found)} runs have an id that begins so", where=run, remedy="give the whole id")
    submission = Submission(found[0])
    if RunFolder.open(submission.folder).finished:
        raise RunFolderError("this run is finished", where=run, remedy=f"read {submission.folder / 'report.html'}")
    after = max((position for position, _ in submission.events()), default=0)
    if not submission.wanted:
        submission.ask(wish)
    return submission, after
