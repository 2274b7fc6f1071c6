"""Hospitals whose clocks are an hour behind and an hour ahead: they are admitted, approve and train as all others do.

The clock is shifted for everything in a process, also for OpenSSL, by libfaketime.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from consortium_in_memory import SITES, task_over
from flare_consortium import COORDINATOR, FlareConsortium, metrics, weights

from medfed import api
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.deployed.submission import Submission
from medfed.govern.approvals import ApprovalStore

libfaketime = pytest.importorskip("libfaketime")

pytestmark = pytest.mark.slow

HOUR = 3600
CLOCKS = {"west": -HOUR, "sued": HOUR}
"""Seconds by which the clocks of these are wrong."""


def by_clock(seconds: int, command: list[str]) -> list[str]:
    """The command, and all that it starts, by a clock that is wrong by so many seconds."""
    shifted = libfaketime.get_reload_information()[1] | {"FAKETIME": f"{seconds:+}"}
    return ["env", *(f"{name}={value}" for name, value in shifted.items()), *command]


def medfed(seconds: int, *arguments: str | Path) -> str:
    """What a command says, by such a clock."""
    command = by_clock(seconds, [sys.executable, "-m", "medfed", *map(str, arguments)])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def renew(consortium: FlareConsortium, site: str, seconds: int) -> None:
    """A site makes its keys and takes its certificate by its own clock, the coordinator admits it by the right one."""
    folder, coordinator = consortium.folder(site), consortium.folder(COORDINATOR)
    asked = json.loads(medfed(seconds, "site", "renew", "--folder", folder, "--json"))
    admit = ("coordinator", "admit", asked["request"], "--fingerprint", asked["fingerprint"], "--replace")
    admitted = json.loads(medfed(0, *admit, "--folder", coordinator, "--json"))
    medfed(seconds, "site", "join", admitted["answer"], "--folder", folder)


def approve(consortium: FlareConsortium, submission: Submission, site: str, seconds: int) -> None:
    """As the site's steward would, once the proposal has come over FLARE."""
    folder, digest = SiteFolder.open(consortium.folder(site)), submission.proposal().digest
    store = ApprovalStore(folder.proposals, folder.key(), folder.coordinator_key())
    until = time.monotonic() + 90
    while digest not in store.filed():
        assert time.monotonic() < until, f"the proposal did not reach {site}"
        time.sleep(0.2)
    medfed(seconds, "site", "approve", digest, "--by", "Dr. Test", "--yes", "--folder", folder.path)


def first_time(ledger: Path) -> datetime:
    """When its first entry was written, by its party's clock."""
    with ledger.open() as lines:
        return datetime.fromisoformat(json.loads(next(lines))["time"])


def forget_the_killed() -> None:
    """Remove what libfaketime shared among processes that have ended without its knowledge."""
    for shared in Path("/dev/shm").glob("*faketime_*"):
        if not Path("/proc", shared.name.rpartition("_")[2]).exists():
            shared.unlink(missing_ok=True)


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[FlareConsortium]:
    found = FlareConsortium.provision(tmp_path / "consortium")
    for site, seconds in CLOCKS.items():
        renew(found, site, seconds)
        found.services[site].command = by_clock(seconds, found.services[site].command)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        forget_the_killed()


def test_hospitals_an_hour_behind_and_ahead_train_the_bits_of_one_process(
    consortium: FlareConsortium, tmp_path: Path
) -> None:
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows")), *(SITES.keys() - CLOCKS.keys()))
    for site, seconds in CLOCKS.items():
        approve(consortium, submission, site, seconds)
    events = consortium.follow(submission, 120)
    assert events[-1]["event"] == "finished", events[-1]

    task = task_over({site: f"{site}.csv" for site in SITES})
    simulated = api.run(task, data=consortium.root / "tables", output=tmp_path / "simulated").folder.path
    assert weights(submission.folder) == weights(simulated)
    assert metrics(submission.folder) == metrics(simulated)

    findings = consortium.verified(submission)
    assert not findings.wrong
    assert {each.party for each in findings.verified if each.run == submission.run} == {COORDINATOR, *SITES}
    begun = {site: first_time(consortium.ledger(submission, site)) for site in SITES}
    for site, seconds in CLOCKS.items():
        assert abs(begun[site] - begun["nord"] - timedelta(seconds=seconds)) < timedelta(minutes=5)


def test_a_coordinator_whose_clock_was_an_hour_ahead_admits_sites_once_it_is_right(tmp_path: Path) -> None:
    consortium, coordinator, site = tmp_path / "consortium.yaml", tmp_path / "coordinator", tmp_path / "north"
    consortium.write_text("name: study\ncoordinator: {host: localhost}\nsites: {north: {}}\n")
    medfed(HOUR, "provision", consortium, "--output", coordinator)
    invitation = coordinator / "invitations" / "north.json"
    asked = json.loads(medfed(0, "site", "init", invitation, "--output", site, "--json"))
    admit = ("coordinator", "admit", asked["request"], "--fingerprint", asked["fingerprint"])
    admitted = json.loads(medfed(0, *admit, "--folder", coordinator, "--json"))
    medfed(0, "site", "join", admitted["answer"], "--folder", site)
