"""The report in a real browser: it loads nothing, complains of nothing, and fits a phone and a desk."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "report"))

from audits import LOUD
from explained_sites import site
from report_folders import Kind, compare_folder, run_folder

from medfed.report import write_report
from medfed.report.audit_page import write_audit
from medfed.report.explanation_page import write_explanation

CHROMIUM, DRIVER = shutil.which("chromium"), "/usr/bin/chromedriver"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and Path(DRIVER).exists()), reason="Chromium is not installed"),
]
EVIL = ("<script>alert(1)</script>", "$x^2_\\frac$", "A" * 60, '"><img src=x onerror=alert(1)>')
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("pages")
    folders = {
        "run": run_folder(made / "run", Kind(rounds=10)),
        "single": run_folder(made / "single", Kind(sites=("Cleveland",), rounds=1)),
        "forty": run_folder(made / "forty", Kind(sites=tuple(f"Hospital {i:02d}" for i in range(40)), rounds=3)),
        "evil": run_folder(made / "evil", Kind(sites=EVIL, rounds=3)),
        "comparison": compare_folder(made / "comparison", ("local", "pooled", "fedavg"), rounds=3),
    }
    explained = {noun: write_explanation(site(image=noun == "images"), made / noun) for noun in ("images", "rows")}
    (folders["run"] / "audit.json").write_text(json.dumps(asdict(LOUD)))
    return (
        explained
        | {"audit": write_audit(folders["run"])}
        | {name: write_report(folder) for name, folder in folders.items()}
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def visit(browser: Any, page: Path, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")


def requests(browser: Any) -> set[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}


NAMES = ("run", "single", "forty", "evil", "comparison")


@pytest.mark.parametrize("name", [*NAMES, "audit", "images", "rows"])
@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_loads_nothing_and_complains_of_nothing(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    requests(browser)
    browser.get_log("browser")
    visit(browser, pages[name], width, scheme)

    assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [
        width,
        width,
    ]
    assert {url for url in requests(browser) if not url.startswith("data:")} == {pages[name].as_uri()}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [375, 1280])
def test_every_figure_has_a_size_and_legible_text(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:
    visit(browser, pages[name], width, "light")
    figures = browser.execute_script("""
        return [...document.querySelectorAll('figure svg')].map(svg => {
          const box = svg.getBoundingClientRect();
          const texts = [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect());
          return {
            width: box.width, height: box.height,
            smallest: Math.min(...texts.map(t => t.height)),
            outside: texts.filter(t => t.left < box.left - 1 || t.right > box.right + 1).length,
          };
        })""")
    assert len(figures) >= 6
    for figure in figures:
        assert figure["width"] >= 250
        assert figure["height"] >= 60
        assert figure["smallest"] >= 10
        assert figure["outside"] == 0


def test_figures_follow_the_colour_scheme(browser: Any, pages: dict[str, Path]) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        visit(browser, pages["comparison"], 1280, scheme)
        seen[scheme] = browser.execute_script("""
            const fill = e => getComputedStyle(e).fill;
            const page = getComputedStyle(document.body).backgroundColor;
            return [page, ...new Set([...document.querySelectorAll('figure svg text')].map(fill))]""")
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert len(seen["light"]) == len(seen["dark"]) > 1
    assert not set(seen["light"]) & set(seen["dark"])


def test_a_wide_table_scrolls_in_its_own_box(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["run"], 375, "light")
    widths = browser.execute_script("""
        return [...document.querySelectorAll('.scroll')].map(box => [box.scrollWidth, box.clientWidth])""")
    assert any(content > box for content, box in widths)


@pytest.mark.parametrize("width", [390, 1280])
def test_every_picture_of_an_explanation_is_drawn_and_the_warning_is_large(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    visit(browser, pages["images"], width, "light")
    drawn = browser.execute_script("""
        const pictures = [...document.querySelectorAll('img.picture')];
        return pictures.map(each => [each.naturalWidth, each.getBoundingClientRect().width])""")
    assert len(drawn) == 9 and all(natural >= 100 and shown >= 200 for natural, shown in drawn)
    size, body = browser.execute_script("""
        const size = which => parseFloat(getComputedStyle(document.querySelector(which)).fontSize);
        return [size('.shout'), size('main p')]""")
    assert size >= 1.2 * body
