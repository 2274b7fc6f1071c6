"""``medfed coordinator start | status`` and ``medfed submit``."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from medfed.cli.options import Json, Quiet, Settings, print_json, printable
from medfed.core.errors import MedFedError, QuorumLost, Refused, UserError

if TYPE_CHECKING:
    from medfed.engine.deployed.submission import Submission

CoordinatorFolderOption: TypeAlias = Annotated[
    Path, typer.Option("--folder", metavar="COORD", envvar="MEDFED_COORDINATOR", help="The coordinator's folder.")
]

_LOOK = 0.2


def start(folder: CoordinatorFolderOption = Path()) -> None:
    """Run the coordinator, in the foreground, until SIGTERM or Ctrl-C.

    It listens for the sites, and keeps every submitted run going: after a crash of its own or of a site, a run goes on
    from its last checkpoint. It logs JSON lines.

    \b
    Examples:
      medfed coordinator start
      medfed coordinator start --folder /srv/medfed/coordinator
    """
    from medfed.engine.flare.service import serve_coordinator

    raise typer.Exit(serve_coordinator(folder))


def status(folder: CoordinatorFolderOption = Path(), as_json: Json = False) -> None:
    """Say whether the coordinator listens; exit 0 if it does, 1 if not.

    \b
    Examples:
      medfed coordinator status --json
    """
    from medfed.engine.flare.health import coordinator_health

    health = coordinator_health(folder)
    print_json(asdict(health)) if as_json else print(health.sentence)
    raise typer.Exit(0 if health.healthy else 1)


def submit(
    task: Annotated[Path | None, typer.Argument(metavar="TASK", help="The task file (YAML).")] = None,
    purpose: Annotated[str, typer.Option("--purpose", help="What it is for, as the stewards will read it.")] = "",
    legal_basis: Annotated[str, typer.Option("--legal-basis", help="The legal basis: an article, a consent.")] = "",
    ethics_id: Annotated[str, typer.Option("--ethics-id", help="The ethics board's approval.")] = "",
    ethics_expires: Annotated[
        str, typer.Option("--ethics-expires", metavar="DATE", help="Its last day: 2027-12-31.")
    ] = "",
    folder: CoordinatorFolderOption = Path(),
    propose_only: Annotated[
        bool, typer.Option("--propose-only", help="Propose it to the sites; do not train.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run that stopped; its id.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option("--wait", min=0.0, metavar="SECONDS", help="Wait so long for approvals; else until Ctrl-C."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Submit it and come back at once.")] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Propose a task to the hospitals' stewards, and train once they have approved.

    The run goes on in the coordinator's service: Ctrl-C only stops watching it.

    \b
    Examples:
      medfed submit task.yaml --purpose 'Mortality after cardiac surgery' --legal-basis 'GDPR Art. 9(2)(j)' \\
                    --ethics-id 2026-114 --ethics-expires 2027-12-31
      medfed submit --resume 5f1c…            (the run's id, as submit printed it)
    """
    from medfed.engine.deployed.submission import Wish
    from medfed.engine.deployed.submitting import resubmit, submit_task

    wish = Wish(propose_only, wait)
    if resume is not None:
        if task is not None:
            raise UserError("--resume goes on with a run as it was", remedy="give --resume RUN alone")
        submission, after = resubmit(folder, resume, wish)
    elif task is not None:
        from medfed import api

        checked = api.read_task(task, settings or [])
        submission, after = submit_task(folder, checked, wish, purpose, legal_basis, ethics_id, _date(ethics_expires))
    else:
        raise UserError("there is nothing to submit", remedy="name a task, or --resume RUN")
    if as_json:
        print_json({"event": "submitted", "run": submission.run, "folder": str(submission.folder)})
    elif not quiet:
        print(f"run {submission.run}, in {submission.folder}")
    if not detach:
        _follow(submission, after, quiet=quiet, as_json=as_json)


def _date(text: str) -> str:
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise UserError("this is not a date", where="--ethics-expires", remedy="write 2027-12-31") from None


def _follow(submission: Submission, after: int, *, quiet: bool, as_json: bool) -> None:
    """Show a run's events until it ends."""
    try:
        while True:
            for after, event in submission.events(after):  # noqa: B007, B020, PLR1704 - it goes on from there
                if as_json:
                    print_json(event)
                elif not quiet and (line := event_line(event)):
                    print(printable(line), flush=True)
                match event["event"]:
                    case "finished":
                        _finish(submission, quiet=quiet, as_json=as_json)
                        return
                    case "proposed":
                        return
                    case "failed":
                        raise _error(event)
            time.sleep(_LOOK)
    except KeyboardInterrupt:
        print(f"\nthe run goes on; to watch it: medfed submit --resume {submission.run}", file=sys.stderr)
        raise


def event_line(event: dict[str, Any]) -> str:
    """An event as people read it; empty for one that they need not see."""
    match event["event"]:
        case "standing" | "proposed":
            return "; ".join(f"{site}: {status}" for site, status in sorted(event["sites"].items()))
        case "begun":
            again = f", from round {event['round'] + 1} on" if event["round"] else ""
            return f"{event['strategy']}: {len(event['sites'])} sites, {event['rounds']} rounds{again}"
        case "round":
            shown = [m for m in event["metrics"] if m["metric"] in ("loss", "accuracy", "rmse", "dice")]
            by_site: dict[str, list[str]] = {}
            for m in shown:
                value = "withheld" if m["value"] is None else f"{m['value']:.3f}"
                by_site.setdefault(m["site"], []).append(f"{m['metric']} {value}")
            metrics = " - ".join(f"{site} {', '.join(values)}" for site, values in by_site.items())
            absent = "".join(
                f"\n  {a['site']} did not take part in {a['step']}: {a['sentence']}" for a in event["absent"]
            )
            return f"round {event['round']}: {metrics}{absent}"
        case "waiting":
            return f"waiting for {', '.join(event['sites'])} to connect"
        case "gone":
            return f"{', '.join(event['sites'])} went away in the middle of a round" if "sites" in event else ""
        case "paused" | "aborted":
            return "the run pauses and goes on with all sites that are connected"
    return ""


def _finish(submission: Submission, *, quiet: bool, as_json: bool) -> None:
    from medfed import api

    report = api.write_report(submission.folder)
    if not quiet and not as_json:
        print(f"report: {report}")


def _error(event: dict[str, Any]) -> MedFedError:
    kinds: dict[int, type[MedFedError]] = {2: UserError, 3: Refused, 4: QuorumLost}
    kind = kinds.get(event["status"], MedFedError)
    return kind(event["cause"], remedy=event["remedy"], where=event["where"])
