"""``medfed audit``."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medfed.cli.options import Json, Quiet, print_json
from medfed.core.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from medfed.attacks.results import Attack

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
_Data = Annotated[
    Path | None,
    typer.Option("--data", "-d", metavar="DIR", help="The folder with the run's rows; else the one that the run used."),
]


def audit(
    run: _Run,
    data: _Data = None,
    attacks: Annotated[
        str | None, typer.Option("--attacks", metavar="A,B", help="Some of the attacks; all if not given.")
    ] = None,
    models: Annotated[
        int | None, typer.Option("--models", metavar="N", help="Shadow models: 8, 12, 16 (the default), …")
    ] = None,
    small: Annotated[bool, typer.Option("--quick", help="A first look, with fewer models and records.")] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Write the reconstructed images too: they show training records.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Attack a finished run as a curious coordinator could, and say what was recovered.

    The attacks: inversion (records from gradients), labels, reconstruction (images from gradients), membership (LiRA),
    canary (planted records, and the epsilon that they show). The task is trained again, on the rows of a simulation; at
    a hospital, on its own rows by --data. Nothing leaves this machine. The same command goes on after Ctrl-C.

    \b
    Examples:
      medfed audit runs/heart-20260131-101500
      medfed audit runs/heart-20260131-101500 --quick --attacks membership,canary
      medfed audit ./deployed-run --data ./our-rows
    """
    from medfed import api
    from medfed.engine.audit.audit import Effort

    effort = Effort.small() if small else Effort()
    effort = effort if models is None else replace(effort, models=models)
    with _Shown(quiet=quiet or as_json) as shown:
        try:
            found = api.audit(
                run, data=data, attacks=_named(attacks), effort=effort, pictures=pictures, progress=shown.advanced
            )
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on", file=sys.stderr)
            raise
    if as_json:
        print_json(asdict(found))
    elif not quiet:
        from medfed.report.audit_findings import findings

        for one in findings(found):
            print(f"{one.title}: {one.got} (a guess: {one.guess})")
        print(f"page: {run / 'audit.html'}")


def _named(attacks: str | None) -> tuple[Attack, ...]:
    """The attacks of a list with commas, in their own order. Raises UserError for an unknown one."""
    from medfed.attacks.results import Attack

    if attacks is None:
        return tuple(Attack)
    wanted = {name.strip() for name in attacks.split(",")}
    unknown = sorted(wanted - {*Attack})
    if unknown:
        raise UserError(f"no attack is called {unknown[0]!r}", remedy=f"known: {', '.join(Attack)}")
    return tuple(attack for attack in Attack if attack in wanted)


class _Shown:
    """A bar for each attack on a terminal, and a line for each elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> _Shown:
        if not self._quiet and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advanced(self, attack: Attack, done: int, of: int) -> None:
        """Show how far an attack is."""
        if self._bar is not None:
            if attack not in self._bars:
                self._bars[attack] = self._bar.add_task(attack, total=of)
            self._bar.update(self._bars[attack], completed=done, total=of)
        elif not self._quiet and attack not in self._bars:
            self._bars[attack] = None
            print(f"{attack} …", flush=True)
