"""``medfed site proposals | approve | refuse | withdraw``: a steward decides."""

from __future__ import annotations

import getpass
import re
import shutil
import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from medfed.cli.options import Json, print_json, printable
from medfed.cli.site_running import SiteFolderOption
from medfed.core.errors import MedFedError, UserError

if TYPE_CHECKING:
    from medfed.engine.deployed.folders import SiteFolder
    from medfed.govern.approvals import ApprovalStore
    from medfed.govern.decisions import Decision
    from medfed.govern.explanation import Passage
    from medfed.govern.proposals import Proposal

_Digest: TypeAlias = Annotated[
    str, typer.Argument(metavar="DIGEST", help="The task's digest, or its first characters (6 at least).")
]
_Reason: TypeAlias = Annotated[str, typer.Option("--reason", help="Why; the coordinator is told.")]
_By: TypeAlias = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides.")]

_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_WIDEST = 100
_LONGEST_ROW = 160


def proposals(folder: SiteFolderOption = Path(), as_json: Json = False) -> None:
    """List the tasks that were proposed to this site, and how each stands; --json has each whole task in it.

    \b
    Examples:
      medfed site proposals
      medfed site proposals --folder /srv/medfed/north --json
    """
    store = _store(_site(folder))
    problems = []
    for digest in store.filed():
        try:
            row = _row(store, digest)
        except MedFedError as problem:
            problems.append(problem)
            row = {"digest": digest, "status": "unreadable"}
        _print_row(row, as_json=as_json)
    if problems:
        raise problems[0]
    if not store.filed() and not as_json:
        print("nothing was proposed yet")


def approve(
    digest: _Digest,
    by: _By = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="DATE", help="The last day; else that of the ethics board's approval."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation; needs --by.")] = False,
    folder: SiteFolderOption = Path(),
) -> None:
    """Show what would leave this hospital and under which protection; then approve it for the rows as they are now.

    Nothing of a task runs before it is approved, after its last day, or once a row of the dataset has changed.

    \b
    Examples:
      medfed site approve 3f2a9c
      medfed site approve 3f2a9c --by "Dr. A. Stern" --expires 2027-06-30 --yes
    """
    from medfed.engine.deployed.cohorts import cohort_of
    from medfed.engine.deployed.office import office_ledger
    from medfed.engine.deployed.partners import partners
    from medfed.govern.explanation import explain
    from medfed.spec.site import load_site

    if yes and by is None:
        raise UserError("an approval bears a steward's name", remedy="give it by --by NAME, or leave out --yes")
    site = _site(folder)
    store = _store(site)
    proposal = store.proposal(_chosen(store, digest))
    _check_installed(proposal)
    cohort = cohort_of(site.path, proposal)
    policy = load_site(site.settings).policy
    _print_passages(explain(proposal, site=site.site, policy=policy, cohort=cohort))
    task = proposal.task_file().spec
    if task.privacy.hides_parts:
        _print_passages([partners(site, proposal.digest, task)])
    name = by or typer.prompt("Your name")
    if not (yes or typer.confirm(f"Approve task {proposal.digest[:12]}?")):
        print("nothing was decided")
        return
    with office_ledger(site.path) as ledger:
        decision = store.approve(
            proposal.digest, cohort=cohort.digest, dataset=cohort.dataset, by=name, expires=expires, ledger=ledger
        )
    print(printable(f"approved by {decision.by} until {decision.expires}: task {proposal.digest[:12]}"))


def refuse(digest: _Digest, reason: _Reason, by: _By = None, folder: SiteFolderOption = Path()) -> None:
    """Refuse a task.

    \b
    Examples:
      medfed site refuse 3f2a9c --reason "the ethics board has not decided"
    """
    site = _site(folder)
    store = _store(site)
    decision = store.refuse(_chosen(store, digest), by=by or _user(), reason=reason)
    print(f"refused: task {decision.digest[:12]}")
    _record(site, decision)


def withdraw(digest: _Digest, reason: _Reason, by: _By = None, folder: SiteFolderOption = Path()) -> None:
    """Take back an approval. It takes effect at the next request, also in the middle of a run.

    What left before cannot be called back.

    \b
    Examples:
      medfed site withdraw 3f2a9c --reason "a patient objected"
    """
    site = _site(folder)
    store = _store(site)
    decision = store.withdraw(_chosen(store, digest), by=by or _user(), reason=reason)
    print(f"withdrawn: nothing more of task {decision.digest[:12]} runs here")
    _record(site, decision)


def _site(folder: Path) -> SiteFolder:
    from medfed.engine.deployed.folders import SiteFolder

    return SiteFolder.open(folder)


def _store(site: SiteFolder) -> ApprovalStore:
    from medfed.govern.approvals import ApprovalStore

    return ApprovalStore(site.proposals, site.key(), site.coordinator_key())


def _chosen(store: ApprovalStore, prefix: str) -> str:
    """The only proposed task whose digest begins so."""
    if not _PREFIX.fullmatch(prefix):
        raise UserError(f"{prefix!r} is not the beginning of a digest", remedy="take it from: medfed site proposals")
    found = [digest for digest in store.filed() if digest.startswith(prefix)]
    if not found:
        raise UserError(f"no task was proposed whose digest begins with {prefix}", remedy="see: medfed site proposals")
    if len(found) > 1:
        raise UserError(f"{len(found)} tasks begin with {prefix}", remedy=f"give one in full: {', '.join(found)}")
    return found[0]


def _check_installed(proposal: Proposal) -> None:
    """Raise Refused unless the proposal says what the software of this site would release."""
    from medfed.core.steps import installed_step
    from medfed.engine.strategies import resolve_strategy
    from medfed.govern.proposals import check_releases

    task = proposal.task_file()
    steps = resolve_strategy(task, sorted(task.spec.sites)).steps
    check_releases(proposal, [installed_step(name) for name in steps])


def _record(site: SiteFolder, decision: Decision) -> None:
    """Put a decision that already counts into the ledger."""
    from medfed.engine.deployed.office import office_ledger

    with office_ledger(site.path) as ledger:
        ledger.append(decision.entry())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise UserError("a decision bears a name", remedy="give it by --by NAME") from None


def _row(store: ApprovalStore, digest: str) -> dict[str, Any]:
    """What the list says of a task; ``expires`` is the last day on which it may run, or could."""
    proposal, decisions = store.proposal(digest), store.decisions(digest)
    last = decisions[-1] if decisions else None
    return {
        "digest": digest,
        "name": proposal.task_file().spec.name,
        "purpose": proposal.purpose,
        "legal_basis": proposal.legal_basis,
        "ethics_id": proposal.ethics_id,
        "proposed": proposal.proposed,
        "task": proposal.task,
        "status": store.status(digest, datetime.now(UTC)).value,
        "expires": (last.expires if last else "") or proposal.ethics_expires,
        "by": last.by if last else None,
        "reason": last.reason if last else None,
    }


def _print_row(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({key: printable(value) if isinstance(value, str) else value for key, value in row.items()})
        return
    about = f"  until {row['expires']}  {row['name']}: {' '.join(row['purpose'].split())}" if "name" in row else ""
    print(printable(f"{row['digest'][:12]}  {row['status']:<10}{about}"[:_LONGEST_ROW]))


def _print_passages(passages: Iterable[Passage]) -> None:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    for passage in passages:
        print(passage.heading)
        for paragraph in passage.paragraphs:
            print(textwrap.fill(printable(paragraph), width, initial_indent="  - ", subsequent_indent="    "))
        print()
