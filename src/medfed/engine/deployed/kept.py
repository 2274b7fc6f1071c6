"""What a site keeps of a run for its own people: how the rounds went, as it was told, and the trained model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from medfed.core.errors import CodecError
from medfed.core.files import write_atomically
from medfed.engine.deployed.messages import Figure, RoundFigures, Trained

_MOST_FIGURES = 1000
_LONGEST = 64


class Keepsakes:
    """A run's folder below the site's ``models``. Nothing in it is trusted: a coordinator has sent it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: int | None = None

    @property
    def model(self) -> Path:
        """The trained model's file, which is there once the run is over."""
        return self._folder / "model.safetensors"

    def note(self, told: Iterable[RoundFigures], rounds: int) -> None:
        """Append the rounds that were not told before. Raises CodecError for what no run of so many rounds has."""
        if self._last is None:
            self._last = max((each.round for _, each in self.rounds()), default=0)
        for each in told:
            _check(each, rounds)
            if each.round > self._last:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self._rounds.open("a") as file:
                    file.write(json.dumps(asdict(each), ensure_ascii=False) + "\n")
                self._last = each.round

    def keep(self, trained: Trained, task: str, own: bytes | None = None) -> None:
        """Keep a trained model, beside its task (YAML), so that ``medfed predict`` can use it.

        own: the same with what this site has for itself, if it has anything; the shared one is then kept beside it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._folder / "task.yaml", task)
        write_atomically(self._folder / "encoding.bin", trained.encoding)
        if own is not None:
            write_atomically(self._folder / "federated.safetensors", trained.model)
        write_atomically(self.model, trained.model if own is None else own, durable=True)

    def rounds(self, after: int = 0) -> Iterator[tuple[int, RoundFigures]]:
        """(bytes read so far, round) of each round from a position on."""
        if not self._rounds.exists():
            return
        with self._rounds.open("rb") as file:
            file.seek(after)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                after += len(line)
                told = json.loads(line)
                yield after, RoundFigures(told["round"], tuple(Figure(**each) for each in told["figures"]))

    @property
    def _rounds(self) -> Path:
        return self._folder / "rounds.jsonl"


def _check(told: RoundFigures, rounds: int) -> None:
    long = any(len(figure.site) > _LONGEST or len(figure.metric) > _LONGEST for figure in told.figures)
    if long or not 0 < told.round <= rounds or len(told.figures) > _MOST_FIGURES:
        raise CodecError("a round was told that cannot be one of this run")
