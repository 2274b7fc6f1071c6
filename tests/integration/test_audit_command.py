"""``medfed audit`` as people call it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hospitals_on_disk import medfed, write_hospitals


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    task = write_hospitals(folder / "data")
    assert medfed("run", task, "--output", "run", "--quiet", cwd=folder).returncode == 0
    return folder


def test_it_says_what_came_back_and_where_to_read_it(run: Path) -> None:
    ended = medfed("audit", "run", "--quick", cwd=run)
    assert ended.returncode == 0, ended.stderr
    *_, members, canaries, page = ended.stdout.splitlines()
    assert members.startswith("Who was among the patients: ")
    assert canaries.startswith("Planted records: epsilon at least ")
    assert page == "page: run/audit.html"
    assert (run / "run" / "audit.html").is_file()


def test_programs_get_one_object(run: Path) -> None:
    ended = medfed("audit", "run", "--attacks", "labels,inversion", "--json", cwd=run)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["inversion"]["single"]["count"] > found["inversion"]["single"]["of"] / 2
    assert found["membership"] is None
    assert {each["attack"] for each in found["not_tried"]} == {"reconstruction", "membership", "canary"}


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("run", "--attacks", "luck"), "no attack is called 'luck'"),
        (("run", "--models", "10"), "8, 12, 16"),
        (("run", "--data", "nowhere"), "no such data folder"),
        (("nothing",), "there is no run in this folder"),
    ],
)
def test_mistakes_are_told_with_a_remedy(run: Path, arguments: tuple[str, ...], cause: str) -> None:
    ended = medfed("audit", *arguments, cwd=run)
    assert ended.returncode == 2
    assert cause in ended.stderr
    assert "remedy:" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_the_demo_can_be_audited_in_minutes(tmp_path: Path) -> None:
    assert medfed("demo", "--quiet", "--output", "demo", cwd=tmp_path).returncode == 0
    begun = time.monotonic()
    ended = medfed("audit", "demo/fedavg", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - begun < 180
    refused = medfed("audit", "demo", cwd=tmp_path)
    assert refused.returncode == 2
    assert "comparison" in refused.stderr
