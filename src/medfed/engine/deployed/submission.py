"""A task on its way: what ``medfed submit`` leaves in the run's folder, and what the run tells back through it.

The command and the coordinator's service are two processes; they talk through files, so that either may end and begin
again at any moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, RunFolderError
from medfed.core.files import write_atomically
from medfed.govern.proposals import Proposal


@dataclass(frozen=True)
class Wish:
    """What is wanted of a run.

    wait: seconds to wait for approvals, None: for ever. hand_over: to wait, also for ever, until every site has the
    model; else only those that answer get it.
    """

    propose_only: bool = False
    wait: float | None = None
    hand_over: bool = False


@dataclass(frozen=True)
class Submission:
    """A run's folder as a submission."""

    folder: Path

    @property
    def run(self) -> str:
        """The run's id, which names the folder."""
        return self.folder.name

    @property
    def wanted(self) -> bool:
        """Whether the run is to go on: it was submitted, and neither finished nor failed nor stopped."""
        return (self.folder / "wish.json").exists()

    def begin(self, proposal: Proposal, wish: Wish) -> None:
        """Ask for the run."""
        write_atomically(self.folder / "proposal.bin", encode(proposal), durable=True)
        self.ask(wish)

    def ask(self, wish: Wish) -> None:
        """Ask for a run that was proposed before to go on."""
        write_atomically(self.folder / "wish.json", json.dumps(asdict(wish)), durable=True)

    def wish(self) -> Wish:
        """What is wanted. Raises RunFolderError where nothing is, or the file is damaged."""
        try:
            return Wish(**json.loads((self.folder / "wish.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError("the run is not asked for", where=str(self.folder)) from error

    def settle(self) -> None:
        """Nothing more is wanted."""
        (self.folder / "wish.json").unlink(missing_ok=True)

    def proposal(self) -> Proposal:
        """What was proposed. Raises RunFolderError where it is damaged."""
        try:
            return decode((self.folder / "proposal.bin").read_bytes(), Proposal)
        except (OSError, CodecError) as error:
            raise RunFolderError("the proposal is absent or damaged", where=str(self.folder)) from error

    def members(self) -> tuple[str, ...] | None:
        """The sites that approved before the first round, once it began: the run's for good."""
        path = self.folder / "members.json"
        return tuple(json.loads(path.read_text())) if path.exists() else None

    def freeze_members(self, sites: tuple[str, ...]) -> None:
        """These sites take part, to the end."""
        write_atomically(self.folder / "members.json", json.dumps(sites), durable=True)

    # ---------------------------------------------------------------------------------------------------- events

    def tell(self, event: str, **fields: Any) -> None:
        """Append an event for whoever follows the run."""
        line = json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n"
        descriptor = os.open(self.folder / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def events(self, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """(bytes read so far, event) of each whole line from a position on."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(after)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                after += len(line)
                yield after, json.loads(line)


def submissions(runs: Path) -> list[Submission]:
    """Every run that is wanted, oldest first."""
    found = [Submission(path.parent) for path in runs.glob("*/wish.json")]
    return sorted(found, key=lambda each: (each.folder / "wish.json").stat().st_mtime)
