"""Hospitals that share nothing but a network: each party in a network namespace of its own, joined by a switch.

Their cables can be pulled and made slow. Nothing of it touches the machine's own network.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from consortium_in_memory import SITE_FILE, SITES, task_over, write_tables
from flare_consortium import COORDINATOR, FlareConsortium, _kill, metrics, releases, weights

from medfed import api
from medfed.engine.deployed.submission import Submission
from medfed.engine.flare.provisioning import make_consortium
from medfed.spec.loading import TaskFile, task_of

pytestmark = pytest.mark.slow

PARTIES = (COORDINATOR, *SITES)
CUT = "west"
SECONDS_CUT = 15.0
RATE = "20mbit"
MEGABYTE = 2**20
MOST_MEMORY = 512 * MEGABYTE
"""Of a site's process for a job, of which Python, FLARE and PyTorch alone take two thirds."""

LARGE_MODEL = {"name": "mlp", "hidden": [1000, 1000]}
LARGE_BYTES = 4 * (3 * 1000 + 1000 + 1000 * 1000 + 1000 + 2 * 1000 + 2)


def ip(*arguments: str, program: str = "ip") -> str:
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Network:
    """A namespace for each party and one for the switch between them. name: what all their names begin with."""

    name: str

    @staticmethod
    def address(party: str) -> str:
        return f"10.77.0.{1 + PARTIES.index(party)}"

    def place(self, party: str) -> str:
        return f"{self.name}-{party}"

    @property
    def switch(self) -> str:
        return f"{self.name}-switch"

    def build(self) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for party in PARTIES:
            place = self.place(party)
            ip("netns", "add", place)
            ip("-n", place, "link", "set", "lo", "up")
            ip("link", "add", "eth0", "netns", place, "type", "veth", "peer", "name", party, "netns", self.switch)
            ip("-n", self.switch, "link", "set", party, "master", "bridge", "up")
            ip("-n", place, "address", "add", f"{self.address(party)}/24", "dev", "eth0")
            ip("-n", place, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """Namespaces take their cables with them."""
        for place in (self.switch, *map(self.place, PARTIES)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", place)

    def pull(self, party: str) -> None:
        """Pull the cable: the party's own end loses its carrier, and keeps its address."""
        ip("-n", self.switch, "link", "set", party, "down")

    def plug(self, party: str) -> None:
        ip("-n", self.switch, "link", "set", party, "up")

    def slow_down(self, party: str, rate: str) -> None:
        """Both directions of a party's cable."""
        limit = ("root", "tbf", "rate", rate, "burst", "32kb", "latency", "200ms")
        ip("-n", self.switch, "qdisc", "replace", "dev", party, *limit, program="tc")
        ip("-n", self.place(party), "qdisc", "replace", "dev", "eth0", *limit, program="tc")

    def passed(self, party: str) -> tuple[int, int]:
        """The bytes that went to a party, and came from it."""
        told = json.loads(ip("-n", self.switch, "-s", "-j", "link", "show", party))[0]["stats64"]
        return int(told["tx"]["bytes"]), int(told["rx"]["bytes"])


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    found = Network(f"medfed-{os.getpid()}")
    try:
        found.build()
    except (OSError, subprocess.CalledProcessError) as error:
        found.remove()
        pytest.skip(f"no network namespaces can be had here ({error})")
    try:
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def consortium(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlareConsortium]:
    root = tmp_path_factory.mktemp("consortium")
    make_consortium(root, list(SITES), host=network.address(COORDINATOR))
    for site, table in write_tables(root / "tables").items():
        (root / "sites" / site / "site.yaml").write_text(SITE_FILE.format(table=table))
    found = FlareConsortium(root, {})
    for party in PARTIES:
        service = found._service(root, party, "coordinator" if party == COORDINATOR else "site", found.folder(party))
        inside = ["ip", "netns", "exec", network.place(party), *service.command]
        found.services[party] = replace(service, command=inside)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        _kill(found.processes())


def named(name: str, **changes: Any) -> TaskFile:
    """The task of the four hospitals under another name: an approval is for one run."""
    task = task_over(dict.fromkeys(SITES, "rows"), **changes.pop("federation", {}))
    return task_of(task.document.data | {"name": name} | changes)


def check_ended_like_one_process(
    consortium: FlareConsortium, submission: Submission, task: TaskFile, output: Path
) -> None:
    simulated = task_of(task.document.data | {"sites": {site: f"{site}.csv" for site in SITES}})
    alone = api.run(simulated, data=consortium.root / "tables", output=output).folder.path
    assert weights(submission.folder) == weights(alone)
    assert metrics(submission.folder) == metrics(alone)
    findings = consortium.verified(submission)
    assert not findings.wrong
    mine = [each for each in findings.verified if each.run == submission.run]
    assert {each.party for each in mine} == set(PARTIES)
    assert all(each.signed == each.entries for each in mine)
    for site in SITES:
        assert releases(consortium.ledger(submission, site)) == releases(alone / "ledger" / f"{site}.jsonl")


def is_round(event: dict[str, Any], number: int) -> bool:
    return bool(event["event"] == "round" and event["round"] == number)


def peak(consortium: FlareConsortium, party: str) -> int:
    """The most resident bytes that a party's process for a job has had so far."""
    found = [0]
    for pid in consortium.processes_of(party, "job"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            found += [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return max(found)


@contextlib.contextmanager
def plugged_again(network: Network, party: str) -> Iterator[Callable[[float], None]]:
    """What pulls the party's cable for so many seconds; whatever happens, it is plugged in afterwards."""
    timers: list[threading.Timer] = []

    def pull(seconds: float) -> None:
        network.pull(party)
        timers.append(threading.Timer(seconds, network.plug, (party,)))
        timers[-1].start()

    try:
        yield pull
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        network.plug(party)


def test_hospitals_in_networks_of_their_own_train_the_bits_of_one_process(
    consortium: FlareConsortium, tmp_path: Path
) -> None:
    task = named("networks of their own")
    submission = consortium.submit(task)
    assert consortium.follow(submission, 90)[-1]["event"] == "finished"
    check_ended_like_one_process(consortium, submission, task, tmp_path / "alone")


def test_a_hospital_whose_cable_is_pulled_is_named_and_comes_back_by_itself(
    consortium: FlareConsortium, network: Network, tmp_path: Path
) -> None:
    task = named("a cable is pulled", federation={"rounds": 8, "quorum": 1.0})
    submission = consortium.submit(task)
    before = {kind: consortium.processes_of(CUT, kind) for kind in ("service", "flare")}
    with plugged_again(network, CUT) as pull:

        def strike(event: dict[str, Any]) -> None:
            if is_round(event, 2):
                pull(SECONDS_CUT)

        events = consortium.follow(submission, 120, strike)
    assert events[-1]["event"] == "finished", events[-1]
    told = [event["event"] for event in events]
    assert {"event": "gone", "sites": [CUT]} in events, told
    assert {kind: consortium.processes_of(CUT, kind) for kind in ("service", "flare")} == before
    check_ended_like_one_process(consortium, submission, task, tmp_path / "alone")


def test_a_large_model_gets_over_a_slow_cable_that_is_pulled_under_it(
    consortium: FlareConsortium, network: Network, tmp_path: Path
) -> None:
    """The site's process holds the model, what it trains and what it sends; never the messages once more."""
    task = named("a slow cable", model=LARGE_MODEL, federation={"rounds": 3, "quorum": 1.0})
    network.slow_down(CUT, RATE)
    submission = consortium.submit(task)
    pulled: list[int] = []
    peaks = [0]
    with plugged_again(network, CUT) as pull:

        def strike(event: dict[str, Any]) -> None:
            peaks.append(peak(consortium, CUT))
            if is_round(event, 1):
                begun, until = network.passed(CUT)[0], time.monotonic() + 20
                while (there := network.passed(CUT)[0] - begun) < LARGE_BYTES // 3 and time.monotonic() < until:
                    time.sleep(0.02)
                pull(4.0)
                pulled.append(there)

        events = consortium.follow(submission, 120, strike)
    assert events[-1]["event"] == "finished", events[-1]
    assert len(pulled) == 1 and LARGE_BYTES // 3 <= pulled[0] < LARGE_BYTES
    assert network.passed(CUT)[1] > 3 * LARGE_BYTES
    assert max(peaks) < MOST_MEMORY
    check_ended_like_one_process(consortium, submission, task, tmp_path / "alone")
