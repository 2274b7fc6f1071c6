"""The run folder: what a run leaves on disk, and how it is continued after a kill at any moment.

The order within a round decides: metrics are appended, then the checkpoint is renamed into place with the length
that the metrics then had. It was written over the last but one, so two are there until the run is over. Whatever a
kill leaves behind the last checkpoint is cut off when the run is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from medfed.core.codec import decode, parts
from medfed.core.errors import CodecError, RunFolderError
from medfed.core.files import write_atomically
from medfed.core.messages import Message
from medfed.engine.process import RoundMetrics, Row, RunState
from medfed.engine.start import Source
from medfed.metrics.measure import Measure, Measures


@dataclass(frozen=True)
class Origin:
    """Where a run came from: its id, the folder of its data, and when it began (ISO 8601)."""

    run: str
    data: str
    started: str


@dataclass(frozen=True, eq=False)
class Checkpoint(Message, wire="run.checkpoint"):
    """A state, and the bytes of ``metrics.jsonl`` that belong to it."""

    state: RunState
    metrics_bytes: int


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, new or to be continued."""

    path: Path

    @classmethod
    def create(cls, path: Path, task: str, origin: Origin, sources: Iterable[Source] = ()) -> RunFolder:
        """A new folder with the resolved task, and what the run begins from.

        Raises RunFolderError where another run is in it already.
        """
        if (path / "task.yaml").exists():
            finished = cls(path).finished
            go_on = f"read {path / 'report.html'}" if finished else f"go on with it: medfed run --resume {path}"
            raise RunFolderError(
                f"there is a {'finished' if finished else 'begun'} run in this folder already",
                where=str(path),
                remedy=f"{go_on}; or name another folder by --output",
            )
        try:
            (path / "checkpoint").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"the folder cannot be made ({error.strerror})", where=str(path)) from error
        folder = cls(path)
        for source in sources:
            source.keep(path)
        folder.write_json("origin.json", asdict(origin))
        write_atomically(path / "task.yaml", task)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing folder. Raises RunFolderError where there is no run in it."""
        if not (path / "task.yaml").is_file():
            raise RunFolderError(
                "there is no run in this folder",
                where=str(path),
                remedy="name the folder that medfed run printed",
            )
        return cls(path)

    @property
    def task(self) -> Path:
        """The resolved task."""
        return self.path / "task.yaml"

    @property
    def begun(self) -> bool:
        """Whether a state was checkpointed."""
        return bool(self._checkpoints())

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "results.json").is_file()

    def origin(self) -> Origin:
        """Where the run came from. Raises RunFolderError where the file is damaged."""
        try:
            return Origin(**json.loads((self.path / "origin.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError("origin.json is absent or damaged", where=str(self.path)) from error

    def record(self, state: RunState, metrics: RoundMetrics | None = None) -> None:
        """Append a round's metrics, then checkpoint its state. Raises RunFolderError where the disk is full."""
        file = self.path / "metrics.jsonl"
        lines = "".join(f"{json.dumps(_line(row), ensure_ascii=False)}\n" for row in metrics.rows) if metrics else ""
        try:
            with file.open("ab") as stream:
                stream.write(lines.encode())
            written = file.stat().st_size
        except OSError as error:
            raise RunFolderError(
                f"cannot write ({error.strerror})",
                where=str(file),
                remedy=f"free disk space, then: medfed run --resume {self.path}",
            ) from error
        others = sorted(set(self._checkpoints()) - {state.round})
        spare = self._checkpoint(others.pop(0)) if len(others) > 1 else None
        write_atomically(self._checkpoint(state.round), parts(Checkpoint(state, written)), spare=spare)
        for number in others if state.stopped else others[:-1]:
            self._checkpoint(number).unlink(missing_ok=True)

    def restore(self) -> RunState | None:
        """The last checkpointed state, or None; what was written after it is cut off."""
        file, found = self.path / "metrics.jsonl", self._checkpoints()
        if not found:
            file.unlink(missing_ok=True)
            return None
        path = self._checkpoint(max(found))
        try:
            checkpoint = decode(path.read_bytes(), Checkpoint)
        except CodecError as error:
            raise RunFolderError("the checkpoint is damaged", where=str(path), remedy="start a new run") from error
        with file.open("ab") as stream:
            stream.truncate(checkpoint.metrics_bytes)
        return checkpoint.state

    def _checkpoint(self, number: int) -> Path:
        """The file of a round's state: one of its own, since renaming over another waits for the disk."""
        return self.path / "checkpoint" / f"state-{number}"

    def _checkpoints(self) -> list[int]:
        """The rounds whose states are there: the last one's is whole; the one before may be half written over."""
        return [int(path.name.partition("-")[2]) for path in (self.path / "checkpoint").glob("state-*")]

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file whole."""
        pieces = json.JSONEncoder(indent=1, ensure_ascii=False, allow_nan=False).iterencode(content)
        write_atomically(self.path / name, chain(pieces, ("\n",)))

    def write_sheets(self, sheets: Mapping[str, str]) -> None:
        """Write ``sheets.json`` from each site's sheet, which is JSON already: a line each, in order."""
        lines = (f"{json.dumps(site, ensure_ascii=False)}: {sheet}" for site, sheet in sorted(sheets.items()))
        write_atomically(self.path / "sheets.json", "{\n" + ",\n".join(lines) + "\n}\n")


def _line(row: Row) -> dict[str, Any]:
    return {"round": row.round, "site": row.site, "split": row.split, **measured(row)}


def measured(row: Row) -> dict[str, Any]:
    """A measure as JSON: ``n`` is null where the measure is withheld; error and reason only where there is one."""
    return fields_of(row.measure)


def by_metric(measures: Measures) -> dict[str, dict[str, Any]]:
    """Measures as JSON, by metric, in the form of ``results.json``."""
    return {
        measure.metric: {k: v for k, v in fields_of(measure).items() if k != "metric"} for measure in measures.measures
    }


def fields_of(measure: Measure) -> dict[str, Any]:
    """A measure as JSON, as :func:`measured`."""
    fields = {"metric": measure.metric, "value": measure.value, "n": measure.n if measure.n else None}
    if measure.error is not None:
        fields["error"] = measure.error
    if measure.reason is not None:
        fields["reason"] = measure.reason
    return fields
