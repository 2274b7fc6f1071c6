"""Whether a party's service works, as health checks ask: a running service gives signs of life in its folder."""

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
class Sign:
    """A sign of life: a file that is touched again and again."""

    path: Path

    def give(self) -> None:
        """Give it."""
        self.path.touch()

    def end(self) -> None:
        """Show that there will be no other."""
        self.path.unlink(missing_ok=True)

    def mark(self) -> int | None:
        """What changes whenever it is given, by the clock of the disk that it is on; None where there is none."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return None

    def age(self) -> float | None:
        """Seconds since it was last given; None where there is none."""
        try:
            return time.time() - self.path.stat().st_mtime
        except OSError:
            return None


def pulse(folder: Path) -> Sign:
    """By which the service in this folder shows that it runs."""
    return Sign(folder / ".pulse")


def answered(site: Path) -> Sign:
    """By which a site's client shows that the coordinator answers it."""
    return Sign(site / ".answered")


def coordinator_health(path: Path) -> Health:
    """Whether the coordinator's service runs, and its port is listened on."""
    folder = CoordinatorFolder.open(path)
    health = _service(folder.path, "the coordinator")
    port = load_consortium(folder.path / "consortium.yaml").coordinator.port
    try:
        with socket.create_connection(("localhost", port), timeout=3):
            return health
    except OSError as error:
        return (
            Health(False, f"nothing listens on port {port} ({error.strerror or error})") if health.healthy else health
        )


def site_health(path: Path) -> Health:
    """Whether the site's service runs, and since when the coordinator has not answered it."""
    folder = SiteFolder.open(path)
    health = _service(folder.path, folder.site)
    if not health.healthy:
        return health
    silent = answered(folder.path).age()
    if silent is None:
        return Health(True, f"{health.sentence}; the coordinator has not answered it yet")
    if silent > _FRESH:
        return Health(True, f"{health.sentence}; the coordinator has not answered it for {silent:.0f} s")
    return Health(True, f"{health.sentence}, and the coordinator answers it")


def _service(folder: Path, party: str) -> Health:
    silent = pulse(folder).age()
    if silent is None:
        return Health(False, f"the service of {party} does not run")
    if silent > _FRESH:
        return Health(False, f"the service of {party} has shown no sign of life for {silent:.0f} s")
    return Health(True, f"the service of {party} runs")
