"""Writing the HTML report of a run folder, or of a compare folder."""

from __future__ import annotations

from pathlib import Path

from medfed.core.files import write_atomically
from medfed.report.compare_page import compare_page
from medfed.report.folder import RunFolder, is_comparison, read_comparison, read_cross_site, read_run
from medfed.report.rendering import templates
from medfed.report.run_page import run_page


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, or into a compare folder and every run folder below it.

    The same files give the same bytes. Raises RunFolderError where a file is missing, malformed or cannot be
    written.
    """
    if not is_comparison(folder):
        return write_page_of(read_run(folder), folder)
    comparison = read_comparison(folder)
    for strategy in comparison.runs:
        write_report(folder / comparison.folders[strategy])
    html = templates().get_template("compare.html.j2").render(page=compare_page(comparison, read_cross_site(folder)))
    return _written(folder, html)


def write_page_of(run: RunFolder, folder: Path) -> Path:
    """Write the report of a run that was read from that folder."""
    audited = (folder / "audit.html").is_file()
    page = run_page(run, compared=is_comparison(folder.resolve().parent), audited=audited)
    return _written(folder, templates().get_template("run.html.j2").render(page=page))


def _written(folder: Path, html: str) -> Path:
    write_atomically(folder / "report.html", html)
    return folder / "report.html"
