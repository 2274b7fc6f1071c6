"""What a de-identification did, as counts: the report, in which no identifier is."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from medfed.data.deidentify.burned_in import Suspicion
from medfed.data.deidentify.journal import Action, Line
from medfed.data.deidentify.refusals import Refusal

FORMAT = "medfed de-identification 1"
REASONS = {reason.name.lower(): reason.value for reason in (*Refusal, *Suspicion)}
"""What the codes of refusals and suspicions mean."""


@dataclass(frozen=True)
class Settings:
    """What all files of one copy have in common.

    rules: a number that changes with the rules. edition: of the standard's table. key: the fingerprint of the site's
    key. kept: what the site keeps beyond the profile. earliest, latest: days by which dates may become earlier.
    """

    rules: int
    edition: str
    key: str
    kept: tuple[str, ...]
    earliest: int
    latest: int


@dataclass
class Summary:
    """The counts of a copy as it stands after a run, by what became of the source files.

    accepted: copied after a person's look. done_before: nothing was to be done again. gone: copies, and files in
    quarantine, that no source file stands behind any more; removed: those that this run removed.
    """

    settings: Settings
    medfed: str
    finished: bool = False
    done_before: int = 0
    accepted: int = 0
    gone: int = 0
    removed: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set, repr=False)

    @property
    def copied(self) -> int:
        """Files in the copy."""
        return self.actions[Action.COPIED]

    def count(self, line: Line, *, before: bool) -> None:
        """Count a source file; before: it was done in an earlier run."""
        self.done_before += before
        self.actions[line.action] += 1
        if line.action is Action.QUARANTINED:
            self.quarantined[line.reason] += 1
        elif line.action is Action.REFUSED:
            self.refused[line.reason] += 1
        elif line.action is Action.COPIED:
            self.accepted += line.looked_at
            self.deeds.update(line.deeds)
            self.texts.update(line.texts)
            self.patients.add(line.copy.split("/")[0])

    def as_json(self) -> dict[str, Any]:
        """The content of ``deidentification.json``."""
        return {
            "format": FORMAT,
            "medfed": self.medfed,
            "finished": self.finished,
            "settings": asdict(self.settings),
            "files": self.actions.total(),
            "copied": self.copied,
            "accepted": self.accepted,
            "doubles": self.actions[Action.DOUBLE],
            "quarantined": dict(sorted(self.quarantined.items())),
            "refused": dict(sorted(self.refused.items())),
            "done_before": self.done_before,
            "gone": self.gone,
            "removed": self.removed,
            "patients": len(self.patients),
            "attributes": dict(sorted(self.deeds.items())),
            "texts_removed": dict(sorted(self.texts.items())),
        }
