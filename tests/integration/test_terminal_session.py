"""On a terminal, where bars are drawn: a comparison of several strategies shows one bar after the other."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest


def on_a_terminal(*arguments: str, cwd: Path) -> tuple[int, str]:
    """The exit status of ``medfed`` on a pseudo-terminal, and all that it showed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    command = [sys.executable, "-m", "medfed", *arguments]
    process = subprocess.Popen(command, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode()


@pytest.mark.slow
def test_the_demo_on_a_terminal(tmp_path: Path) -> None:
    status, shown = on_a_terminal("demo", "--output", "demo", cwd=tmp_path)
    assert status == 0, shown
    assert "Traceback" not in shown
    for strategy in ("local", "pooled", "fedavg", "fedprox", "scaffold"):
        assert f"breast cancer: {strategy}, mlp" in shown
    assert shown.count("Epoch 20/20") == 5
    assert "━" in shown
    assert (tmp_path / "demo" / "report.html").exists()
