"""The public keys of the other parties to a task, as the coordinator told them with its first proposal."""

from __future__ import annotations

import json

from medfed.core.errors import Refused
from medfed.engine.deployed.folders import SiteFolder
from medfed.govern.explanation import Passage
from medfed.govern.keys import VerifyKey
from medfed.govern.proofs import fingerprint
from medfed.spec.task import TaskSpec


def told_keys(folder: SiteFolder, digest: str) -> dict[str, VerifyKey]:
    """Each other party's key. Raises Refused where none were told."""
    path = folder.proposals / digest / "parties.json"
    if not path.exists():
        raise Refused("the parties to this task are not known here", remedy="propose the task once more")
    told = json.loads(path.read_text())
    return {party: VerifyKey(bytes.fromhex(key)) for party, key in told.items()}


def partners(folder: SiteFolder, digest: str, task: TaskSpec) -> Passage:
    """What a steward reads of the keys on which hidden sums rest, which the hospitals alone can compare."""
    keys = {site: key for site, key in told_keys(folder, digest).items() if site in task.sites}
    lines = [f"“{site}”: {fingerprint(key)}" for site, key in sorted(keys.items())]
    return Passage(
        "On whose keys the totals rest",
        (
            "The coordinator told these keys. One that invents hospitals could read this one's part: call them and "
            "compare, each finds its own as the last line of its page.",
            *lines,
            f"this hospital: {fingerprint(folder.key().verify_key)}",
        ),
    )
