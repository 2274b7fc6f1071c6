"""What the numbers say, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from medfed.report.finals import final_values, five_numbers, is_crowd, metrics_of, splits_of
from medfed.report.folder import ALONE, RunFolder
from medfed.report.history import Series
from medfed.report.records import FEDERATED, Measure
from medfed.report.tables import interval_of
from medfed.report.words import (
    bound,
    by_importance,
    capital,
    listed,
    metric_name,
    number,
    plural,
    spelled,
    strategy_name,
)

_FEW = 6
_MOST_WARNINGS = 20


def monitored(run: RunFolder) -> tuple[str, str] | None:
    """The split and the metric followed over the rounds; ``None`` where nothing has a value."""
    for split in run.history.splits:
        for metric in by_importance(run.history.metrics):
            if any(run.history(split, who, metric).ends for who in (FEDERATED, *run.sites)):
                return split, metric
    return None


def lede(run: RunFolder) -> tuple[str, ...]:
    """The first sentences: who trained what, how the main metric moved, what the held-out rows say."""
    sentences = [f"{_training(run)}{_movement(run)}."]
    return tuple(sentence for sentence in (*sentences, _held_out(run), _ending(run)) if sentence)


def _training(run: RunFolder) -> str:
    hospitals = plural(len(run.sites), "hospital", spell=True) if run.sites else "the hospitals"
    results, spec = run.results, run.task
    strategy = run.strategy
    model = f"{spec.model.name} model" if spec else "model"
    rounds = results.rounds if results else len(run.history.rounds)
    over = f" in {plural(rounds, 'round')}"
    if strategy == "local":
        who = "one hospital" if len(run.sites) == 1 else f"each of {hospitals}"
        return capital(f"{who} trained a {model} of its own{over}")
    if strategy == "pooled":
        return f"One {model} was trained on the rows of {hospitals} put together{over}"
    by = f" by {strategy_name(strategy)}" if strategy else ""
    if len(run.sites) == 1:
        return f"One hospital trained a {model}{by}{over}"
    return capital(f"{hospitals} trained one {model} together{by}{over}")


def _movement(run: RunFolder) -> str:
    followed = monitored(run)
    if followed is None:
        return ", and no metric has a value"
    split, metric = followed
    name = metric_name(metric).inline
    series = run.history(split, FEDERATED, metric)
    text = f"; the {overall(run)} {split} {name} {_moved(series)}" if series.ends else ""
    known = {s: ends for s in run.sites if (ends := run.history(split, s, metric).ends)}
    lower = metric_name(metric).lower_is_better
    travelled = {s: ends for s, ends in known.items() if ends[0][0] != ends[1][0]}
    if lower is None or not travelled or len(run.sites) == 1:
        return text
    better = sum(end != start and (end < start) == lower for (_, start), (_, end) in travelled.values())
    among = len(travelled)
    which = "" if among == len(run.sites) else " where it can be told"
    subject = "it" if text else f"the {split} {name}"
    if among == 1:
        moved = "improved" if better else "did not improve"
        return f"{text}{',' if text else ';'} and {subject} {moved} at the one hospital{which}"
    share = f"all {spelled(better)}" if better == among else f"{spelled(better)} of {spelled(among)}"
    return f"{text}{',' if text else ';'} and {subject} improved at {share} hospitals{which}"


def overall(run: RunFolder) -> str:
    """How a value over all hospitals is called: the baselines are measured so, but do not federate."""
    return "overall" if run.strategy in ALONE else "federated"


def _moved(series: Series) -> str:
    assert series.ends is not None  # noqa: S101 (callers ask)
    (first, start), (last, end) = series.ends
    if first == last:
        return f"was {number(start)} after round {first}"
    if number(start) == number(end):
        return f"stayed at {number(end)}"
    verb = "rose" if end > start else "fell"
    return f"{verb} from {number(start)} (round {first}) to {number(end)} (round {last})"


def _held_out(run: RunFolder) -> str:
    """The final value of the main metric on the test rows, with its bound and its interval."""
    federated = run.metrics.get("test", {}).get(FEDERATED, {})
    for metric in by_importance(tuple(federated)):
        measure = federated[metric]
        if measure.value is None:
            continue
        name = metric_name(metric).inline
        rows = f"{measure.n:,} held-out test rows" if measure.n is not None else "the held-out test rows"
        error = f" ± {bound(measure.error)}" if measure.error else ""
        ends = interval_of(run, "test", FEDERATED, metric, measure)
        between = f" (95 % interval {number(ends[0])} to {number(ends[1])})" if ends else ""
        return f"On {rows} the {overall(run)} {name} is {number(measure.value)}{error}{between}."
    return ""


def _ending(run: RunFolder) -> str:
    if run.results is None:
        return "No results were written: the run was stopped, or is still going on. Here is what there is."
    if run.results.status != "complete":
        return f"The run did not complete ({run.results.status}): {run.results.stopped_because.rstrip('.')}."
    return ""


def _loss(run: RunFolder, split: str, site: str, metric: str) -> str:
    """How the loss moved, where that is not the metric told already."""
    series = run.history(split, site, "loss")
    return f"; its loss {_moved(series)}" if metric != "loss" and series.ends else ""


def per_site(run: RunFolder) -> tuple[str, ...]:
    """How the main metric moved at each hospital; for many hospitals, the range of where they ended."""
    if is_crowd(run):
        return _over_crowd(run)
    followed = monitored(run)
    if followed is None:
        return ()
    split, metric = followed
    series = {site: run.history(split, site, metric) for site in run.sites}
    known = {site: one for site, one in series.items() if one.ends}
    name = metric_name(metric).inline
    lines = []
    if len(known) <= _FEW:
        lines += [
            f"{site}: {split} {name} {_moved(one)}{_loss(run, split, site, metric)}." for site, one in known.items()
        ]
    else:
        ends = [one.ends[1][1] for one in known.values() if one.ends]
        low, high = number(min(ends)), number(max(ends))
        lines.append(f"At the last round the hospitals’ {split} {name} lies between {low} and {high}.")
    reasons = {site: _reason(series[site].measures) for site in run.sites if site not in known}
    return (*lines, *_valueless(reasons, f"{split} {name}"))


def _over_crowd(run: RunFolder) -> tuple[str, ...]:
    """Where the main final metric lies over hospitals too many to be told one by one."""
    for split in splits_of(run):
        for metric in metrics_of(run.metrics[split]):
            values = final_values(run, split, metric)
            if len(values) > 1:
                low, lower, median, upper, high = map(number, five_numbers(list(values.values())))
                name = f"{split} {metric_name(metric).inline}"
                line = (
                    f"At the end the hospitals’ {name} has a median of {median}; "
                    f"half of them lie between {lower} and {upper}, all between {low} and {high}."
                )
                measures = {site: run.metrics[split].get(site, {}).get(metric) for site in run.sites}
                reasons = {s: _reason((m,) if m else ()) for s, m in measures.items() if s not in values}
                return (line, *_valueless(reasons, name))
    return ()


def _valueless(reasons: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Which hospitals have no value, by reason."""
    by_reason: dict[str, list[str]] = {}
    for site, reason in reasons.items():
        by_reason.setdefault(reason, []).append(site)
    return tuple(
        f"{listed(silent) if len(silent) <= _FEW else plural(len(silent), 'hospital')}: no {name} ({reason})."
        for reason, silent in by_reason.items()
    )


