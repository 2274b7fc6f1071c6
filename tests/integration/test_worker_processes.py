"""Simulated sites in several processes: the same bits from any number of them, whatever happens to them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hospitals_on_disk import medfed, medfed_begun, outcome, write_hospitals
from safetensors.numpy import load_file

import medfed as package
from medfed import api
from medfed.core.errors import QuorumLost, Refused, RunFolderError
from medfed.engine import blocks, session
from medfed.engine.process import RoundMetrics, RunState
from medfed.govern.verify import verify_ledgers
from medfed.models.stacked import StackTrainer

Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def tables(count: int, *shape: int) -> dict[str, Rows]:
    """Site → (features (n, *shape), labels of two classes), of 12 to 45 rows."""
    sites = {}
    for number in range(count):
        draw = np.random.default_rng([7, number])
        features = draw.normal(0.02 * number, 1.0, (int(draw.integers(12, 46)), *shape)).astype(np.float32)
        labels = features.reshape(len(features), -1)[:, 0] + draw.normal(0, 0.5, len(features)) > 0
        sites[f"s{number:02}"] = features, labels.astype(np.int64)
    return sites


def task(workers: int, batched: str = "auto", model: Any = "logistic", **federation: Any) -> dict[str, Any]:
    settings = {"strategy": "fedavg", "rounds": 3, "local_updates": 4, "batch_size": 8, "lr": 0.05, **federation}
    return {
        "task_type": "classification",
        "model": model,
        "federation": settings,
        "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.6, "validation": 0.2, "test": 0.2}},
        "engine": {"workers": workers, "batched": batched},
        "seed": 5,
    }


def bits(run: Path) -> dict[str, Any]:
    """As ``outcome``, of tasks that differ in the number of workers, and so in their digest."""
    found = outcome(run)
    del found["task"]
    found["model"] = found["model"].replace(found["results"].pop("task_digest").encode(), b"")
    return found


def verify(run: Path, sites: Mapping[str, Any]) -> None:
    """Every party's ledger is whole, and there is one for each site."""
    parties = verify_ledgers(run / "ledger", api.simulation_key().verify_key, finished=True)
    assert {party.party for party in parties} >= {*sites, "coordinator"}


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_within(processes: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := any(map(alive, processes))) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not left


class Looking(api.Silent):
    """An observer that looks at the worker processes after the first round, and may do something to them then."""

    def __init__(self, act: Callable[[list[int]], None] = lambda processes: None) -> None:
        self.act = act
        self.seen: list[int] = []

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        if state.round == 1:
            self.seen = children(os.getpid())
            self.act(self.seen)


def same_from_any_number(folder: Path, sites: dict[str, Rows], make: Callable[[int], dict[str, Any]]) -> Any:
    """The bits that one, two and three worker processes all gave, whose ledgers verify."""
    found, before = [], len(children(os.getpid()))
    for workers in (1, 2, 3):
        run, looking = folder / str(workers), Looking()
        api.run(make(workers), sites, output=run, observer=looking)
        own = workers == 1 or blocks.stacks(api.read_task(make(workers)).spec)
        assert len(looking.seen) == before + workers - own
        verify(run, sites)
        found.append(bits(run))
    assert found[0] == found[1] == found[2]
    assert len(children(os.getpid())) == before
    return found[0]


MLP = {"name": "mlp", "hidden": [9]}


