"""``medfed coordinator start`` and ``medfed site start``: FLARE's own process, and what MedFed does beside it.

The coordinator's service keeps every run going that is wanted: it gives FLARE a job for it, and another one where the
job ends before the run does, because a site or the server died. A site that comes back joins at the next round.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from medfed.core.errors import MedFedError, UserError
from medfed.engine.deployed.folders import CoordinatorFolder, SiteFolder
from medfed.engine.deployed.settings import LiveSettings
from medfed.engine.deployed.submission import Submission, submissions
from medfed.engine.federation import share
from medfed.engine.flare.admin import Admin
from medfed.engine.flare.guard import collect_often
from medfed.engine.flare.health import Sign, answered, pulse
from medfed.engine.flare.job import COORDINATOR_VARIABLE, SITE_VARIABLE, write_job
from medfed.engine.flare.kits import admin_kit, client_command, server_command, server_workspace
from medfed.engine.flare.process import FlareProcess, log
from medfed.engine.flare.tlskeys import reaches_coordinator
from medfed.engine.flare.watchdog import Watchdog

_EVERY = 0.5
_GRACE = 15.0
"""Seconds that a run waits for sites beyond its quorum to connect."""

_BACK_OFF = 1.0

_HEARTBEAT = "heart_beat_interval=2"
"""Seconds between two signs of life of a site's client, as FLARE's client is told."""


def serve_coordinator(path: Path) -> NoReturn:
    """Run the coordinator until SIGTERM or Ctrl-C; then leave this process: 0, or 1 where FLARE's own ended."""
    folder = CoordinatorFolder.open(path)
    workspace = server_workspace(folder.path)
    _forget_jobs(workspace)
    stopped = _stop_signal()
    server = FlareProcess(server_command(folder.path), workspace, {COORDINATOR_VARIABLE: str(folder.path)})
    log("started", party="coordinator", folder=str(folder.path))
    try:
        service = CoordinatorService(folder, Admin(admin_kit(folder.path)))
        collect_often()
        status = _watch(server, stopped, service.step, pulse(folder.path))
    finally:
        server.stop()
        log("stopped", party="coordinator")
    _leave(status)


def serve_site(path: Path) -> NoReturn:
    """Run a site until SIGTERM or Ctrl-C; then leave this process: 0, or 1 where FLARE's own ended or had to be."""
    folder = SiteFolder.open(path)
    if not (folder.flare / "startup").is_dir():
        raise UserError(
            "this site was not admitted yet",
            where=str(folder.path),
            remedy="send its request to the coordinator, then: medfed site join SIGNED.zip",
        )
    settings = LiveSettings(folder.settings)
    stopped = _stop_signal()
    command = [*client_command(folder.path), _HEARTBEAT]
    client = FlareProcess(command, folder.flare, {SITE_VARIABLE: str(folder.path)})
    log("started", party=folder.site, folder=str(folder.path))
    watchdog = Watchdog(answered(folder.path), lambda: reaches_coordinator(folder))
    watchdog.start()
    told: list[str | None] = [None]

    def step() -> None:
        if watchdog.client_is_lost:
            log("silent", cause="the coordinator is there, but does not answer FLARE's client, or turns it away")
            client.stop()
        settings.current()
        if settings.problem != told[0]:
            told[0] = settings.problem
            log("settings", problem=settings.problem)

    try:
        status = _watch(client, stopped, step, pulse(folder.path))
    finally:
        client.stop()
        log("stopped", party=folder.site)
    _leave(status)


def _watch(process: FlareProcess, stopped: threading.Event, step: Callable[[], None], sign: Sign) -> int:
    try:
        while not stopped.wait(_EVERY):
            if process.status is not None:
                log("ended", status=process.status)
                return 1
            step()
            sign.give()
    except Exception:
        log("fault", trace=traceback.format_exc())
        return 1
    finally:
        sign.end()
    return 0


def _leave(status: int) -> NoReturn:
    """Leave at once: the threads of FLARE's session with a server that has ended would never end."""
    sys.stdout.flush()
    os._exit(status)


def _stop_signal() -> threading.Event:
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopped


def _forget_jobs(workspace: Path) -> None:
    """Forget FLARE's jobs from before, which it would hold for running for ever; runs are kept elsewhere."""
    for name in ("jobs-storage", "snapshot-storage"):
        shutil.rmtree(workspace / name, ignore_errors=True)


