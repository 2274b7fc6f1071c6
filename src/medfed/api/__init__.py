"""MedFed from Python: run a task, step it by hand, compare strategies, predict.

::

    import medfed

    medfed.run("task.yaml")                                        # the whole run, into a folder with a report

    process = medfed.build("task.yaml")                            # or by hand
    state = process.initialize()
    state, metrics = process.next(state)

    medfed.run(task, sites={"Cleveland": frame, "VA": (features, targets)})   # sites from memory
"""

from __future__ import annotations

from medfed.api.keys import simulation_key
from medfed.api.reporting import write_report
from medfed.api.running import Silent, build, compare, new_output, resume, run
from medfed.api.tasks import Checked, FilePath, Task, check, read_task, unreadable
from medfed.api.trained import audit, evaluate, explain, explain_at_site, export, predict

__all__ = [
    "Checked",
    "FilePath",
    "Silent",
    "Task",
    "audit",
    "build",
    "check",
    "compare",
    "evaluate",
    "explain",
    "explain_at_site",
    "export",
    "new_output",
    "predict",
    "read_task",
    "resume",
    "run",
    "simulation_key",
    "unreadable",
    "write_report",
]
