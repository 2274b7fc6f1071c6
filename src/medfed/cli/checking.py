"""``medfed check``."""

from __future__ import annotations

from medfed.cli.options import Json, Settings, TaskPath, print_json


def check(task: TaskPath, settings: Settings = None, as_json: Json = False) -> None:
    """Check a task without running it: its form, and that all it names is installed and fits together.

    \b
    Examples:
      medfed check task.yaml
      medfed check task.yaml --set federation.strategy=fedprox
    """
    from medfed import api
    from medfed.spec.canonical import dump_task, task_digest

    spec = api.check(task, overrides=settings or []).spec
    if as_json:
        print_json({"valid": True, "name": spec.name, "digest": task_digest(spec)})
        return
    print(dump_task(spec), end="")
    print(f"# {task}: valid; digest {task_digest(spec)}")
