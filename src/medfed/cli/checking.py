"""``medfed check``."""

from __future__ import annotations

import sys

from medfed.cli.options import Data, Json, Settings, TaskPath, print_json

_COVERED = (
    "privacy.record covers what training releases of one row; numbers of rows, sums that standardise columns, names of "
    "categories and metrics leave without noise"
)


def check(task: TaskPath, data: Data = None, settings: Settings = None, as_json: Json = False) -> None:
    """Check a task without running it: its form, and that all it names exists and fits together.

    Prints the task with every default filled in. An extra or a site's file that is not here is told, and no error;
    what the tables hold, only a run can say.

    \b
    Examples:
      medfed check task.yaml
      medfed check task.yaml --set federation.strategy=fedprox
    """
    from medfed import api
    from medfed.spec.canonical import dump_task, task_digest

    checked = api.check(task, data=data, overrides=settings or [])
    spec = checked.task.spec
    if as_json:
        missing = [str(extra) for extra in checked.missing]
        told = {"valid": True, "name": spec.name, "digest": task_digest(spec), "missing": missing}
        print_json(told | {"warnings": list(checked.warnings)})
        return
    print(dump_task(spec), end="")
    print(f"# {task}: valid; digest {task_digest(spec)}")
    if spec.privacy.record is not None and spec.privacy.release is None:
        print(f"note: {_COVERED}", file=sys.stderr)
    for warning in checked.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for extra in checked.missing:
        print(f"note: to run it here, {extra}", file=sys.stderr)