def curve_note(run: RunFolder, split: str) -> str:
    """Whose values the learning curves of a crowd are."""
    if not is_crowd(run):
        return ""
    hospitals = f"With {plural(len(run.sites), 'hospital')},"
    if any(key_split == split and site != FEDERATED for key_split, site, _metric in run.history.series):
        return f"{hospitals} lines show how they spread: each round’s are over the hospitals measured in that round."
    return f"{hospitals} each was measured at the end only; the rounds show those that took part, together."


def data_overview(run: RunFolder) -> str:
    """The rows of a crowd, as far as hospitals show them."""
    rows = [sheet.rows for sheet in (run.sheets or {}).values() if sheet.rows is not None]
    if not is_crowd(run) or len(rows) < 2:
        return ""
    low, _, median, _, high = five_numbers(rows)
    return (
        f"{plural(len(rows), 'hospital')} of {len(run.sites):,} show how many rows they have: {sum(rows):,} together, "
        f"{median:,.0f} in the median hospital, between {low:,} and {high:,}."
    )


def warnings(run: RunFolder) -> tuple[str, ...]:
    """The data sheets' warnings, hospital by hospital; for a crowd, how many hospitals have each."""
    sheets = {site: sheet for site in (*run.sites, *run.external) if (sheet := (run.sheets or {}).get(site))}
    if not is_crowd(run):
        return tuple(f"{site}: {warning}" for site, sheet in sheets.items() for warning in sheet.warnings)
    counted = Counter(warning for sheet in sheets.values() for warning in set(sheet.warnings))
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{plural(n, 'hospital')}: {warning}" for warning, n in ranked[:_MOST_WARNINGS]]
    rest = len(ranked) - len(lines)
    return (*lines, *([f"{plural(rest, 'more warning')} in sheets.json"] if rest else ()))


def _reason(measures: Sequence[Measure]) -> str:
    return next((m.reason for m in reversed(measures) if m.reason), "not measured")
