"""What a run begins from where a task names pretrained weights: found, checked, and copied into the run's folder.

The folder's copy alone is read from then on, so that a run can be resumed wherever it is, and the task that travels to
sites holds a digest and no path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medfed.core.codec import decode
from medfed.core.errors import CodecError, RunFolderError, TaskError, UserError
from medfed.core.files import write_atomically
from medfed.data.encoding import Encoding, continued
from medfed.spec.loading import TaskFile, load_task
from medfed.spec.task import Pretrained, TaskSpec

if TYPE_CHECKING:
    from medfed.models.network import Network

_WEIGHTS, _ENCODING = "model.safetensors", "encoding.bin"


@dataclass(frozen=True)
class Source:
    """The content of a weights file, and that of the encoding of an earlier run's rows, if it is a run's.

    kept: the name of its copy in a run's folder.
    """

    weights: bytes
    encoding: bytes | None = None
    kept: str = "start"

    @property
    def starts(self) -> bool:
        """Whether the run begins from it: it is no teacher."""
        return self.kept == "start"

    def keep(self, folder: Path) -> None:
        """Copy it into a run's folder."""
        place = folder / self.kept
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / _WEIGHTS, self.weights)
        if self.encoding is not None:
            write_atomically(place / _ENCODING, self.encoding)


@dataclass(frozen=True)
class Start:
    """A run folder's copy of what the run begins from. told: what the task says of it."""

    place: Path
    told: Pretrained

    @classmethod
    def of(cls, folder: Path, task: TaskSpec) -> Start | None:
        """The start of the run in a folder; None where its network starts afresh."""
        return None if task.model.pretrained is None else cls(folder / "start", task.model.pretrained)

    def apply(self, network: Network) -> None:
        """Give the network its first weights. Raises UserError where they do not fit, RunFolderError."""
        from medfed.models.pretrained import load_pretrained

        load_pretrained(network, kept_weights(self.place, self.told.sha256), self.told)

    def encoding(self, agreed: Encoding) -> Encoding | None:
        """The earlier run's encoding, under which its weights mean what they do; None where they are of no run.

        Raises UserError where the sites' rows have other columns, levels or classes.
        """
        if self.told.parent is None:
            return None
        return continued(kept_encoding(self.place), agreed, new_classes=self.told.head == "new")


def kept_weights(place: Path, sha256: str | None) -> bytes:
    """A run folder's copy of a weights file. Raises RunFolderError where it is another than that of the digest."""
    content = _read(place / _WEIGHTS)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RunFolderError("the weights in the run's folder were changed", where=str(place))
    return content


def kept_encoding(place: Path) -> Encoding:
    """A run folder's copy of an earlier run's encoding. Raises RunFolderError where it is damaged."""
    try:
        return decode(_read(place / _ENCODING), Encoding)
    except CodecError as error:
        raise RunFolderError("the earlier run's encoding is damaged", where=str(place)) from error


def resolve_start(task: TaskFile) -> tuple[TaskFile, Source | None]:
    """The task with the digest of what it begins from in place of its path; and this itself.

    A path is below the folder of the task's file. Raises TaskError, located in the file.
    """
    told = task.spec.model.pretrained
    if told is None:
        return task, None
    try:
        source, found = _of_run(told, task) if told.run is not None else _of_file(told, task)
    except UserError as error:
        raise located(task, error) from error
    model = task.spec.model.model_copy(update={"pretrained": found})
    return TaskFile(task.spec.model_copy(update={"model": model}), task.document), source


def located(task: TaskFile, error: UserError) -> TaskError:
    """The error as one of the task's ``model.pretrained``."""
    cause = f"{error.cause} ({error.where})" if error.where else error.cause
    return task.error("model", "pretrained", cause=cause, remedy=error.remedy)


def _of_file(told: Pretrained, task: TaskFile) -> tuple[Source, Pretrained]:
    if told.path is None:
        raise UserError("it names no weights", remedy="add `path: weights.safetensors`, or `run: runs/…`")
    path = _below(task, told.path)
    content = _read(path)
    return Source(content), told.model_copy(update={"path": None, "sha256": _checked(told, content, path)})


def _checked(told: Pretrained, content: bytes, path: Path) -> str:
    """The content's digest, which is the one that the task tells. Raises UserError."""
    digest = hashlib.sha256(content).hexdigest()
    if told.sha256 is None and told.run is None:
        raise UserError(
            "pretrained weights are named with the SHA-256 of their file, so that everybody can see which they are",
            remedy=f"if it is the file you mean, write: pretrained: {{path: {told.path}, sha256: {digest}}}",
        )
    if told.sha256 not in (None, digest):
        raise UserError(
            "the pretrained weights are other than the task says",
            where=str(path),
            remedy=f"fetch them again; the file's own sha256 is {digest}",
        )
    return digest


def _of_run(told: Pretrained, task: TaskFile) -> tuple[Source, Pretrained]:
    earlier = finished_run(str(told.run), task)
    digest = _checked(told, earlier.source.weights, Path(str(told.run)))
    return earlier.source, told.model_copy(update={"run": None, "parent": earlier.run, "sha256": digest})


@dataclass(frozen=True)
class FinishedRun:
    """An earlier run of rows that are prepared alike: its id, its task, and its model."""

    run: str
    task: TaskSpec
    source: Source


def finished_run(path: str, task: TaskFile) -> FinishedRun:
    """The finished run in a folder, a path below that of the task's file.

    Raises UserError where there is none, it left no one model, or its rows were prepared otherwise than the task's.
    """
    folder = _below(task, path)
    if (folder / "models").is_dir():
        raise UserError("in that run each site has a model of its own", where=str(folder), remedy="name another run")
    try:
        run = str(json.loads((folder / "results.json").read_text())["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"finish it first: medfed run --resume {folder}" if folder.is_dir() else "name a run's folder"
        raise UserError("there is no finished run", where=str(folder), remedy=remedy) from error
    earlier = load_task(folder / "task.yaml").spec
    if earlier.federation.keeps_layers:
        raise UserError(
            "the model of that run lacks the layers that stayed at its sites (federation.local_layers)",
            where=str(folder),
            remedy="name another run",
        )
    _check_preparation(earlier, task.spec)
    return FinishedRun(run, earlier, Source(_read(folder / _WEIGHTS), _read(folder / _ENCODING)))


def _check_preparation(earlier: TaskSpec, task: TaskSpec) -> None:
    """Raise UserError where rows are prepared otherwise than in the earlier run, before the encoding sees them."""
    for name, before, now in _preparations(earlier, task):
        if before != now:
            raise UserError(
                f"the earlier run had another `{name}`, so that its weights mean other numbers",
                remedy=f"write `{name}` as in the task.yaml of that run",
            )


def _preparations(earlier: TaskSpec, task: TaskSpec) -> Iterable[tuple[str, object, object]]:
    before, now = earlier.data, task.data
    yield "task_type", earlier.task_type, task.task_type
    yield "data.standardize", before.standardize, now.standardize
    yield "data.missing", before.missing, now.missing
    yield "data.images.channels", before.images.channels, now.images.channels
    yield "data.images.transforms", before.images.transforms, now.images.transforms


def _below(task: TaskFile, path: str) -> Path:
    file = Path(task.document.path)
    return (file.resolve().parent if file.is_file() else Path.cwd()) / Path(path).expanduser()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})", where=str(path), remedy="name a file") from error
