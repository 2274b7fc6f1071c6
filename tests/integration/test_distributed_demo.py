"""``medfed demo --distributed`` from its beginning to its end, and when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "medfed.cli.main", "demo", "--distributed", "--json", "--output"]


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_the_demo_shows_all_of_it(tmp_path: Path) -> None:
    ended = subprocess.run([*COMMAND, tmp_path / "demo"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    commands = [" ".join(each["command"][1:3]) for each in told if each["event"] == "command"]
    assert commands.count("coordinator admit") == commands.count("site approve") == 3
    assert "ledger verify" in commands
    output = "\n".join(line for each in told if each["event"] == "command" for line in each["output"])
    assert "What would leave this hospital" in output
    assert "round 12: " in output
    assert "failed" not in output
    assert any("rural: revoked" in each.get("sentence", "") for each in told)
    assert told[-1]["event"] == "finished"
    run = Path(told[-1]["run"])
    assert (run / "report.html").is_file()
    model = (run / "model.safetensors").read_bytes()
    kept = [path.read_bytes() for path in (tmp_path / "demo" / "sites").glob("*/models/*/model.safetensors")]
    assert kept == [model] * 3
    assert not processes_of(tmp_path)


def listen_to_ctrl_c() -> None:
    """As at a terminal; what a shell starts in the background is told not to."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, tmp_path / "demo"],
            stdout=log,
            stderr=log,
            env=os.environ.copy(),
            preexec_fn=listen_to_ctrl_c,  # noqa: PLW1509
        )
    while "They train" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    assert processes_of(tmp_path / "demo" / "sites")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=90) == 130
    left = time.monotonic() + 5  # a job's process ends within a second of its parent
    while processes_of(tmp_path / "demo" / "sites") and time.monotonic() < left:
        time.sleep(0.1)
    assert not processes_of(tmp_path / "demo")
    assert "Traceback" not in (tmp_path / "log").read_text()
