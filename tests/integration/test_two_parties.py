"""A guest and a host as processes of their own, each with its folder and its keys, over FLARE on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from medfed.engine.deployed.spent import budgets

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "two_parties"
EPOCH = re.compile(
    r"^Epoch \d+/\d+ - Guest Loss: \d\.\d{3} \| Acc: \d+\.\d% - Host Loss: \d\.\d{3} \| Acc: \d+\.\d%"
    r" - Federated Loss: \d\.\d{3} \| Acc: \d+\.\d%$"
)
PARTIES = {"guest": 9999, "host": 10000}
OTHER = {"guest": "host", "host": "guest"}

pytestmark = pytest.mark.slow


def free_port() -> int:
    """A port whose neighbour is free too."""
    while True:
        with socket.create_server(("", 0)) as one:
            port = int(one.getsockname()[1])
            try:
                with socket.create_server(("", port + 1)):
                    return port
            except OSError:
                continue


@dataclass
class Party:
    """One machine: its folder, its home, and the command that its person types."""

    folder: Path
    role: str
    port: int
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def prepare(self, rows: Path) -> None:
        (self.folder / "local_data").mkdir(parents=True)
        shutil.copy(rows, self.folder / "local_data" / "patients.csv")
        shutil.copy(EXAMPLE / "federated_task.yaml", self.folder)
        other = OTHER[self.role]
        remote = {"role": other, "party_id": PARTIES[other], "address": f"127.0.0.1:{self.port}"}
        local = {"role": self.role, "party_id": PARTIES[self.role]}
        (self.folder / "party_config.json").write_text(json.dumps({"local": local, "remote": remote}))

    def start(self, output: str, *more: str, says: str = "") -> subprocess.Popen[str]:
        """Begin the command; what it prints is in ``output``.log."""
        command = [
            *(sys.executable, str(ROOT / "federated_train.py"), "--config", "federated_task.yaml"),
            *("--data", "./local_data", "--output", f"./{output}", "--party_config", "party_config.json"),
            *("--reconnect_interval", "1", "--set", "engine.batched=off", *more),
        ]
        environment = os.environ | {"MEDFED_HOME": str(self.folder / "home"), "PYTHONUNBUFFERED": "1"}
        with (self.folder / f"{output}.log").open("a") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
            )
        assert process.stdin is not None
        process.stdin.write(says)
        process.stdin.close()
        self.processes.append(process)
        return process

    def said(self, output: str) -> str:
        return (self.folder / f"{output}.log").read_text()

    def epochs(self, output: str) -> list[str]:
        return [line for line in self.said(output).splitlines() if line.startswith("Epoch ")]

    def fingerprint(self, output: str) -> str:
        """The fingerprint that it showed at the first contact."""
        return until(lambda: re.search(r"^  ((?:[0-9a-f]{4} ){9}[0-9a-f]{4})$", self.said(output), re.M))[1]

    def model(self, output: str) -> bytes:
        return (self.folder / output / "model.safetensors").read_bytes()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            process.wait(timeout=60)


def until(found, seconds: float = 120.0):
    """What a function finds, as soon as it does."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return result


def ended(*processes: subprocess.Popen[str], seconds: float = 240.0) -> list[int]:
    end = time.monotonic() + seconds
    return [process.wait(timeout=max(1.0, end - time.monotonic())) for process in processes]


def make_rows(folder: Path) -> dict[str, Path]:
    subprocess.run([sys.executable, EXAMPLE / "make_data.py", folder], check=True)
    return {role: folder / str(number) / "patients.csv" for role, number in PARTIES.items()}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_rows(tmp_path_factory.mktemp("rows"))


def two(folder: Path, rows: dict[str, Path]) -> tuple[Party, Party]:
    port = free_port()
    guest, host = Party(folder / "guest", "guest", port), Party(folder / "host", "host", port)
    for party in (guest, host):
        party.prepare(rows[party.role])
    return guest, host


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Path]) -> Iterator[tuple[Party, Party]]:
    """Two parties after their first run."""
    guest, host = two(tmp_path_factory.mktemp("parties"), rows)
    try:
        started = host.start("first", says="yes\n"), guest.start("first", says="yes\n")
        assert ended(*started) == [0, 0], guest.said("first") + host.said("first")
        yield guest, host
    finally:
        guest.stop()
        host.stop()


@pytest.fixture
def parties(met: tuple[Party, Party]) -> Iterator[tuple[Party, Party]]:
    yield met
    for party in met:
        party.stop()


def simulated(rows: dict[str, Path], folder: Path, *more: str) -> bytes:
    """The model of the same task over the same rows, in one process."""
    command = [
        *(sys.executable, ROOT / "federated_train.py", "--config", EXAMPLE / "federated_task.yaml", "--quiet"),
        *("--data", rows["guest"].parents[1], "--output", folder, "--party_config", EXAMPLE / "party_config.json"),
        *("--simulate", "--set", "engine.batched=off", *more),
    ]
    subprocess.run(command, check=True)
    return (folder / "model.safetensors").read_bytes()


