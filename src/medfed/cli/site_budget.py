"""``medfed site budget``: what each dataset's privacy budget has left, and which task spent what."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfed.cli.options import Json, print_json, printable
from medfed.cli.site_running import SiteFolderOption
from medfed.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medfed.engine.deployed.spent import DatasetSpent

_WIDTH = 40
_LONGEST_NAME = 40


def budget(
    folder: SiteFolderOption = Path(),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="Draw it into a picture, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what each dataset has spent of its privacy budget (epsilon in site.yaml), what is left, and by which task.

    A task's epsilon is that of its own steps alone; together they cost less than their sum.

    \b
    Examples:
      medfed site budget
      medfed site budget --folder /srv/medfed/north --json
      medfed site budget --output budget.png
    """
    from medfed.engine.deployed.spent import budgets

    if output is not None and output.suffix.lower() != ".png":
        raise UserError("the picture is a PNG file", where=str(output), remedy="give it a name such as budget.png")
    found = budgets(folder)
    for each in found:
        if as_json:
            print_json(asdict(each))
        else:
            _show(each)
    if not found and not as_json:
        print("site.yaml declares no dataset, and nothing was spent yet")
    if output is not None:
        _draw(found, output)


def _show(each: DatasetSpent) -> None:
    from rich.bar import Bar
    from rich.console import Console

    limit = f"of epsilon {each.limit:g}" if each.limit is not None else "(the policy sets no epsilon)"
    left = f"; {each.left:.3f} left" if each.left is not None else ""
    print(printable(f"{each.dataset}: {each.spent:.3f} spent {limit} at delta {each.delta:g}{left}"))
    whole = max(each.limit or 0.0, each.spent)
    if whole > 0:
        Console().print("  ", Bar(whole, 0, each.spent, width=_WIDTH, color="red", bgcolor="green"), sep="", end="")
    for task in each.tasks:
        name = printable(task.title)[:_LONGEST_NAME]
        print(
            f"  {task.epsilon:8.3f}  {name} ({task.task[:12]}): {task.runs} run{'s' * (task.runs != 1)}, "
            f"{task.requests} request{'s' * (task.requests != 1)}, {task.steps} noisy steps or releases"
            + (f"; {task.site_epsilon:.3f} for the site as a whole" if task.site_epsilon else "")
        )


def _draw(found: Sequence[DatasetSpent], path: Path) -> None:
    """A bar a dataset: what is spent, and its limit. Raises UserError where the file cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.4 + 0.5 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(found))
    axes.barh(places, [each.spent for each in found], height=0.5, color="#b2182b", label="spent")
    limits = [each.limit for each in found]
    for place, limit in zip(places, limits, strict=True):
        if limit is not None:
            axes.plot([limit, limit], [place - 0.35, place + 0.35], color="black", linewidth=2)
    axes.set_yticks(places, [printable(each.dataset).replace("$", r"\$") for each in found])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    delta = found[0].delta if found else 1e-5
    axes.set_xlabel(f"epsilon at delta {delta:g}; black: the policy's limit")
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise UserError(f"the picture cannot be written ({error.strerror})", where=str(path)) from error
