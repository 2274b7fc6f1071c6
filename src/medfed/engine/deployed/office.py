"""The ledger of what happens at a party outside of runs: proposals, decisions, policies, and requests gone astray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medfed.engine.deployed.folders import SiteFolder
from medfed.govern.entries import OFFICE
from medfed.govern.ledger import Ledger, open_briefly


@contextmanager
def office_ledger(site_folder: Path) -> Iterator[Ledger]:
    """A site's office ledger, held for as short as can be, since commands and a running site share it.

    Raises Refused where it cannot be written.
    """
    folder = SiteFolder.open(site_folder)
    with open_briefly(folder.ledger(OFFICE), folder.key(), folder.site) as ledger:
        yield ledger
