"""A coordinator and four hospitals as processes of their own, over FLARE with mutual TLS on loopback.

Everything goes through the folders and commands that people use; what a service manager does is here too: a service
that ended by itself is started again after a second.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consortium_in_memory import SITE_FILE, SITES, WHY, write_tables

from medfed.engine.deployed.cohorts import cohort_of
from medfed.engine.deployed.folders import CoordinatorFolder, SiteFolder
from medfed.engine.deployed.office import office_ledger
from medfed.engine.deployed.submission import Submission, Wish
from medfed.engine.deployed.submitting import submit_task
from medfed.engine.flare.provisioning import make_consortium
from medfed.govern.approvals import ApprovalStore
from medfed.govern.keys import VerifyKey
from medfed.govern.places import Trust, open_place
from medfed.govern.verify import Findings, verify_holdings
from medfed.spec.loading import TaskFile

COORDINATOR = "coordinator"
RESTART_SECONDS = 1.0


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class Service:
    """One party's ``medfed … start``."""

    party: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def wait(self, seconds: float) -> int:
        """Its exit status; killed, with all that it started, after so many seconds."""
        assert self.process is not None
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.process.kill()
        return self.process.wait()


@dataclass
class FlareConsortium:
    """The folders below ``root``, and the services; :meth:`follow` starts again those that end."""

    root: Path
    services: dict[str, Service]
    keep_away: set[str] = field(default_factory=set)
    _due: dict[str, float] = field(default_factory=dict)

    @classmethod
    def provision(cls, root: Path) -> FlareConsortium:
        port, admin_port = free_ports(2)
        make_consortium(root, list(SITES), port=port, admin_port=admin_port)
        tables = write_tables(root / "tables")
        for site, table in tables.items():
            (root / "sites" / site / "site.yaml").write_text(SITE_FILE.format(table=table))
        services = {COORDINATOR: cls._service(root, COORDINATOR, "coordinator", root / "coordinator")}
        services |= {site: cls._service(root, site, "site", root / "sites" / site) for site in SITES}
        return cls(root, services)

    @staticmethod
    def _service(root: Path, party: str, kind: str, folder: Path) -> Service:
        command = [sys.executable, "-m", "medfed", kind, "start", "--folder", str(folder)]
        return Service(party, command, root / f"{party}.log")

    # ------------------------------------------------------------------------------------------------ processes

    def start(self) -> None:
        for service in self.services.values():
            service.start()

    def look_after(self) -> None:
        """Start again what ended, as a service manager does; not those that are to stay away."""
        for party, service in self.services.items():
            if not service.ended() or party in self.keep_away:
                self._due.pop(party, None)
            elif time.monotonic() >= self._due.setdefault(party, time.monotonic() + RESTART_SECONDS):
                del self._due[party]
                service.start()

    def stop(self) -> dict[str, int]:
        """End every service that runs by SIGTERM; their exit statuses, -9 for one that took longer than 15 s."""
        running = [each for each in self.services.values() if each.process is not None and not each.ended()]
        for service in running:
            assert service.process is not None
            service.process.terminate()
        until = time.monotonic() + 15
        return {service.party: service.wait(until - time.monotonic()) for service in running}

    def processes(self, party: str | None = None) -> dict[int, str]:
        """The processes that work in this consortium's folders, or in one party's: their command lines."""
        place = str(self.root if party is None else self.folder(party))
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if place in command and int(path.parent.name) != os.getpid():
                    found[int(path.parent.name)] = command
        return found

    def processes_of(self, party: str, kind: str) -> list[int]:
        """A party's ``service``, its ``flare`` process, or its processes for a ``job``."""
        return [pid for pid, command in self.processes(party).items() if _kind(command) == kind]

    def kill(self, party: str, kind: str) -> bool:
        """kill -9 a party's ``service``, its ``flare`` process, or its process for a ``job``; whether there was one."""
        victims = self.processes_of(party, kind)
        _kill(victims)
        return bool(victims)

    def folder(self, party: str) -> Path:
        return self.root / "coordinator" if party == COORDINATOR else self.root / "sites" / party

    # ----------------------------------------------------------------------------------------------------- runs

    def submit(self, task: TaskFile, *approving: str) -> Submission:
        """Submit a task, and approve it as the stewards of these sites, or of all, would."""
        submission, _ = submit_task(self.root / "coordinator", task, Wish(), **WHY)
        proposal = submission.proposal()
        for site in approving or tuple(SITES):
            folder = SiteFolder.open(self.folder(site))
            store = ApprovalStore(folder.proposals, folder.key(), folder.coordinator_key())
            store.receive(proposal)
            cohort = cohort_of(folder.path, proposal)
            with office_ledger(folder.path) as ledger:
                store.approve(
                    proposal.digest, cohort=cohort.digest, dataset=cohort.dataset, by="Dr. Test", ledger=ledger
                )
        return submission

    def follow(
        self, submission: Submission, seconds: float, seen: Callable[[dict[str, Any]], None] = lambda event: None
    ) -> list[dict[str, Any]]:
        """Every event of a run until it ended; ``seen`` is called with each. Fails after so many seconds."""
        until, position, events = time.monotonic() + seconds, 0, []
        while time.monotonic() < until:
            self.look_after()
            for read, event in list(submission.events(position)):
                position = read
                events.append(event)
                seen(event)
                if event["event"] in ("finished", "failed"):
                    return events
            time.sleep(0.02)
        told = [{key: value for key, value in event.items() if key != "metrics"} for event in events]
        raise AssertionError(f"the run did not end in {seconds} s: {told[-8:]}\n{self._last_lines()}")

    def _last_lines(self, number: int = 12) -> str:
        """What each party's log says last."""
        logs = [service.log for service in self.services.values() if service.log.exists()]
        last = {log.stem: log.read_text(errors="replace").splitlines()[-number:] for log in logs}
        return "\n".join(f"{party}: {line[:300]}" for party, lines in last.items() for line in lines)

    # --------------------------------------------------------------------------------------------------- ledgers

    def verified(self, submission: Submission) -> Findings:
        """What the verification of all parties' ledgers of a run finds, each by the key in its own folder."""
        places = [submission.folder, *(self.folder(site) for site in SITES)]
        with ExitStack() as stack:
            opened = [stack.enter_context(open_place(place)) for place in places]
            holdings = [each for place in opened for each in place.holdings]
            return verify_holdings(holdings, Trust(self.keys()), complete=False)

    def keys(self) -> dict[str, VerifyKey]:
        found = {site: SiteFolder.open(self.folder(site)).key().verify_key for site in SITES}
        coordinator = CoordinatorFolder.open(self.folder(COORDINATOR))
        return found | {COORDINATOR: coordinator.key().verify_key}

    def ledger(self, submission: Submission, site: str) -> Path:
        """A site's ledger of a run."""
        return SiteFolder.open(self.folder(site)).ledger(submission.run) / f"{site}.jsonl"


def _kill(processes: Iterable[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _kind(command: str) -> str:
    """service, flare or job; other for what a test itself may run."""
    if "_train " in command:
        return "flare"
    if "runner_process" in command or "worker_process" in command:
        return "job"
    return "service" if " start --folder " in command else "other"


@contextmanager
def running(root: Path) -> Iterator[FlareConsortium]:
    """A consortium whose services run; all are ended behind."""
    consortium = FlareConsortium.provision(root)
    try:
        consortium.start()
        yield consortium
    finally:
        consortium.stop()
        _kill(consortium.processes())


def weights(run: Path) -> bytes:
    """A run's model file without its header, which names the task."""
    content = (run / "model.safetensors").read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def releases(ledger: Path) -> Counter[tuple[int, int, str, str]]:
    """How often each reply (round, call, step, digest) was released anew, by a site's ledger."""
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    return Counter((e["round"], e["call"], e["step"], e["digest"]) for e in entries if e["kind"] == "release")
