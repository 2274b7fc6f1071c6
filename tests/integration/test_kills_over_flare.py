"""Whoever is killed, and whenever: a run over FLARE ends with the bits of an uninterrupted one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from consortium_in_memory import SITES, task_over
from flare_consortium import COORDINATOR, FlareConsortium, metrics, releases, running, weights

from medfed import api
from medfed.spec.loading import task_of

ROUNDS = 8
KINDS = ("service", "flare", "job")


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlareConsortium]:
    with running(tmp_path_factory.mktemp("consortium")) as found:
        yield found


@pytest.fixture(scope="module")
def uninterrupted(consortium: FlareConsortium) -> Path:
    """The run folder of the same training in one process."""
    task = task_over({site: f"{site}.csv" for site in SITES}, rounds=ROUNDS, quorum=1.0)
    return api.run(task, data=consortium.root / "tables", output=consortium.root / "simulated").folder.path


@dataclass(frozen=True)
class Kill:
    """Which of a party's processes is killed, and when: so long after a round, or after the job began (-1)."""

    party: str
    kind: str
    round: int
    seconds: float

    @classmethod
    def drawn(cls, seed: int, party: str, kind: str) -> Kill:
        draw = random.Random(seed)
        after = draw.randrange(-1, ROUNDS)
        return cls(party or draw.choice(list(SITES)), kind, after, draw.uniform(0, 2.0 if after < 0 else 0.3))

    def due(self, event: dict[str, Any]) -> bool:
        """Whether the moment is counted from this event."""
        names = {-1: "job", 0: "begun"}
        return bool(event["event"] == names.get(self.round, "round") and event.get("round", 0) == max(self.round, 0))


def run_and_kill(consortium: FlareConsortium, uninterrupted: Path, kill: Kill, name: str) -> None:
    task = task_over(dict.fromkeys(SITES, "rows"), rounds=ROUNDS, quorum=1.0)
    submission = consortium.submit(task_of(task.document.data | {"name": name}))
    killed = []

    def strike(event: dict[str, Any]) -> None:
        if not killed and kill.due(event):
            time.sleep(kill.seconds)
            until = time.monotonic() + 10
            while not (struck := consortium.kill(kill.party, kill.kind)) and time.monotonic() < until:
                time.sleep(0.02)
            killed.append(struck)

    events = consortium.follow(submission, 120, strike)
    told = [{key: value for key, value in event.items() if key != "metrics"} for event in events]
    assert killed == [True], (kill, told)
    assert events[-1]["event"] == "finished", (kill, told[-3:])
    assert weights(submission.folder) == weights(uninterrupted), kill
    assert metrics(submission.folder) == metrics(uninterrupted), kill
    findings = consortium.verified(submission)
    assert not findings.wrong, (kill, findings.wrong)
    ended = {each.party for each in findings.verified if each.run == submission.run and each.signed == each.entries}
    assert ended == {COORDINATOR, *SITES}, kill
    for site in SITES:
        assert releases(consortium.ledger(submission, site)) == releases(uninterrupted / "ledger" / f"{site}.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("party", [COORDINATOR, "a site"])
def test_one_kill_of_each_kind(consortium: FlareConsortium, uninterrupted: Path, party: str, kind: str) -> None:
    number = KINDS.index(kind) + 3 * (party == COORDINATOR)
    kill = Kill.drawn(2026 + number, COORDINATOR if party == COORDINATOR else "", kind)
    run_and_kill(consortium, uninterrupted, kill, f"kill of a {kind} of {party}")


@pytest.mark.slow
def test_no_process_for_a_job_outlives_a_client_that_dies_at_once(consortium: FlareConsortium) -> None:
    """It has not begun to work by then, and would reach for its client for ever."""
    task = task_over(dict.fromkeys(SITES, "rows"), rounds=2, quorum=1.0)
    submission = consortium.submit(task_of(task.document.data | {"name": "a client that dies at once"}))
    until = time.monotonic() + 60
    while not (young := consortium.processes_of("nord", "job")):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert consortium.kill("nord", "flare")
    until = time.monotonic() + 40
    while set(young) & set(consortium.processes_of("nord", "job")):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert consortium.follow(submission, 120)[-1]["event"] == "finished"


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(30))
def test_thirty_drawn_kills(consortium: FlareConsortium, uninterrupted: Path, number: int) -> None:
    draw = random.Random(number)
    party, kind = draw.choice((COORDINATOR, *SITES)), draw.choice(KINDS)
    run_and_kill(consortium, uninterrupted, Kill.drawn(draw.randrange(10**6), party, kind), f"drawn kill {number}")
