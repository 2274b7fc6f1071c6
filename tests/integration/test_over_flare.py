"""A coordinator and four hospitals as separate processes over FLARE: the bits of one process, and sites that fail."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import heart
from consortium_in_memory import SITES, task_over
from flare_consortium import COORDINATOR, FlareConsortium, metrics, releases, running, weights

from medfed import api
from medfed.engine.deployed.spent import budgets
from medfed.spec.loading import TaskFile, task_of

pytestmark = pytest.mark.slow

ROWS = dict.fromkeys(SITES, "rows")


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlareConsortium]:
    with running(tmp_path_factory.mktemp("consortium")) as found:
        yield found


def named(name: str, aggregation: str = "clear", **federation: object) -> TaskFile:
    """The task of the four hospitals under another name: an approval is for one run."""
    task = task_over(ROWS, aggregation, **federation)
    return task_of(task.document.data | {"name": name})


def absent(events: list[dict[str, Any]]) -> dict[int, set[str]]:
    """The sites that each round did without."""
    return {e["round"]: {each["site"] for each in e["absent"]} for e in events if e["event"] == "round"}


def in_one_process(task: TaskFile, tables: Path, output: Path) -> Path:
    """The run folder of the same task as a simulation."""
    simulated = task_of(task.document.data | {"sites": {site: f"{site}.csv" for site in SITES}})
    return api.run(simulated, data=tables, output=output).folder.path


def check_equal(consortium: FlareConsortium, task: TaskFile, tables: Path, tmp_path: Path) -> None:
    submission = consortium.submit(task)
    events = consortium.follow(submission, 120)
    assert events[-1]["event"] == "finished", events[-1]
    simulated = in_one_process(task, tables, tmp_path / "simulated")
    assert weights(submission.folder) == weights(simulated)
    assert metrics(submission.folder) == metrics(simulated)
    findings = consortium.verified(submission)
    assert not findings.wrong
    mine = [each for each in findings.verified if each.run == submission.run]
    assert {each.party for each in mine} == {COORDINATOR, *SITES}
    assert all(each.signed == each.entries for each in mine)
    for site in SITES:
        assert releases(consortium.ledger(submission, site)) == releases(simulated / "ledger" / f"{site}.jsonl")


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_four_hospitals_train_the_bits_of_one_process(
    consortium: FlareConsortium, tmp_path: Path, strategy: str
) -> None:
    task = named(f"plain {strategy}", strategy=strategy)
    check_equal(consortium, task, consortium.root / "tables", tmp_path)


def test_four_hospitals_send_compressed_updates_to_the_bits_of_one_process(
    consortium: FlareConsortium, tmp_path: Path
) -> None:
    task = named("compressed", compression={"name": "int8", "zstd": True})
    check_equal(consortium, task, consortium.root / "tables", tmp_path)


def test_four_hospitals_add_noise_of_every_kind_and_each_charges_its_own_budget(consortium: FlareConsortium) -> None:
    noise = {
        "record": {"noise_multiplier": 1.0},
        "labels": {"epsilon": 4},
        "site": {"noise_multiplier": 1.0, "clip_norm": 0.5},
    }
    document = named("noise of every kind").document.data
    task = task_of(document | {"privacy": {"aggregation": "secure"} | noise})
    events = consortium.follow(submission := consortium.submit(task), 120)
    assert events[-1]["event"] == "finished", events[-1]
    assert not consortium.verified(submission).wrong
    for site in SITES:
        (spent,) = [each for each in budgets(consortium.folder(site)) if each.dataset == "rows"]
        assert spent.spent > 4  # the labels' epsilon, and that of training
        assert [each.title for each in spent.tasks] == ["noise of every kind"]


def test_the_heart_hospitals_train_the_bits_of_one_process(
    consortium: FlareConsortium, tmp_path: Path, shared_data: Path
) -> None:
    from medfed.data.heart import published_benchmark

    frames = published_benchmark(shared_data / "heart")
    for site, frame in zip(SITES, frames.values(), strict=True):
        table = tmp_path / f"{site}.csv"
        frame.to_csv(table, index=False)
        settings = consortium.folder(site) / "site.yaml"
        declared = f"datasets:\n  heart:\n    path: {table}\n    id: id\n"
        settings.write_text(settings.read_text().replace("datasets:\n", declared))
    engine = {"engine": {"batched": "off", "workers": 1}}
    task = task_of(heart.task("fedavg", 42) | engine | {"sites": dict.fromkeys(SITES, "heart")})
    check_equal(consortium, task, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("aggregation", "left_as"),
    [
        ("secure", {"secure aggregation: masked", "secure aggregation: keys and shares"}),
        ("encrypted", {"homomorphic encryption: encrypted", "homomorphic encryption: keys and totals"}),
    ],
)
def test_four_hospitals_add_up_what_is_hidden_to_the_bits_of_one_process(
    consortium: FlareConsortium, tmp_path: Path, aggregation: str, left_as: set[str]
) -> None:
    """All that leaves a hospital in the clear are names of categories, of which this task declares all."""
    task = named(f"hidden {aggregation}", aggregation)
    submission = consortium.submit(task)
    events = consortium.follow(submission, 120)
    assert events[-1]["event"] == "finished", events[-1]
    simulated = in_one_process(task, consortium.root / "tables", tmp_path / "simulated")
    assert weights(submission.folder) == weights(simulated)
    assert metrics(submission.folder) == metrics(simulated)
    assert not consortium.verified(submission).wrong
    for site in SITES:
        entries = [json.loads(line) for line in consortium.ledger(submission, site).read_text().splitlines()]
        left = {(e["release"], e["protection"]) for e in entries if e["kind"] == "release"}
        assert left == {("sum", protection) for protection in left_as}


def test_under_masks_a_site_that_dies_is_left_out_and_welcomed_back(consortium: FlareConsortium) -> None:
    """Three of four are enough. What was summed without it is never summed with it."""
    submission = consortium.submit(named("a site dies under masks", "secure", rounds=60, quorum=0.75))

    def strike(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            consortium.keep_away.add("west")
            consortium.kill("west", "service")
        if event["event"] == "round" and any(each["site"] == "west" for each in event["absent"]):
            consortium.keep_away.discard("west")

    events = consortium.follow(submission, 150, strike)
    assert events[-1]["event"] == "finished", events[-1]
    without = absent(events)
    assert {"west"} in without.values()
    assert without[60] == set()
    assert not consortium.verified(submission).wrong


def test_a_site_that_dies_is_named_left_out_and_welcomed_back(consortium: FlareConsortium) -> None:
    submission = consortium.submit(named("a site dies", rounds=120, quorum=0.75))

    def strike(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            consortium.keep_away.add("west")
            consortium.kill("west", "service")
        if event["event"] == "round" and any(each["site"] == "west" for each in event["absent"]):
            consortium.keep_away.discard("west")

    events = consortium.follow(submission, 150, strike)
    assert events[-1]["event"] == "finished", events[-1]
    assert {"event": "gone", "sites": ["west"]} in events
    without = absent(events)
    assert {"west"} in without.values()
    assert all(sites <= {"west"} for sites in without.values())
    assert without[120] == set()
    assert not consortium.verified(submission).wrong


def test_a_run_that_needs_an_absent_site_says_which_and_waits(consortium: FlareConsortium, tmp_path: Path) -> None:
    task = named("all are needed", rounds=6, quorum=1.0)
    submission = consortium.submit(task)

    def strike(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            consortium.keep_away.add("sued")
            consortium.kill("sued", "flare")
        if event["event"] == "waiting":
            consortium.keep_away.discard("sued")

    events = consortium.follow(submission, 120, strike)
    assert {"event": "waiting", "sites": ["sued"]} in events
    assert events[-1]["event"] == "finished", events[-1]
    simulated = in_one_process(task, consortium.root / "tables", tmp_path / "simulated")
    assert weights(submission.folder) == weights(simulated)
    assert metrics(submission.folder) == metrics(simulated)


def test_nothing_leaves_a_site_whose_disk_is_full(consortium: FlareConsortium) -> None:
    submission = consortium.submit(named("a full disk", rounds=8, quorum=0.75))

    def fill(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            full = consortium.ledger(submission, "nord").stat().st_size
            for pid in consortium.processes_of("nord", "job"):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, full))

    events = consortium.follow(submission, 90, fill)
    assert events[-1]["event"] == "finished", events[-1]
    without = absent(events)
    first = min(number for number, sites in without.items() if sites)
    assert all(without[number] == ({"nord"} if number >= first else set()) for number in without)
    told = [each for event in events if event["event"] == "round" for each in event["absent"]]
    assert any("ledger" in each["sentence"] or "disk" in each["sentence"] for each in told), told
    left = {number for number, *_ in releases(consortium.ledger(submission, "nord"))}
    assert max(left) <= first
    assert not consortium.verified(submission).wrong


class _StoppedError(Exception):
    pass


def test_sigterm_ends_every_service_and_all_that_it_started(consortium: FlareConsortium) -> None:
    submission = consortium.submit(named("ended by SIGTERM", rounds=500))

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            raise _StoppedError

    with pytest.raises(_StoppedError):
        consortium.follow(submission, 90, stop)
    begun = time.monotonic()
    assert consortium.stop() == dict.fromkeys((COORDINATOR, *SITES), 0)
    assert time.monotonic() - begun < 15
    time.sleep(1)
    assert consortium.processes() == {}
