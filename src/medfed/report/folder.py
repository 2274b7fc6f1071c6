"""Reading a run folder: its files become records, and what is malformed is named by file and line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, RootModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from medfed.core.errors import RunFolderError
from medfed.report.history import History
from medfed.report.records import (
    FEDERATED,
    ComparisonFile,
    CrossSite,
    Departure,
    Entry,
    Environment,
    Measure,
    Point,
    Refusal,
    Results,
    Sheet,
)
from medfed.spec.task import TaskSpec

T = TypeVar("T", bound=BaseModel)

_HEADS = ".heads.jsonl"
_PARTIES = (FEDERATED, "pooled", "coordinator")
"""Names in the files that are no hospital's."""
EXTERNAL = "external"
"""The split that is all rows of a held-out site."""
ALONE = ("local", "pooled")
"""The baselines: strategies that do not federate."""
_REMEDY = "restore the file, or write it again with: medfed run --resume DIR"


class Sheets(RootModel[dict[str, Sheet]]):
    """``sheets.json``: the data sheet of each site that showed one."""


class Alike(NamedTuple):
    """What releases have in common that are counted together."""

    step: str
    release: str
    shapes: tuple[str, ...]
    protection: str


@dataclass(frozen=True)
class Ledger:
    """What one party's ledger holds: how many entries, releases by what they have in common, and refusals.

    times, bytes: of the releases, in order of first appearance.
    """

    party: str
    entries: int
    times: Counter[Alike]
    bytes: Counter[Alike]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder tells it; what the run had not written when it stopped is ``None`` or empty.

    task: the resolved task, and as text; metrics: the final ones, by split, site and metric.
    """

    folder: str
    task_text: str | None
    task: TaskSpec | None
    history: History
    results: Results | None
    sheets: dict[str, Sheet] | None
    environment: Environment | None
    ledgers: tuple[Ledger, ...]

    @property
    def name(self) -> str:
        """The run's name, or its folder's where it wrote no results."""
        return self.results.name if self.results else self.folder

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Every site that a file names and that trained, in the task's order where there are results."""
        named = [*(self.results.rows if self.results else ()), *self.history.sites, *(self.sheets or ())]
        return tuple(site for site in dict.fromkeys(named) if site not in (*_PARTIES, *self.external))

    @cached_property
    def external(self) -> tuple[str, ...]:
        """The sites that were held out of training."""
        if self.task is not None:
            return self.task.evaluation.holdout
        return tuple(self.metrics.get(EXTERNAL, ()))

    @property
    def strategy(self) -> str:
        """The strategy, where a file names it."""
        if self.results:
            return self.results.strategy
        return self.task.federation.strategy.name if self.task else ""

    @property
    def everyone(self) -> str:
        """What stands for ``federated``: baselines are measured over all hospitals but do not federate."""
        return "All hospitals" if self.strategy in ALONE else "Federated"

    @cached_property
    def metrics(self) -> dict[str, dict[str, dict[str, Measure]]]:
        """The final metrics: those of the results, or the last round's where there are none."""
        return self.results.metrics if self.results else self.history.last()


@dataclass(frozen=True)
class Comparison:
    """Several runs of one task; ``runs`` maps each strategy that has a folder to its run."""

    name: str
    task_type: str
    strategies: tuple[str, ...]
    folders: dict[str, str]
    runs: dict[str, RunFolder]


def is_comparison(folder: Path) -> bool:
    """Whether the folder holds several strategies' runs."""
    return (folder / "comparison.json").is_file()


def read_run(folder: Path) -> RunFolder:
    """Read a run folder. Raises RunFolderError where it is none, or where a file is malformed."""
    if not any((folder / name).is_file() for name in ("task.yaml", "metrics.jsonl", "results.json")):
        raise RunFolderError(
            "there is no run here: no task.yaml, metrics.jsonl or results.json",
            where=str(folder),
            remedy="name the folder that medfed run printed",
        )
    text = _text(folder / "task.yaml")
    sheets = _document(folder / "sheets.json", Sheets)
    return RunFolder(
        folder=folder.resolve().name,
        task_text=text,
        task=_task(text),
        history=History.of(_lines(folder / "metrics.jsonl", Point)),
        results=_document(folder / "results.json", Results),
        sheets=sheets.root if sheets else None,
        environment=_document(folder / "environment.json", Environment),
        ledgers=_ledgers(folder / "ledger"),
    )


