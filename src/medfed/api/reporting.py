"""The pages that a run or a comparison leaves."""

from __future__ import annotations

from pathlib import Path

from medfed.api.tasks import FilePath


def write_report(folder: FilePath) -> Path:
    """Write a run's or a comparison's ``report.html`` anew, with a run's model card; returns the report."""
    from medfed.report.card import write_card_of
    from medfed.report.folder import is_comparison, read_run
    from medfed.report.page import write_page_of
    from medfed.report.page import write_report as write_page

    place = Path(folder)
    if is_comparison(place) or not (place / "task.yaml").exists():
        return write_page(place)
    run = read_run(place)
    write_card_of(run, place)
    return write_page_of(run, place)
