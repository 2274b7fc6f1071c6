"""A hospital is revoked, by the command, in the middle of a run over FLARE: from then on it gives and gets nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from consortium_in_memory import SITES, task_over
from flare_consortium import COORDINATOR, FlareConsortium, running

from medfed.core.errors import MedFedError
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.flare.admin import Admin
from medfed.engine.flare.kits import admin_kit
from medfed.spec.loading import TaskFile, task_of

pytestmark = pytest.mark.slow

REVOKED = "west"
ROUNDS = 100
UNDER_WAY = timedelta(seconds=2)
"""What was asked before the revocation may still be answered, to deaf ears, for as long as this."""


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlareConsortium]:
    with running(tmp_path_factory.mktemp("consortium")) as found:
        yield found


def named(name: str, **federation: object) -> TaskFile:
    """The task of the four hospitals under another name: an approval is for one run."""
    return task_of(task_over(dict.fromkeys(SITES, "rows"), **federation).document.data | {"name": name})


def medfed(consortium: FlareConsortium, party: str, *arguments: str) -> str:
    """What a command of a party's people says."""
    command = [sys.executable, "-m", "medfed", *arguments, "--folder", consortium.folder(party)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def entries(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def test_a_site_that_is_revoked_in_the_middle_of_a_run_gives_and_gets_nothing_more(
    consortium: FlareConsortium,
) -> None:
    submission = consortium.submit(named("one is revoked", rounds=ROUNDS, quorum=0.75))
    ledger = consortium.ledger(submission, REVOKED)
    absences, held = [], []

    def strike(event: dict[str, Any]) -> None:
        if event["event"] != "round":
            return
        if event["round"] == 3:
            medfed(consortium, COORDINATOR, "coordinator", "revoke", REVOKED, "--reason", "a laptop was stolen")
        for absent in event["absent"]:
            absences.append((event["round"], absent["site"], absent["sentence"]))
            held.append(len(entries(ledger)))

    events = consortium.follow(submission, 150, strike)
    assert events[-1]["event"] == "finished", events[-1]

    assert {site for _, site, _ in absences} == {REVOKED}
    first = min(number for number, *_ in absences)
    assert {number for number, *_ in absences} == set(range(first, ROUNDS + 1))
    assert all("revoked (a laptop was stolen)" in sentence for _, _, sentence in absences[1:]), absences[:3]

    at = datetime.fromtimestamp((consortium.folder(COORDINATOR) / "revoked.json").stat().st_mtime).astimezone()
    told = entries(ledger)
    after = [entry for entry in told if datetime.fromisoformat(entry["time"]) > at + UNDER_WAY]
    assert not after, after
    assert {entry["round"] for entry in told if entry["kind"] == "release"} <= set(range(first + 1))
    assert held[0] == held[-1] == len(told)

    handed = [set(event["sites"]) for event in events if event["event"] == "handed_over"]
    assert handed == [SITES.keys() - {REVOKED}]
    models = SiteFolder.open(consortium.folder(REVOKED)).path / "models"
    assert not list(models.glob("*/model.safetensors"))
    assert not consortium.verified(submission).wrong


def test_once_it_is_restored_it_takes_part_again(consortium: FlareConsortium) -> None:
    medfed(consortium, COORDINATOR, "coordinator", "restore", REVOKED)
    submission = consortium.submit(named("all again", rounds=2, quorum=1.0))
    events = consortium.follow(submission, 150)
    assert events[-1]["event"] == "finished", events[-1]
    assert not [absent for event in events if event["event"] == "round" for absent in event["absent"]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of FLARE's own sockets
def test_a_connection_by_a_certificate_that_was_replaced_is_cut(consortium: FlareConsortium) -> None:
    admin = Admin(admin_kit(consortium.folder(COORDINATOR)))

    def connected(*sites: str, seconds: float = 60) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(MedFedError):
                if admin.connected() == frozenset(sites):
                    return True
            time.sleep(0.5)
        return False

    try:
        assert connected(*SITES)
        asked = json.loads(medfed(consortium, REVOKED, "site", "renew", "--json"))
        admit = ("coordinator", "admit", asked["request"], "--fingerprint", asked["fingerprint"], "--replace", "--json")
        answer = json.loads(medfed(consortium, COORDINATOR, *admit))["answer"]
        assert connected(*(SITES.keys() - {REVOKED}), seconds=20)
        medfed(consortium, REVOKED, "site", "join", answer)
        consortium.kill(REVOKED, "service")
        consortium.services[REVOKED].wait(20)
        consortium.services[REVOKED].start()
        assert connected(*SITES)
    finally:
        admin.close()
