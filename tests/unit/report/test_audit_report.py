from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from audits import LOUD, QUIET
from html_outline import Outline
from report_folders import Kind, run_folder

from medfed.attacks.results import Attack, Audit, Canaries, NotTried
from medfed.core.errors import RunFolderError
from medfed.report import write_report
from medfed.report.audit_findings import findings
from medfed.report.audit_page import write_audit


def page(folder: Path, audit: Audit) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "audit.json").write_text(json.dumps(asdict(audit)))
    return write_audit(folder).read_text()


def text(folder: Path, audit: Audit) -> str:
    return " ".join(Outline(page(folder, audit)).text.split())


def test_attacks_that_got_nothing_are_told_so_and_prove_nothing(tmp_path: Path) -> None:
    told = text(tmp_path, QUIET)
    assert "Five attacks on this run were tried" in told
    assert "None got more out of it, as it was trained, than a guess would." in told
    assert "it proves nothing about others" in told
    assert "do come back" not in told
    assert not any(each.serious for each in findings(QUIET))


def test_attacks_that_got_something_are_told_in_the_first_sentences(tmp_path: Path) -> None:
    told = text(tmp_path, LOUD)
    assert "Four of them told more than a guess would" in told
    assert "Single images, sent alone, do come back" in told
    assert "40 times as often as outsiders" in told.replace("40.0", "40")
    assert "epsilon at least 2.7" in told


@pytest.mark.parametrize(
    ("epsilon", "accounted", "expected", "serious"),
    [
        (0.0, 3.0, "as it must", False),
        (3.4, 3.0, "does not hold: report it", True),
        (0.0, None, "promised no bound", False),
        (2.5, None, "promised no bound", True),
    ],
)
def test_what_was_measured_stands_beside_what_was_accounted(
    tmp_path: Path, epsilon: float, accounted: float | None, expected: str, serious: bool
) -> None:
    canary = Canaries(8, 240, 120, 110, 0.95, 1e-5, epsilon, accounted)
    assert expected in text(tmp_path, replace(QUIET, canary=canary))
    assert findings(replace(QUIET, canary=canary))[-1].serious is serious


def test_what_was_not_tried_is_told_with_its_reason(tmp_path: Path) -> None:
    reasons = (
        NotTried(Attack.RECONSTRUCTION, "the records are no images"),
        NotTried(Attack.CANARY, "it was not asked for"),
    )
    told = text(tmp_path, replace(QUIET, reconstruction=None, canary=None, not_tried=reasons))
    assert "Images rebuilt from gradients: the records are no images." in told
    assert "Planted records: it was not asked for." in told
    assert "A coordinator that cheats" in told


def test_whose_updates_were_attacked_is_told(tmp_path: Path) -> None:
    assert "each site’s update of the first round, 4 updates" in text(tmp_path, QUIET)
    assert "totals over the sites alone" in text(tmp_path, replace(QUIET, total=True))
    assert "between hospitals" in text(tmp_path, replace(QUIET, simulation=False))


@pytest.mark.parametrize("audit", [QUIET, LOUD, replace(QUIET, **dict.fromkeys([a.value for a in Attack]))])
def test_the_page_is_well_formed_loads_nothing_and_escapes_names(tmp_path: Path, audit: Audit) -> None:
    html = page(tmp_path, audit)
    outline = Outline(html)
    assert not outline.open[2:]
    assert "<script" not in html
    assert "img" not in outline.tags
    assert not [a for a in outline.named("link", "script") if not str(a.get("href", "data:")).startswith("data:")]
    headings = {a["id"] for a in outline.named("h2")}
    assert {str(a["href"])[1:] for a in outline.named("a") if str(a["href"]).startswith("#")} <= headings
    assert page(tmp_path, audit) == html


def test_the_report_of_the_run_and_the_page_link_to_each_other(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(rounds=2))
    assert "audit.html" not in write_report(folder).read_text()
    assert 'href="report.html"' in page(folder, QUIET)
    assert 'href="audit.html"' in write_report(folder).read_text()


def test_a_run_that_was_not_audited_or_a_damaged_audit_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="was not audited"):
        write_audit(tmp_path)
    (tmp_path / "audit.json").write_text('{"name": 3}')
    with pytest.raises(RunFolderError, match="malformed"):
        write_audit(tmp_path)
