"""The commands as processes of their own: what a person types, what they see, how it ends."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hospitals_on_disk import SITES, medfed, medfed_begun, outcome, write_hospitals

ROOT = Path(__file__).parents[2]


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from medfed.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as leaving:\n    assert leaving.code == 0\n"
        "heavy = {'torch', 'pandas', 'duckdb', 'matplotlib', 'sklearn', 'scipy', 'safetensors', 'jinja2'}\n"
        "print('LOADED', sorted(heavy & sys.modules.keys()))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "LOADED []" in ended.stdout
    for command in ("demo", "run", "compare", "train", "check", "predict", "audit", "ledger", "data", "doctor"):
        assert command in ended.stdout


def test_a_run_says_what_happens_and_leaves_its_folder(tmp_path: Path) -> None:
    task = write_hospitals(tmp_path / "data")
    ended = medfed("run", task, "--output", "run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    first, second, *rounds, finished, report = ended.stdout.splitlines()
    assert first.startswith("four hospitals: fedavg, mlp (")
    assert "simulation" in second
    assert len(rounds) == 3
    for number, line in enumerate(rounds, start=1):
        assert line.startswith(f"Round {number}/3 - Nord Loss: ")
        for name in (*SITES, "Federated"):
            assert f"- {name} Loss: " in line
    assert finished == "finished after 3 rounds: the last round was reached"
    assert report == "report: run/report.html"
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "task.yaml",
        "metrics.jsonl",
        "results.json",
        "model.safetensors",
        "checkpoint",
        "ledger",
        "report.html",
        "model_card.md",
    } <= left
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_the_same_task_in_two_processes_gives_the_same_bits(tmp_path: Path) -> None:
    task = write_hospitals(tmp_path / "data", strategy="fedavg", optimizer="adam", optimizer_state="kept")
    for name, hashing in (("one", "1"), ("two", "2")):
        ended = medfed("run", task, "--output", name, "--quiet", cwd=tmp_path, PYTHONHASHSEED=hashing)
        assert ended.returncode == 0, ended.stderr
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_says_how_to_go_on_and_does(tmp_path: Path, ending: signal.Signals) -> None:
    task = write_hospitals(tmp_path / "data", rounds=150)
    process = medfed_begun("run", task, "--output", "run", cwd=tmp_path)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Round 3/"):
        assert process.poll() is None
    process.send_signal(ending)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; go on with: medfed run --resume run" in told
    assert "Traceback" not in told
    assert not (tmp_path / "run" / "results.json").exists()
    resumed = medfed("run", "--resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after round" in resumed.stdout
    assert "finished after 150 rounds" in resumed.stdout
    assert medfed("ledger", "verify", "run", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_two_parties_simulated_in_one_process(tmp_path: Path) -> None:
    shutil.copy(ROOT / "federated_train.py", tmp_path)
    for name in ("federated_task.yaml", "party_config.json"):
        shutil.copy(ROOT / "examples" / "two_parties" / name, tmp_path)
    script = ROOT / "examples" / "two_parties" / "make_data.py"
    subprocess.run([sys.executable, script, tmp_path / "local_data"], check=True)
    line = (
        "python federated_train.py --config federated_task.yaml --data ./local_data "
        "--output ./model_weights --party_config party_config.json --simulate"
    )
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def execute(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shlex.split(command), cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
        )

    ended = execute(line)
    assert ended.returncode == 0, ended.stderr
    assert "Epoch 10/10 - guest-9999 Loss: " in ended.stdout
    assert "- host-10000 Loss: " in ended.stdout
    for name in ("model.safetensors", "report.html", "results.json"):
        assert (tmp_path / "model_weights" / name).is_file()
    again = execute(line)
    assert again.returncode == 2
    assert "a finished run in this folder already" in again.stderr
    elsewhere = execute(line.replace("./model_weights", "./other"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert outcome(tmp_path / "other")["model"] == outcome(tmp_path / "model_weights")["model"]


@pytest.mark.slow
def test_the_demo_ends_with_a_report(tmp_path: Path) -> None:
    ended = medfed("demo", "--output", "demo", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "report: demo/report.html" in ended.stdout
    assert (tmp_path / "demo" / "report.html").is_file()
    for strategy in ("local", "pooled", "fedavg", "fedprox", "scaffold"):
        assert strategy in ended.stdout
        assert (tmp_path / "demo" / strategy / "results.json").is_file()
        assert (tmp_path / "demo" / strategy / "report.html").is_file()
    assert medfed("ledger", "verify", "demo/scaffold", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_the_path_of_a_newcomer_with_the_heart_data(tmp_path: Path, shared_data: Path) -> None:
    fetched = medfed("data", "fetch", "heart-disease", "--from", shared_data / "heart", cwd=tmp_path)
    assert fetched.returncode == 0, fetched.stderr
    assert "now: medfed run heart-disease/task.yaml" in fetched.stdout
    task = "heart-disease/task.yaml"
    checked = medfed("check", task, "--json", cwd=tmp_path)
    assert checked.returncode == 0
    assert json.loads(checked.stdout)["valid"] is True
    few = ("--set", "federation.epochs=3")
    ran = medfed("run", task, *few, "--output", "run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "Epoch 3/3 - Cleveland Loss: " in ran.stdout
    compared = medfed("compare", task, *few, "--output", "all", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "all" / "report.html").is_file()
    rows = (tmp_path / "heart-disease" / "cleveland" / "data.csv").read_text().splitlines()
    unlabelled = [line.rpartition(",")[0] for line in rows]
    (tmp_path / "new.csv").write_text("\n".join(unlabelled) + "\n")
    scored = medfed("predict", "run", "new.csv", "--output", "scores.csv", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    scores = (tmp_path / "scores.csv").read_text().splitlines()
    assert scores[0] == "id,probability_negative,probability_positive,predicted"
    assert len(scores) == len(rows)


def test_doctor_finds_this_machine_ready(tmp_path: Path) -> None:
    ended = medfed("doctor", "--json", cwd=tmp_path)
    findings = {found["name"]: found for found in map(json.loads, ended.stdout.splitlines())}
    assert findings["python"]["fine"]
    assert findings["torch"]["fine"]
    assert findings["keys"]["told"] == str(Path(os.environ["MEDFED_HOME"]) / "keys")
    assert ended.returncode == (0 if all(found["fine"] for found in findings.values()) else 2)


def test_doctor_says_which_key_others_may_read(tmp_path: Path) -> None:
    assert medfed("doctor", cwd=tmp_path, MEDFED_HOME=str(tmp_path / "home")).returncode == 0
    (tmp_path / "home" / "keys" / "simulation.key").chmod(0o644)
    ended = medfed("doctor", cwd=tmp_path, MEDFED_HOME=str(tmp_path / "home"))
    assert ended.returncode == 2
    assert "FAIL  keys" in ended.stdout
    assert "chmod 600" in ended.stdout


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    task = write_hospitals(tmp_path / "data")
    process = subprocess.run(
        f"{shlex.quote(sys.executable)} -m medfed check {shlex.quote(str(task))} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in process.stderr
    assert "Broken" not in process.stderr