@dataclass
class _Job:
    """FLARE's job for a run. sites: whom the run would have; present: who takes part in the job, None before it begins.

    read: how far the run's events were read. over: since when (``time.monotonic``) the run needs it no longer.
    """

    id: str
    sites: frozenset[str]
    read: int
    present: frozenset[str] | None = None
    over: float | None = None
    _begun: frozenset[str] = frozenset()

    def catch_up(self, submission: Submission) -> None:
        """Read the run's new events."""
        for read, event in submission.events(self.read):
            self.read = read
            match event["event"]:
                case "job":
                    self.present = self._begun = frozenset(event["sites"])
                case "gone":
                    self.present = self._begun - frozenset(event["sites"])
                case "paused" | "aborted" | "finished" | "failed":
                    self.over = time.monotonic()


@dataclass
class CoordinatorService:
    """Keeps wanted runs going. jobs: the FLARE job of each run. since: when a run was first seen; not_before: when it
    may get its next job; away: the sites that it was told to wait for."""

    folder: CoordinatorFolder
    admin: Admin
    jobs: dict[str, _Job] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    away: dict[str, frozenset[str]] = field(default_factory=dict)

    def step(self) -> None:
        """Look after every run once; what FLARE does not answer is asked again later."""
        wanted = {each.run: each for each in submissions(self.folder.runs)}
        try:
            connected = self.admin.connected() if wanted else frozenset()
            for run, submission in wanted.items():
                self._look_after(run, submission, connected)
            for run in self.jobs.keys() - wanted.keys():
                if self._has_ended(self.jobs[run], Submission(self.folder.runs / run)):
                    del self.jobs[run]
        except MedFedError as error:
            log("waiting", cause=error.cause, where=error.where)
            time.sleep(_BACK_OFF)

    def _look_after(self, run: str, submission: Submission, connected: frozenset[str]) -> None:
        job = self.jobs.get(run)
        if job is not None and not self._has_ended(job, submission):
            self._welcome_back(job, submission, connected)
        elif job is not None:
            del self.jobs[run]
            self.not_before[run] = time.monotonic() + _BACK_OFF
            log("job_ended", run=run, job=job.id)
        elif time.monotonic() >= self.not_before.get(run, 0.0):
            task = submission.proposal().task_file().spec
            sites = frozenset(submission.members() or task.sites)
            if self._enough(submission, sites, connected, share(task.federation.quorum, len(sites))):
                self._start(submission, sites)

    def _has_ended(self, job: _Job, submission: Submission) -> bool:
        """Whether a job has ended; one that is over is ended, since FLARE would wait for the word of a dead site."""
        job.catch_up(submission)
        if self.admin.ended(job.id):
            return True
        if job.over is None or time.monotonic() - job.over < _BACK_OFF:
            return False
        self.admin.abort(job.id)
        return True

    def _enough(self, submission: Submission, sites: frozenset[str], connected: frozenset[str], needed: int) -> bool:
        """Whether the run's sites are here: all, or after a while as many as its quorum asks for."""
        run = submission.run
        begun = self.since.setdefault(run, time.monotonic())
        away = sites - connected
        if not away:
            return True
        patient = time.monotonic() - begun < _GRACE
        if not patient and away != self.away.get(run):
            self.away[run] = away
            submission.tell("waiting", sites=sorted(away))
        return not patient and len(sites - away) >= needed

    def _start(self, submission: Submission, sites: frozenset[str]) -> None:
        run = submission.run
        self.away.pop(run, None)
        read = max((position for position, _ in submission.events()), default=0)
        with tempfile.TemporaryDirectory(prefix="medfed-job-") as place:
            job_folder = Path(place) / run
            write_job(job_folder, run, 1)
            self.jobs[run] = _Job(self.admin.submit(job_folder), sites, read)
        log("job", run=run, job=self.jobs[run].id)

    def _welcome_back(self, job: _Job, submission: Submission, connected: frozenset[str]) -> None:
        """Let the run go on as another job where a site is here that its job lacks, or has lost."""
        if job.present is None or job.over is not None:
            return
        back = (frozenset(submission.members() or job.sites) & connected) - job.present
        if back and not (submission.folder / "restart").exists():
            log("site_is_back", run=submission.run, sites=sorted(back))
            (submission.folder / "restart").touch()
