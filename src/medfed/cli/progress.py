"""What a person sees while a run trains: a line a round, and a bar where there is a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from medfed.cli.options import print_json, printable
from medfed.cli.timings import seconds_since_start
from medfed.core.disclosure import WITHHELD

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from medfed.engine.process import Process, RoundMetrics, Row, RunState
    from medfed.spec.task import TaskSpec

_SITES_SHOWN = 8
_TOTALS = {
    "clear": "totals are in the clear",
    "secure": "each site's part in a total is masked",
    "encrypted": "each site's part in a total is encrypted",
}
_SHOWN = {"classification": ("loss", "accuracy"), "regression": ("loss", "rmse"), "segmentation": ("loss", "dice")}
_SHORT = {"accuracy": "Acc", "rmse": "RMSE"}


class Watcher:
    """Prints a run's rounds as people read them, or as JSON lines; the bar shows only on a terminal."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False, label: str = "", timings: bool = False) -> None:
        self._timings = timings
        self._quiet = quiet
        self._json = as_json
        self._label = label
        self._bar: Bar | None = None
        self._task: TaskSpec | None = None
        self._bar_id: Any = None

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begun(self, process: Process, state: RunState) -> None:
        """Say who takes part, and under which policies."""
        self._task = process.task
        total = process.task.federation.total_rounds
        if self._json:
            print_json({"event": "begun", "strategy": process.task.federation.strategy.name, "rounds": total})
        elif not self._quiet:
            for line in self._introduction(process, state):
                self._print(line)
            if sys.stdout.isatty():
                self._start_bar(total, state.round)

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        """One line for the round; sites that did not answer get a line each."""
        if self._json:
            print_json({"event": "round", "round": state.round, "metrics": [_as_json(row) for row in metrics.rows]})
        elif not self._quiet:
            self._print(round_line(metrics, self._spec, state.round) if metrics.rows else None)
            for absence in metrics.absences:
                self._print(f"  {absence.site} did not take part in {absence.step}: {absence.sentence}")
        if self._timings and not self._quiet:
            self._timings, seconds = False, seconds_since_start()
            if self._json:
                print_json({"event": "first_round", "seconds": round(seconds, 3)})
            else:
                self._print(f"first round done {seconds:.2f} s after the start")
        if self._bar is not None:
            self._bar.update(self._bar_id, completed=state.round)

    @property
    def _spec(self) -> TaskSpec:
        assert self._task is not None  # noqa: S101 - a run begins before it advances
        return self._task

    def _introduction(self, process: Process, state: RunState) -> list[str]:
        from medfed.engine.wholesite import cost_in_words

        spec, sites = process.task, process.federation.sites
        name = self._label or spec.federation.strategy.name
        parameters = sum(len(weights) for weights in process.weights(state).values())
        resumed = f", resumed after round {state.round}" if state.round else ""
        return [
            f"{spec.name}: {name}, {spec.model.name} ({parameters:,} parameters) at {len(sites)} sites{resumed}",
            f"simulation on this machine: {_TOTALS[spec.privacy.aggregation]}, and a site without a policy file allows "
            "everything",
            *(f"warning: {warning}" for warning in cost_in_words(spec, len(sites), parameters)),
        ]

    def _start_bar(self, total: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, transient=True)
        self._bar_id = self._bar.add_task(self._label or "training", total=total, completed=done)
        self._bar.start()

    def _print(self, line: str | None) -> None:
        if line is None:
            return
        line = printable(line)
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)


class Watchers:
    """A watcher for each strategy of a comparison; a terminal shows one bar at a time."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self._quiet = quiet
        self._json = as_json
        self._current: Watcher | None = None

    def __enter__(self) -> Watchers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._current is not None:
            self._current.__exit__()

    def __call__(self, strategy: str) -> Watcher:
        """The watcher of the next strategy; the one before it takes its bar away."""
        self.__exit__()
        self._current = Watcher(quiet=self._quiet, as_json=self._json, label=strategy)
        return self._current


def round_line(metrics: RoundMetrics, spec: TaskSpec, number: int) -> str:
    """``Epoch 10/50 - Cleveland Loss: 0.215 | Acc: 89.2% - … - Federated Loss: 0.206 | Acc: 89.8%``."""
    shown = _SHOWN[spec.task_type]
    sites = list(dict.fromkeys(row.site for row in metrics.rows if row.split != "external"))
    outside = dict.fromkeys(row.site for row in metrics.rows if row.split == "external")
    parts = [f"{'Epoch' if spec.federation.counts_epochs else 'Round'} {number}/{spec.federation.total_rounds}"]
    if len(sites) - 1 > _SITES_SHOWN:
        parts.append(f"{len(sites) - 1} sites")
        sites = sites[-1:]
    for site in (*sites, *outside):
        values = [row for metric in shown for row in metrics.rows if row.site == site and row.measure.metric == metric]
        title = "Federated" if site == "federated" else f"(held out) {site}" if site in outside else site
        parts.append(f"{title} {' | '.join(f'{_title(row)}: {_value(row)}' for row in values)}")
    return " - ".join(parts)


def _title(row: Row) -> str:
    return _SHORT.get(row.measure.metric, row.measure.metric.capitalize())


def _value(row: Row) -> str:
    value = row.measure.value
    if value is None:
        return WITHHELD if row.measure.reason == WITHHELD else "–"
    return f"{value:.1%}" if row.measure.metric == "accuracy" else f"{value:.3f}"


def _as_json(row: Row) -> dict[str, Any]:
    from medfed.engine.folder import measured

    return {"site": row.site, "split": row.split, **measured(row)}
