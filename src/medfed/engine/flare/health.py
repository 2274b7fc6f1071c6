"""Whether a party's service works, as health checks ask: a running service touches a file in its folder."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from medfed.engine.deployed.folders import CoordinatorFolder, SiteFolder
from medfed.spec.consortium import load_consortium

_FRESH = 30.0
"""Seconds after which a service that has not touched its file counts as hanging: FLARE may be slow to answer it."""


@dataclass(frozen=True)
class Health:
    """Whether a service works, and a sentence that says so."""

    healthy: bool
    sentence: str


@dataclass(frozen=True)
class Pulse:
    """The file by which a service in this folder shows that it runs."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / ".pulse"

    def beat(self) -> None:
        """Show that the service runs."""
        self.path.touch()

    def stop(self) -> None:
        """Show that it has ended."""
        self.path.unlink(missing_ok=True)

    def health(self, party: str) -> Health:
        """What the file says."""
        try:
            silent = time.time() - self.path.stat().st_mtime
        except OSError:
            return Health(False, f"the service of {party} does not run")
        if silent > _FRESH:
            return Health(False, f"the service of {party} has shown no sign of life for {silent:.0f} s")
        return Health(True, f"the service of {party} runs")


def coordinator_health(path: Path) -> Health:
    """Whether the coordinator's service runs, and its port is listened on."""
    folder = CoordinatorFolder.open(path)
    health = Pulse(folder.path).health("the coordinator")
    port = load_consortium(folder.path / "consortium.yaml").coordinator.port
    try:
        with socket.create_connection(("localhost", port), timeout=3):
            return health
    except OSError as error:
        return (
            Health(False, f"nothing listens on port {port} ({error.strerror or error})") if health.healthy else health
        )


def site_health(path: Path) -> Health:
    """Whether the site's service runs."""
    folder = SiteFolder.open(path)
    return Pulse(folder.path).health(folder.site)
