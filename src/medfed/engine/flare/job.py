"""A FLARE job for a run: a folder of three small files, with no code in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COORDINATOR_VARIABLE = "MEDFED_COORDINATOR"
SITE_VARIABLE = "MEDFED_SITE"
"""The environment variables that name a party's folder to the processes that its service starts."""

_TASK = "none"
"""The name of a task of FLARE's, which is never given: questions go by the post."""

CONTROLLER = "medfed.engine.flare.controller.RunController"
EXECUTOR = "medfed.engine.flare.executor.SiteExecutor"

_INTERVAL = 0.5
"""Seconds between two questions of a client whether the job goes on."""

HEARTBEAT = 1.0
"""Seconds between two signs of life of a client's process for the job, also while it computes."""


def write_job(folder: Path, run: str, least_sites: int) -> None:
    """Write the job of a run, to be given to every client that is connected, if they are so many at least."""
    config = folder / "app" / "config"
    config.mkdir(parents=True, exist_ok=True)
    _write(
        folder / "meta.json",
        {"name": run, "resource_spec": {}, "min_clients": least_sites, "deploy_map": {"app": ["@ALL"]}},
    )
    _write(
        config / "config_fed_server.json",
        {
            "format_version": 2,
            "server": {"task_request_interval": _INTERVAL},
            "workflows": [{"id": "run", "path": CONTROLLER, "args": {"run": run}}],
            "components": [],
        },
    )
    _write(
        config / "config_fed_client.json",
        {
            "format_version": 2,
            "job_heartbeat_interval": HEARTBEAT,
            "executors": [{"tasks": [_TASK], "executor": {"path": EXECUTOR, "args": {}}}],
            "components": [],
            "task_data_filters": [],
            "task_result_filters": [],
        },
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
