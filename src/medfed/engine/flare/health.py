"""Whether a party's service works, as health checks ask."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from medfed.engine.deployed.folders import CoordinatorFolder, SiteFolder
from medfed.spec.consortium import load_consortium


@dataclass(frozen=True)
class Health:
    """Whether a service works, and a sentence that says so."""

    healthy: bool
    sentence: str


def coordinator_health(path: Path) -> Health:
    """Whether the coordinator listens on its port."""
    folder = CoordinatorFolder.open(path)
    port = load_consortium(folder.path / "consortium.yaml").coordinator.port
    try:
        with socket.create_connection(("localhost", port), timeout=3):
            return Health(True, f"the coordinator listens on port {port}")
    except OSError as error:
        return Health(False, f"nothing listens on port {port} ({error.strerror or error})")


def site_health(path: Path) -> Health:
    """Whether the site's service runs: FLARE's process of this folder is there."""
    folder = SiteFolder.open(path)
    try:
        process = int((folder.flare / "pid.fl").read_text())
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except (OSError, ValueError):
        return Health(False, "the site's service does not run")
    running = str(folder.flare).encode() in command
    return Health(running, "the site's service runs" if running else "the site's service does not run")
