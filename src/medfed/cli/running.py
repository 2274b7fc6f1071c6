"""``medfed run`` and ``medfed compare``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfed.cli.options import Data, Json, Output, Quiet, Settings, TaskPath, Timed, print_json, printable
from medfed.cli.progress import Watcher, Watchers
from medfed.cli.timings import print_timings
from medfed.core.errors import UserError

if TYPE_CHECKING:
    from medfed.engine.comparison import Comparison
    from medfed.engine.outcome import Outcome

_Task = Annotated[Path | None, typer.Argument(metavar="TASK", help="The task file (YAML).")]
_From = Annotated[
    Path | None,
    typer.Option("--from", metavar="RUN", help="Begin with the model of this finished run, and its encoding of rows."),
]
_SITES_NAMED = 5
_Resume = Annotated[Path | None, typer.Option("--resume", metavar="DIR", help="Go on with the run in this folder.")]


def run(
    task: _Task = None,
    output: Output = None,
    data: Data = None,
    resume: _Resume = None,
    earlier: _From = None,
    settings: Settings = None,
    timings: Timed = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a task over its sites, simulated on this machine, and write a report.

    Every round is checkpointed: after Ctrl-C or a crash, --resume goes on to the same result, to the bit.

    \b
    Examples:
      medfed run task.yaml
      medfed run task.yaml --set federation.strategy=scaffold --set federation.lr=0.05
      medfed run task.yaml --data ./local_data --output ./my-run
      medfed run task.yaml --timings --set engine.workers=4
      medfed run --resume runs/heart-20260131-101500
      medfed run task.yaml --from runs/heart-20260131-101500
    """
    from medfed import api

    with Watcher(quiet=quiet, as_json=as_json, timings=timings) as watcher:
        if resume is not None:
            if task or output or data or settings or earlier:
                raise UserError("--resume goes on with a run as it was", remedy="give --resume DIR alone")
            outcome = resumable(lambda: api.resume(resume, observer=watcher), resume)
        elif task is not None:
            begun = [] if earlier is None else [f"model.pretrained.run={json.dumps(str(earlier.resolve()))}"]
            checked = api.read_task(task, [*begun, *(settings or [])])
            folder = output or api.new_output(checked)
            outcome = resumable(lambda: api.run(checked, data=data, output=folder, observer=watcher), folder)
        else:
            raise UserError("there is nothing to run", remedy="name a task, or --resume DIR")
    announce(outcome, quiet=quiet, as_json=as_json, timings=timings)


def compare(
    task: TaskPath,
    output: Output = None,
    data: Data = None,
    settings: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a task under several strategies on the same rows: local, pooled and federated, side by side.

    Which strategies, and what differs for one of them, stands in the task's `compare` section. The same command
    with the same --output goes on with a comparison that was interrupted.

    \b
    Examples:
      medfed compare task.yaml
      medfed compare task.yaml --set 'compare.strategies=[local, pooled, fedavg, scaffold]'
    """
    from medfed import api

    checked = api.read_task(task, settings or [])
    folder = output or api.new_output(checked)
    with Watchers(quiet=quiet, as_json=as_json) as watchers:
        try:
            comparison = api.compare(checked, data=data, output=folder, observer=watchers)
        except KeyboardInterrupt:
            print(f"\ninterrupted; go on with the same command and --output {folder}", file=sys.stderr)
            raise
    announce_comparison(comparison, quiet=quiet, as_json=as_json)


def announce(outcome: Outcome, *, quiet: bool, as_json: bool, timings: bool = False) -> None:
    """Say how a run ended and where its report is."""
    folder = outcome.folder.path
    if as_json:
        told = {"event": "finished", "folder": str(folder), "stopped_because": outcome.state.stopped}
        print_json(told | ({"timings": asdict(outcome.timings)} if timings else {}))
    elif not quiet:
        if timings:
            print_timings(outcome.timings)
        print(f"finished after {outcome.state.round} rounds: {outcome.state.stopped}")
        _warn_of_unnamed(folder)
        print(f"report: {folder / 'report.html'}")


def _warn_of_unnamed(folder: Path) -> None:
    """Say at which sites images count as patients: figures look better for it, and nothing else on the way tells."""
    from medfed.data.quality import UNNAMED

    sheets = json.loads((folder / "sheets.json").read_text(encoding="utf-8"))
    if sites := [site for site, sheet in sheets.items() if UNNAMED in sheet["warnings"]]:
        more = f" and {len(sites) - _SITES_NAMED} more" if len(sites) > _SITES_NAMED else ""
        print(printable(f"warning: {', '.join(sites[:_SITES_NAMED])}{more}: {UNNAMED}"))


def announce_comparison(comparison: Comparison, *, quiet: bool, as_json: bool) -> None:
    """Show a comparison's metrics and where its report is."""
    folder = comparison.folder
    if as_json:
        print_json({"event": "finished", "folder": str(folder), "metrics": comparison.table()})
    elif not quiet:
        print_comparison(comparison.table())
        print(f"report: {folder / 'report.html'}")


def print_comparison(table: dict[str, dict[str, float | None]]) -> None:
    """The strategies' main metrics, a row each."""
    from rich.console import Console
    from rich.table import Table

    metrics = list(next(iter(table.values())))
    shown = Table("strategy", *metrics, title="test rows of all sites")
    for strategy, values in table.items():
        shown.add_row(strategy, *("–" if v is None else f"{v:.3f}" for v in values.values()))
    Console().print(shown)


def resumable(work: Callable[[], Outcome], folder: Path) -> Outcome:
    """Do the work; when it is interrupted, say how to go on."""
    try:
        return work()
    except KeyboardInterrupt:
        if (folder / "task.yaml").exists():
            print(f"\ninterrupted; go on with: medfed run --resume {folder}", file=sys.stderr)
        raise
