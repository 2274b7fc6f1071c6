"""``medfed check``."""

from __future__ import annotations

import sys

from medfed.cli.options import Json, Settings, TaskPath, print_json


def check(task: TaskPath, settings: Settings = None, as_json: Json = False) -> None:
    """Check a task without running it: its form, and that all it names exists and fits together.

    Prints the task with every default filled in. A part whose extra is not installed here is told, and no error.

    \b
    Examples:
      medfed check task.yaml
      medfed check task.yaml --set federation.strategy=fedprox
    """
    from medfed import api
    from medfed.spec.canonical import dump_task, task_digest

    checked = api.check(task, overrides=settings or [])
    spec = checked.task.spec
    if as_json:
        missing = [str(extra) for extra in checked.missing]
        print_json({"valid": True, "name": spec.name, "digest": task_digest(spec), "missing": missing})
        return
    print(dump_task(spec), end="")
    print(f"# {task}: valid; digest {task_digest(spec)}")
    for extra in checked.missing:
        print(f"note: to run it here, {extra}", file=sys.stderr)