def weights(content: bytes) -> bytes:
    """A model's file without its header, which names the task."""
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_both_train_and_hold_the_model_of_a_simulation(
    parties: tuple[Party, Party], rows: dict[str, Path], tmp_path: Path
) -> None:
    guest, host = parties
    assert guest.fingerprint("first") == host.fingerprint("first")
    assert guest.model("first") == host.model("first")
    assert weights(guest.model("first")) == weights(simulated(rows, tmp_path / "run"))
    assert guest.epochs("first") == host.epochs("first")
    assert len(guest.epochs("first")) == 10
    assert all(EPOCH.match(line) for line in guest.epochs("first"))
    for name in ("report.html", "model_card.md", "results.json", "ledger"):
        assert (guest.folder / "first" / name).exists()
    told = subprocess.run(
        [sys.executable, "-m", "medfed.cli.main", "predict", host.folder / "first", rows["host"]],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "probability_malignant" in told.stdout


def test_private_keys_are_their_owners_only(parties: tuple[Party, Party]) -> None:
    for party in parties:
        keys = list(party.folder.rglob("*.key"))
        assert len(keys) >= 3
        assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


@pytest.mark.parametrize("role", ["guest", "host"])
def test_a_killed_party_that_is_started_again_goes_on(
    parties: tuple[Party, Party], rows: dict[str, Path], tmp_path: Path, role: str
) -> None:
    guest, host = parties
    killed, output, longer = {"guest": guest, "host": host}[role], f"killed-{role}", ("--set", "federation.epochs=40")
    started = {party.role: party.start(output, *longer) for party in (host, guest)}
    until(lambda: len(killed.epochs(output)) > 8)
    started[role].kill()
    started[role].wait()
    printed = len(killed.epochs(output))
    started[role] = killed.start(output, *longer)
    assert ended(*started.values()) == [0, 0], guest.said(output) + host.said(output)
    assert guest.model(output) == host.model(output)
    assert weights(guest.model(output)) == weights(simulated(rows, tmp_path / "run", *longer))
    assert "fingerprint" not in guest.said(output) + host.said(output)
    for party in (guest, host):
        numbers = {int(line.split()[1].split("/")[0]) for line in party.epochs(output)}
        unprinted = {printed + 1} if party is killed else set()  # an epoch may be kept and its line never written
        assert set(range(1, 41)) - unprinted <= numbers <= set(range(1, 41))
    ledger = [guest.folder / "home" / "parties", host.folder / "home" / "parties"]
    for site in [path for folder in ledger for path in folder.glob("*/site")]:
        subprocess.run([sys.executable, "-m", "medfed.cli.main", "ledger", "verify", site], check=True)


def test_two_parties_train_privately_and_each_charges_its_own_budget(parties: tuple[Party, Party]) -> None:
    guest, host = parties
    noise = ("--set", "privacy={record: {noise_multiplier: 1.0}}")
    assert ended(host.start("private", *noise), guest.start("private", *noise)) == [0, 0], guest.said("private")
    assert guest.model("private") == host.model("private")
    for party in parties:
        (site,) = (party.folder / "home" / "parties").glob("*/site")
        (spent,) = budgets(site)
        assert spent.spent > 0
        assert sum(task.requests for task in spent.tasks) == 10


def test_two_tasks_are_told_apart_at_both(parties: tuple[Party, Party]) -> None:
    guest, host = parties
    started = host.start("unlike", "--set", "federation.lr=0.01"), guest.start("unlike")
    assert ended(*started) == [2, 2], guest.said("unlike") + host.said("unlike")
    assert "federation.lr is 0.01 here and 0.05 there" in host.said("unlike")
    assert "the host was started with another task" in guest.said("unlike")


def test_a_folder_is_for_one_run_of_one_task(parties: tuple[Party, Party]) -> None:
    for party in parties:
        assert ended(party.start("first")) == [2]
        assert "a finished run in this folder already" in party.said("first")


def test_whoever_stands_between_them_shows_by_the_fingerprints(tmp_path: Path, rows: dict[str, Path]) -> None:
    """Between the guest and the host, somebody plays the host to the one and the guest to the other."""
    guest, false_host = two(tmp_path / "one", rows)
    false_guest, host = two(tmp_path / "other", rows)
    everyone = (guest, false_host, false_guest, host)
    try:
        for party in (false_host, false_guest):
            party.start("run", says="yes\n")
        at_guest = guest.start("run", says="no\n")
        until(lambda: "fingerprint" in guest.said("run"))
        at_host = host.start("run", "--accept", guest.fingerprint("run"))
        assert ended(at_host, seconds=60) == [2]
        assert host.fingerprint("run") != guest.fingerprint("run")
        assert "the fingerprint was not accepted" in host.said("run")
        assert at_guest.poll() is None  # it goes on waiting for the right one
        assert not list((guest.folder / "home").rglob("admitted/host-10000.signed.zip"))
    finally:
        for party in everyone:
            party.stop()


def test_nobody_at_the_keyboard_is_told_to_accept(tmp_path: Path, rows: dict[str, Path]) -> None:
    guest, host = two(tmp_path, rows)
    try:
        started = guest.start("run"), host.start("run")
        assert ended(*started, seconds=60) == [2, 2]
        told = guest.fingerprint("run")
        assert f"start again with --accept '{told}'" in guest.said("run")
        again = guest.start("again", "--accept", told), host.start("again", "--accept", told.replace(" ", ""))
        assert ended(*again) == [0, 0], guest.said("again") + host.said("again")
        assert guest.model("again") == host.model("again")
    finally:
        guest.stop()
        host.stop()
