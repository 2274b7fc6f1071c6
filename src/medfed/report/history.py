"""A run's metrics over its rounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from medfed.report.records import FEDERATED, Measure, Point

Key = tuple[str, str, str]
"""Split, site, metric."""

_SPLITS = ("validation", "test", "train")


@dataclass(frozen=True)
class Series:
    """One metric of one site on one split, by round in increasing order."""

    rounds: tuple[int, ...]
    measures: tuple[Measure, ...]

    @property
    def values(self) -> tuple[float | None, ...]:
        """The values, ``None`` where there is none."""
        return tuple(measure.value for measure in self.measures)

    @property
    def ends(self) -> tuple[tuple[int, float], tuple[int, float]] | None:
        """The first and the last round that have a value, with it."""
        known = [(r, v) for r, v in zip(self.rounds, self.values, strict=True) if v is not None]
        return (known[0], known[-1]) if known else None


@dataclass(frozen=True)
class History:
    """Every series of a run; where a resumed run wrote a round twice, the later line counts."""

    series: dict[Key, Series]

    @classmethod
    def of(cls, points: Iterable[Point]) -> History:
        """Gather the lines of ``metrics.jsonl``."""
        gathered: dict[Key, dict[int, Measure]] = {}
        for point in points:
            gathered.setdefault((point.split, point.site, point.metric), {})[point.round] = point
        return cls(
            {
                key: Series(tuple(sorted(by_round)), tuple(by_round[r] for r in sorted(by_round)))
                for key, by_round in gathered.items()
            }
        )

    def __call__(self, split: str, site: str, metric: str) -> Series:
        """That series, empty where nothing was measured."""
        return self.series.get((split, site, metric), Series((), ()))

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites in order of appearance, without ``federated``."""
        return tuple(dict.fromkeys(site for _split, site, _metric in self.series if site != FEDERATED))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits measured while training: validation, then test, then train."""
        found = {split for split, _site, _metric in self.series}
        return tuple(split for split in _SPLITS if split in found) + tuple(sorted(found - set(_SPLITS)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics in order of appearance."""
        return tuple(dict.fromkeys(metric for _split, _site, metric in self.series))

    @property
    def rounds(self) -> tuple[int, ...]:
        """The rounds that were measured."""
        return tuple(sorted({r for series in self.series.values() for r in series.rounds}))

    def last(self) -> dict[str, dict[str, dict[str, Measure]]]:
        """The last round's measures, by split, site and metric."""
        latest: dict[str, dict[str, dict[str, Measure]]] = {}
        for (split, site, metric), series in self.series.items():
            latest.setdefault(split, {}).setdefault(site, {})[metric] = series.measures[-1]
        return latest