@pytest.fixture(autouse=True)
def _small_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that some seventy sites make several blocks."""
    monkeypatch.setattr(blocks, "STACK", 24)


def test_blocks_of_a_drawn_cohort_from_any_number_of_workers(tmp_path: Path) -> None:
    same_from_any_number(tmp_path, tables(70, 5), lambda n: task(n, "auto", MLP, cohort=66, rounds=2))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "scaffold", "fedadam"])
@pytest.mark.parametrize("batched", ["off", "auto"])
def test_every_strategy_from_any_number_of_workers(tmp_path: Path, strategy: str, batched: str) -> None:
    sites, cohort = tables(70 if batched == "auto" else 6, 5), 66 if batched == "auto" else 4
    one = same_from_any_number(tmp_path, sites, lambda n: task(n, batched, MLP, strategy=strategy, cohort=cohort))
    assert len(one["metrics"].splitlines()) > 3


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_convolutions_from_any_number_of_workers(tmp_path: Path, strategy: str) -> None:
    model = {"name": "cnn", "input_size": [1, 8, 8]}
    same_from_any_number(tmp_path, tables(5, 1, 8, 8), lambda n: task(n, "auto", model, strategy=strategy, cohort=4))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_dropout_and_kept_positions_from_any_number_of_workers(tmp_path: Path, strategy: str) -> None:
    model = {"name": "mlp", "hidden": [8], "dropout": 0.5}
    same_from_any_number(
        tmp_path, tables(6, 4), lambda n: task(n, "auto", model, strategy=strategy, data_position="kept", cohort=4)
    )


def test_a_site_whose_rows_keep_its_block_from_stacking_changes_no_other_block(tmp_path: Path) -> None:
    """One site's images are of another shape, so it fails and its block trains one by one."""
    sites = tables(30, 1, 4, 4) | {"s01": tables(1, 1, 5, 4)["s00"]}
    model = {"name": "mlp", "hidden": [8], "input_size": [1, 4, 4]}
    made = [task(workers, "auto", model, quorum=29, cohort=30, rounds=2) for workers in (1, 2)]
    for workers, each in enumerate(made, start=1):
        ended = api.run(each, sites, output=tmp_path / str(workers))
        assert {absence.site for absence in ended.state.absences} == {"s01"}
    assert bits(tmp_path / "1") == bits(tmp_path / "2")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["local", "pooled"])
