"""The report of a run: what it says, that it is well-formed, loads nothing, and is the same again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from html_outline import Outline
from hypothesis import given, settings
from hypothesis import strategies as st
from report_folders import HOSPITALS, Kind, compare_folder, results, run_folder, write_metrics

from medfed.report import write_report

EVIL = ("<script>alert(1)</script>", "$x^2_\\frac$", "北京协和医院", '"><img src=x onerror=y>', "--><b>&amp;")
MANY = tuple(f"Hospital {i:02d}" for i in range(40))
KINDS = {
    "four": Kind(rounds=12),
    "one site, one round": Kind(sites=("Cleveland",), rounds=1),
    "forty": Kind(sites=MANY, rounds=2),
    "sixty": Kind(sites=tuple(f"Hospital {i:02d}" for i in range(60)), rounds=3),
    "evil": Kind(sites=EVIL, rounds=3),
    "valueless": Kind(rounds=3, valueless=True),
    "regression": Kind(rounds=3, task_type="regression"),
    "interrupted": Kind(rounds=3, status="interrupted"),
}


def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=list(KINDS))
def html(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(run_folder(tmp_path_factory.mktemp("run") / "run", KINDS[request.param]))


def test_it_loads_nothing_and_runs_nothing(html: str) -> None:
    outline = Outline(html)
    assert not {"script", "img", "iframe", "object", "image", "base"} & set(outline.tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    assert [a["href"] for a in outline.named("link")] == ["data:,"]
    policy = next(a["content"] for a in outline.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not any(key.startswith("on") for _tag, attributes in outline.elements for key in attributes)


def test_it_is_well_formed_and_accessible(html: str) -> None:
    outline = Outline(html)
    assert outline.open == []
    ids = [a["id"] for _tag, a in outline.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"] for a in outline.named("a", "use")}
    assert {str(link)[1:] for link in links} <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)
    assert outline.named("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("scope") in ("col", "row") for a in outline.named("th"))
    assert outline.tags.count("figure") == outline.tags.count("figcaption")
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in outline.named("svg"))


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    outline = Outline(page(run_folder(tmp_path / "run", KINDS["evil"])))
    assert all(name in outline.text for name in EVIL)


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(
    lambda n: n.strip() and n not in ("federated", "pooled", "coordinator")  # which stand for no hospital
)


@cache
def tags_of_a_page_about(site: str) -> list[str]:
    kind = Kind(sites=(site, "Other hospital"), rounds=1)
    with TemporaryDirectory() as made:
        folder = Path(made)
        write_metrics(folder, kind)
        (folder / "results.json").write_text(json.dumps(results(kind)))
        return [tag for tag in Outline(page(folder)).tags if tag not in ("tspan", "text")]


@settings(max_examples=8, deadline=None)
@given(NAMES)
def test_no_name_of_a_site_changes_the_page_around_it(name: str) -> None:
    assert tags_of_a_page_about(name) == tags_of_a_page_about("Hospital")


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", Kind(rounds=3))
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    code = "import sys, pathlib, medfed.report as r; r.write_report(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, folder], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert (folder / "report.html").read_bytes() == first


def test_the_headline_tells_what_the_numbers_tell(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    values = {"A": (0.6, 0.8), "B": (0.7, 0.65), "federated": (0.65, 0.75)}
    lines = [
        {"round": r + 1, "site": site, "split": "validation", "metric": "auc", "value": v, "n": 50}
        for r in (0, 1)
        for site, (*both,) in values.items()
        for v in [both[r]]
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = Outline(page(folder)).text
    assert (
        "Two hospitals trained one model together in 2 rounds; the federated validation AUC rose from "
        "0.650 (round 1) to 0.750 (round 2), and it improved at one of two hospitals." in text
    )
    assert "No results were written" in text
    assert "B: validation AUC fell from 0.700 (round 1) to 0.650 (round 2)." in text


def test_what_does_not_exist_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    html = page(run_folder(tmp_path / "run", KINDS["four"]))
    row = re.search(r'<tr><th scope="row">Switzerland</th><td class="num">30</td>.*?</tr>', html, re.DOTALL)
    assert row and row.group().count("—<sup>") == 2
    assert '<li id="final-1-a"><b>a</b> one class only</li>' in html
    assert "± 0.0004" in html


def test_a_withheld_value_is_called_so(tmp_path: Path) -> None:
    html = page(run_folder(tmp_path / "run", KINDS["valueless"]))
    assert html.count('<td class="num">withheld</td>') >= 30
    assert "no metric has a value" in html


def test_what_left_is_summed_from_the_ledger(tmp_path: Path) -> None:
    text = Outline(page(run_folder(tmp_path / "run", Kind(rounds=50)))).text
    # 312 + 50·152 + 50·240 + 50·16128 bytes in 151 releases
    assert "151 releases, 826.3 kB" in text
    assert "delta float32[14], rows int64" in text
    assert "fewer than 5 patients share a level" in text
    assert "no answer within 30 s" in text
    assert "policies of simulated hospitals are permissive" in text
    assert "hides nothing from either of them" in text
    assert "medfed ledger verify run" in text


FILES = ("results.json", "sheets.json", "environment.json", "metrics.jsonl", "task.yaml", "ledger")


@pytest.mark.parametrize("absent", FILES)
def test_a_report_is_made_of_what_there_is(tmp_path: Path, absent: str) -> None:
    folder = run_folder(tmp_path / "run", Kind(sites=HOSPITALS[:2], rounds=1, task_type="regression"))
    (folder / absent).rename(tmp_path / "gone")
    assert all(site in Outline(page(folder)).text for site in HOSPITALS[:2])


def test_baselines_are_not_called_federated(tmp_path: Path) -> None:
    text = Outline(page(run_folder(tmp_path / "run", Kind(rounds=2, strategy="local")))).text
    assert "Each of four hospitals trained a logistic model of its own" in text
    assert "All hospitals" in text
    assert "federated validation" not in text


def test_a_run_of_a_comparison_leads_back_to_it(tmp_path: Path) -> None:
    folder = compare_folder(tmp_path / "cmp", ("local", "fedavg"), rounds=2)
    assert 'href="../report.html"' in page(folder / "fedavg")


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_stand_out_in_every_theme(tmp_path: Path) -> None:
    html = page(run_folder(tmp_path / "run", Kind(rounds=1)))
    themes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    ]
    assert len(themes) == 3
    for theme in themes:
        for ground in ("page", "band"):
            assert min(contrast(theme[name], theme[ground]) for name in ("ink", "soft", "accent")) >= 4.5
            assert min(contrast(theme[f"series-{i}"], theme[ground]) for i in range(7)) >= 3
        assert contrast(theme["ink"], theme["warn-wash"]) >= 4.5
        assert contrast(theme["ink"], theme["accent-wash"]) >= 4.5