def read_comparison(folder: Path) -> Comparison:
    """Read a compare folder and the runs below it; a strategy whose folder does not exist yet is left out."""
    path = folder / "comparison.json"
    file = _document(path, ComparisonFile)
    if file is None:
        raise RunFolderError("there is no comparison here", where=str(path))
    folders = {strategy: file.folders.get(strategy, strategy) for strategy in file.strategies}
    for name in folders.values():
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise RunFolderError("a strategy's folder does not lie in the comparison's", where=str(path))
    runs = {strategy: read_run(folder / name) for strategy, name in folders.items() if (folder / name).is_dir()}
    return Comparison(file.name, file.task_type, file.strategies, folders, runs)


def read_cross_site(folder: Path) -> CrossSite | None:
    """Every model at every site, where a comparison measured that."""
    return _document(folder / "cross_site.json", CrossSite)


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise RunFolderError("the file is not UTF-8 text", where=f"{path}:{line}", remedy=_REMEDY) from None
    except OSError as error:
        raise RunFolderError(f"cannot read ({error.strerror})", where=str(path)) from error


def _task(text: str | None) -> TaskSpec | None:
    try:
        return TaskSpec.model_validate(YAML(typ="safe", pure=True).load(text or ""))
    except (YAMLError, ValidationError, RecursionError):
        return None


def _document(path: Path, kind: type[T]) -> T | None:
    text = _text(path)
    return None if text is None else _parse(text, kind, path, line=1)


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered; a last one that a kill left unfinished is not read."""
    *lines, rest = (_text(path) or "").split("\n")
    if rest and _is_json(rest):
        lines.append(rest)
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    return (_parse(line, kind, path, number) for number, line in _numbered(path))


def _ledgers(folder: Path) -> tuple[Ledger, ...]:
    paths = sorted(path for path in folder.glob("*.jsonl") if not path.name.endswith(_HEADS))
    return tuple(map(_ledger, paths))


def _ledger(path: Path) -> Ledger:
    entries, refusals = 0, []
    times: Counter[Alike] = Counter()
    weight: Counter[Alike] = Counter()
    for entry in _entries(path):
        entries += 1
        if isinstance(entry, Departure):
            key = Alike(entry.step, entry.release, entry.shapes, entry.protection)
            times[key] += 1
            weight[key] += entry.bytes
        elif isinstance(entry, Refusal):
            refusals.append(entry)
    return Ledger(path.stem, entries, times, weight, tuple(refusals))


def _entries(path: Path) -> Iterator[Entry]:
    for number, line in _numbered(path):
        try:
            yield Departure.model_validate_json(line, strict=True)
        except ValidationError:
            yield _other_entry(line, path, number)


def _other_entry(line: str, path: Path, number: int) -> Entry:
    """An entry that is no well-formed release. Raises RunFolderError where it is a malformed one."""
    kinds: dict[str, type[Entry]] = {"release": Departure, "refusal": Refusal}
    entry = _parse(line, Entry, path, number)
    return _parse(line, kinds[entry.kind], path, number) if entry.kind in kinds else entry


def _parse(text: str, kind: type[T], path: Path, line: int) -> T:
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        cause = f"{key}: {first['msg']}" if key else first["msg"]
        raise RunFolderError(cause, where=f"{path}:{_fault(text, line)}", remedy=_REMEDY) from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _fault(text: str, line: int) -> int:
    """The line at which the text stops being JSON; ``line`` itself where it is JSON of another kind."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return line + error.lineno - 1
    except RecursionError:
        pass
    return line