def test_baselines_from_any_number_of_workers(tmp_path: Path, strategy: str) -> None:
    api.run(task(1, "auto", MLP, strategy=strategy), tables(5, 4), output=tmp_path / "1")
    api.run(task(3, "auto", MLP, strategy=strategy), tables(5, 4), output=tmp_path / "3")
    names = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.suffix == ".safetensors"]
    assert names
    for name in names:
        one, three = (load_file(tmp_path / workers / name) for workers in "13")
        assert {key: value.tobytes() for key, value in one.items()} == {k: v.tobytes() for k, v in three.items()}
    assert (tmp_path / "1" / "metrics.jsonl").read_bytes() == (tmp_path / "3" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("batched", [pytest.param("off", marks=pytest.mark.slow), "auto"])
def test_a_run_that_stops_between_rounds_goes_on_to_the_same_bits(tmp_path: Path, batched: str) -> None:
    """Among them the predictions: whether the last round's are remembered must not show in the final metrics."""

    def stop(processes: list[int]) -> None:
        raise KeyboardInterrupt

    model = {"name": "mlp", "hidden": [32]}
    made, sites = task(1, batched, model, cohort=8, rounds=1, local_updates=5), tables(20, 13)
    api.run(made, sites, output=tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        api.run(made, sites, output=tmp_path / "stopped", observer=Looking(stop))
    api.resume(tmp_path / "stopped", sites)
    assert bits(tmp_path / "stopped") == bits(tmp_path / "unbroken")


def test_a_run_goes_on_with_another_number_of_workers(tmp_path: Path) -> None:
    def stop(processes: list[int]) -> None:
        raise KeyboardInterrupt

    sites = tables(6, 4)
    api.run(task(1, "off", strategy="scaffold"), sites, output=tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        api.run(task(3, "off", strategy="scaffold"), sites, output=tmp_path / "stopped", observer=Looking(stop))
    file = tmp_path / "stopped" / "task.yaml"
    file.write_text(file.read_text().replace("workers: 3", "workers: 2"))
    api.resume(tmp_path / "stopped", sites)
    assert bits(tmp_path / "stopped") == bits(tmp_path / "unbroken")
    verify(tmp_path / "stopped", sites)


@pytest.mark.slow
def test_a_worker_killed_between_rounds_is_replaced(tmp_path: Path) -> None:
    made, sites = (task(n, "off", strategy="scaffold") for n in (1, 2)), tables(5, 4)
    looking = Looking(lambda processes: os.kill(processes[0], signal.SIGKILL))
    api.run(next(made), sites, output=tmp_path / "unbroken")
    api.run(next(made), sites, output=tmp_path / "killed", observer=looking)
    assert bits(tmp_path / "killed") == bits(tmp_path / "unbroken")
    verify(tmp_path / "killed", sites)


@contextmanager
def killing(every: float) -> Iterator[list[int]]:
    """Kill workers in turn, four times in all and after pauses: fewer in a row than a site is given up for."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        for number in range(4):
            if over.wait(every):
                return
            living = children(os.getpid())
            for child in living[number % max(len(living), 1) :][:1]:
                os.kill(child, signal.SIGKILL)
                killed.append(child)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("batched", ["off", "auto"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_workers_killed_at_any_time_are_replaced(tmp_path: Path, strategy: str, batched: str) -> None:
    settings = {"strategy": strategy, "rounds": 40, "local_updates": 60, "data_position": "kept"}
    sites, cohort = (tables(70, 5), 44) if batched == "auto" else (tables(10, 5), 7)
    api.run(task(1, batched, MLP, cohort=cohort, **settings), sites, output=tmp_path / "unbroken")
    with killing(every=0.2) as killed:
        api.run(task(2, batched, MLP, cohort=cohort, **settings), sites, output=tmp_path / "killed")
    assert len(set(killed)) > 2
    assert bits(tmp_path / "killed") == bits(tmp_path / "unbroken")
    verify(tmp_path / "killed", sites)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that meets Python's own fork hooks
def test_a_round_that_was_interrupted_can_be_tried_again(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def stepped(workers: int, seconds: float) -> tuple[int, float | None]:
        """How often the first round was interrupted, and the loss after it."""
        process, interrupted = package.build(task(workers, "off", MLP, local_updates=300), sites), 0
        state = process.initialize()
        while seconds:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                _, metrics = process.next(state)
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except KeyboardInterrupt:
                interrupted, seconds = interrupted + 1, seconds * 2
        return interrupted, metrics.value("loss")

    sites, before = tables(8, 5), signal.signal(signal.SIGALRM, interrupt)
    try:
        (_, expected), (interrupted, loss) = stepped(1, 60), stepped(2, 0.02)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 0
    assert loss == expected


def test_two_runs_by_hand_do_not_keep_each_others_workers() -> None:
    first, second = (package.build(task(2, "off"), tables(4, 3)) for _ in range(2))
    states = first.initialize(), second.initialize()
    workers = children(os.getpid())
    assert len(workers) == 4
    begun = time.monotonic()
    del first
    assert time.monotonic() - begun < 2
    assert sum(map(alive, workers)) == 2
    assert second.next(states[1])[0].round == 1


LONG = {"strategy": "scaffold", "rounds": 60, "local_updates": 40, "data_position": "kept"}


def begun(folder: Path, workers: int = 2) -> Any:
    """A run of the four hospitals in processes of its own, after its third round; and its task."""
    made = write_hospitals(folder / "data", extra={"engine": {"workers": workers, "batched": "off"}}, **LONG)
    process = medfed_begun("run", made, "--output", "run", cwd=folder, group=True)
    while not process.stdout.readline().startswith("Round 3/"):  # type: ignore[union-attr]
        assert process.poll() is None
    return process, made


@pytest.fixture(scope="module")
def long_bits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("unbroken")
    made = write_hospitals(folder / "data", extra={"engine": {"workers": 1, "batched": "off"}}, **LONG)
    api.run(made, output=folder / "run")
    return bits(folder / "run")


@pytest.mark.slow
def test_workers_end_with_a_killed_run_which_goes_on_with_more(tmp_path: Path, long_bits: dict[str, Any]) -> None:
    process, _ = begun(tmp_path)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert end_within(workers, 10)
    file = tmp_path / "run" / "task.yaml"
    file.write_text(file.read_text().replace("workers: 2", "workers: 3"))
    resumed = medfed("run", "--resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert bits(tmp_path / "run") == long_bits
    assert medfed("ledger", "verify", "run", cwd=tmp_path).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_to_all_processes_ends_them_quietly(
    tmp_path: Path, long_bits: dict[str, Any], ending: signal.Signals
) -> None:
    process, _ = begun(tmp_path)
    workers = children(process.pid)
    os.killpg(process.pid, ending)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "interrupted; go on with: medfed run --resume run" in told
    assert "Traceback" not in told
    assert end_within(workers, 1)
    resumed = medfed("run", "--resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert bits(tmp_path / "run") == long_bits


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_while_the_first_goes_on(
    tmp_path: Path, long_bits: dict[str, Any]
) -> None:
    process, made = begun(tmp_path)
    with pytest.raises(RunFolderError, match="a begun run in this folder"):
        api.run(made, output=tmp_path / "run")
    with pytest.raises(Refused, match="in use by another run"):
        api.resume(tmp_path / "run")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert bits(tmp_path / "run") == long_bits


def kill_in_a_worker_at(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let local training on that many rows kill its process, as the system does for want of memory."""
    owner, train, stack = os.getpid(), session.train, StackTrainer.train

    def die_if(counts: list[int]) -> None:
        if rows in counts and os.getpid() != owner:
            os.kill(os.getpid(), signal.SIGKILL)

    def trained(network: Any, examples: Any, *others: Any, **options: Any) -> Any:
        die_if([len(examples)])
        return train(network, examples, *others, **options)

    def stacked(self: StackTrainer, weights: Any, members: Any, **options: Any) -> Any:
        die_if([len(member.examples) for member in members])
        return stack(self, weights, members, **options)

    monkeypatch.setattr(session, "train", trained)
    monkeypatch.setattr(StackTrainer, "train", stacked)


def with_a_deadly_site(count: int) -> dict[str, Rows]:
    """Sites of which ``s02`` alone has 90 rows, all for training."""
    draw = np.random.default_rng(1)
    sites = {f"s{k:02}": (draw.normal(size=(30, 4)).astype(np.float32), np.arange(30) % 2) for k in range(count)}
    return sites | {"s02": (draw.normal(size=(90, 4)).astype(np.float32), np.arange(90) % 2)}


def all_train(made: dict[str, Any]) -> dict[str, Any]:
    return made | {"data": made["data"] | {"split": {"train": 1.0, "validation": 0, "test": 0}}}


def test_a_site_that_kills_its_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_in_a_worker_at(90, monkeypatch)
    with pytest.raises(QuorumLost) as lost:
        api.run(all_train(task(2, "off", rounds=1)), with_a_deadly_site(4), output=tmp_path / "run")
    assert "s02: the process that ran it died 3 times" in str(lost.value)
    assert not any(f"s{k:02}" in str(lost.value) for k in (0, 1, 3))
    monkeypatch.undo()
    api.resume(tmp_path / "run", with_a_deadly_site(4))


def test_a_run_goes_on_without_a_site_that_kills_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_in_a_worker_at(90, monkeypatch)
    ended = api.run(all_train(task(2, "off", rounds=2, quorum=3)), with_a_deadly_site(4), output=tmp_path / "run")
    assert {(a.round, a.site) for a in ended.state.absences} == {(1, "s02"), (2, "s02")}
    verify(tmp_path / "run", with_a_deadly_site(4))
