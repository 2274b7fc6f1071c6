from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medfed.engine.deployed.cohorts import cohort_key
from medfed.engine.deployed.folders import SiteFolder


def test_all_who_ask_first_at_the_same_moment_have_the_same_key(tmp_path: Path) -> None:
    """A steward's command and the site's processes for its first jobs: an approval holds for rows by their digest."""
    for number in range(10):
        folder = SiteFolder(tmp_path / str(number))
        with ThreadPoolExecutor(8) as asking:
            keys = {each.result() for each in [asking.submit(cohort_key, folder) for _ in range(8)]}
        assert keys == {(folder.path / "keys" / "cohort.key").read_bytes()}
