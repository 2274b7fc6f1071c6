"""Drawing by matplotlib: a panel becomes an SVG text that takes its colours and its typeface from the page.

Every colour is drawn as its light-theme value and then named as the style sheet's variable, so that one
figure serves the light theme, the dark one and paper.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, CROWD, GRID, BAND = "#1c2430", "#5b6675", "#a3adba", "#dde2e8", "#f3f5f8"
SERIES = ("#0067a5", "#c2500a", "#00795a", "#a8478c", "#8f6400", "#2b83ba", "#7a4b2a")
"""Hues after Okabe and Ito, darkened to a contrast of 4:1 on white."""
_VARIABLES = {INK: "ink", SOFT: "soft", CROWD: "crowd", GRID: "grid", BAND: "band"} | {
    colour: f"series-{i}" for i, colour in enumerate(SERIES)
}
_DASHES = ("", "6 2", "2 2", "7 2 2 2", "10 3", "4 1.5 1.5 1.5", "1.5 3")
_MARKERS = "osD^vPX"

_WIDTH = 260.0
"""A panel's width in points; a phone shows it at about 1.3 times that many pixels."""
_INCH = 72.0
_ROW = 13.0
_TALL = 15
"""Beyond so many rows a forest plot repeats its scale at the top."""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.unicode_minus": True,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Stroke:
    """How a series looks: its colour, dashes (SVG notation), width in points and marker."""

    colour: str
    dash: str = ""
    width: float = 1.6
    marker: str = "o"

    @property
    def css(self) -> str:
        """The style sheet's name of the colour."""
        return _VARIABLES[self.colour]


FEDERATED_STROKE = Stroke(INK, width=2.6, marker="D")
CROWD_STROKE = Stroke(CROWD, width=0.8)
MOST_STROKES = len(SERIES)


def stroke(index: int) -> Stroke:
    """The look of the index-th series: told apart by colour, by dashes and by marker."""
    i = index % MOST_STROKES
    return Stroke(SERIES[i], _DASHES[i], marker=_MARKERS[i])


@dataclass(frozen=True)
class Trace:
    """A line; where ``y`` is ``None`` it has a gap."""

    x: tuple[float, ...]
    y: tuple[float | None, ...]
    stroke: Stroke


@dataclass(frozen=True)
class Dot:
    """A value in a row, with its interval where it has one."""

    row: int
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Dots:
    """The dots of one series."""

    dots: tuple[Dot, ...]
    stroke: Stroke


@contextmanager
def _drawing(name: str, height: float, alt: str) -> Iterator[tuple[Figure, list[Markup]]]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn: list[Markup] = []
    with rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = Figure(figsize=(_WIDTH / _INCH, height / _INCH), facecolor="none")
        yield figure, drawn
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
    drawn.append(_inline(buffer.getvalue(), alt))


def _inline(svg: str, alt: str) -> Markup:
    """The ``<svg>`` element alone: no address, size, style sheet or unused id; colours as variables."""
    body = svg[svg.index("<svg") :]
    opening, body = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        body = re.sub(rf"((?:fill|stroke): ){colour}\b", rf"\1var(--{variable})", body)
    opening = f'<svg role="img" aria-label="{escape(alt)}" {box.group() if box else ""}>'
    return Markup(opening + body.strip())  # noqa: S704 (matplotlib escapes texts, and the label is escaped)


def _frame(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3, labelsize=10)
    axes.set_axisbelow(True)


def line_panel(
    traces: tuple[Trace, ...],
    *,
    name: str,
    alt: str,
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Lines over rounds, the last in front. name: tells the figure from all others of the page."""
    from matplotlib.ticker import MaxNLocator

    with _drawing(name, 178.0, alt) as (figure, drawn):
        axes = figure.add_axes((0.155, 0.2, 0.825, 0.76))
        _frame(axes)
        axes.grid(color=GRID, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(_tick_label)
        axes.set_xlabel("round", fontsize=10, labelpad=2)
        for trace in traces:
            _draw_trace(axes, trace)
        axes.set_ylim(*(limits or value_limits(traces)))
        xs = [x for trace in traces for x in trace.x]
        if len(set(xs)) == 1:
            axes.set_xticks(xs[:1])
    return drawn[0]


def _draw_trace(axes: Axes, trace: Trace, *, marked: bool = False) -> None:
    gap = float("nan")
    y = [gap if value is None else value for value in trace.y]
    look = trace.stroke
    axes.plot(
        trace.x,
        y,
        color=look.colour,
        linewidth=look.width,
        linestyle=_dashes(look),
        marker=look.marker,
        markersize=5,
        markevery=1 if marked else _isolated(trace.y),
    )


def _isolated(y: tuple[float | None, ...]) -> list[int]:
    """Where a value has no neighbour, so that only a marker shows it."""
    known = [False, *(value is not None for value in y), False]
    return [i for i in range(len(y)) if known[i + 1] and not known[i] and not known[i + 2]]


def _dashes(look: Stroke) -> str | tuple[float, tuple[float, ...]]:
    if not look.dash:
        return "-"
    return (0, tuple(float(length) / look.width for length in look.dash.split()))


def value_limits(traces: tuple[Trace, ...]) -> tuple[float, float]:
    """Limits that hold every value of the traces, with a margin."""
    values = [value for trace in traces for value in trace.y if value is not None]
    return _padded(values) if values else (0.0, 1.0)


def _padded(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    span = max(high - low, 0.02 * max(abs(low), abs(high))) or 0.1
    margin = (1.12 * span - (high - low)) / 2
    return low - margin, high + margin


def _tick_label(value: float, _position: float) -> str:
    """A few characters: ``0.86``, ``12.5k``, ``3e-05``."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(factor, 1e4):
            return f"{value / factor:.4g}{unit}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def roc_panel(traces: tuple[Trace, ...], *, name: str, alt: str) -> Markup:
    """ROC curves on the unit square, with the diagonal of a model that knows nothing."""
    return unit_panel(traces, name=name, alt=alt, axes=("1 − specificity", "sensitivity"), reference=(0, 1))


def unit_panel(
    traces: tuple[Trace, ...],
    *,
    name: str,
    alt: str,
    axes: tuple[str, str],
    reference: tuple[float, float],
    marked: bool = False,
) -> Markup:
    """Lines on the unit square. axes: what x and y are called. reference: where a dotted line starts and ends.

    marked: whether every point has its series' marker.
    """
    with _drawing(name, 268.0, alt) as (figure, drawn):
        plot = figure.add_axes((0.18, 0.14, 0.78, 0.83))
        _frame(plot)
        plot.grid(color=GRID, linewidth=0.8)
        plot.plot((0, 1), reference, color=SOFT, linewidth=0.9, linestyle=(0, (3, 3)))
        for trace in traces:
            _draw_trace(plot, trace, marked=marked)
        plot.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), xlabel=axes[0], ylabel=axes[1])
        plot.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0", "0.25", "0.5", "0.75", "1"))
        plot.set_yticks((0, 0.25, 0.5, 0.75, 1), ("0", "0.25", "0.5", "0.75", "1"))
    return drawn[0]


def matrix_panel(
    shares: tuple[tuple[float | None, ...], ...],
    texts: tuple[tuple[str, ...], ...],
    labels: tuple[str, ...],
    *,
    name: str,
    alt: str,
) -> Markup:
    """A square of cells, each as dark as its share of its row; None: not known. labels: of rows and columns alike."""
    side = 40.0
    short = [shortened(label, 72.0) for label in labels]
    left = 30.0 + max(map(_width, short))
    width = (_WIDTH - 4.0 - left) / len(labels)
    height = max(side, min(width, 64.0)) * len(labels)
    with _drawing(name, height + 42.0, alt) as (figure, drawn):
        axes = figure.add_axes(
            (left / _WIDTH, 4.0 / (height + 42.0), 1 - (left + 4.0) / _WIDTH, height / (height + 42.0))
        )
        axes.set_facecolor("none")
        axes.spines[:].set_visible(False)
        for row, (known, written) in enumerate(zip(shares, texts, strict=True)):
            for column, (share, text) in enumerate(zip(known, written, strict=True)):
                axes.axhspan(
                    row - 0.5,
                    row + 0.5,
                    xmin=column / len(labels),
                    xmax=(column + 1) / len(labels),
                    facecolor=SERIES[0],
                    alpha=0.5 * (share or 0.0),
                    linewidth=0,
                )
                axes.text(column, row, text, ha="center", va="center", fontsize=10 if len(labels) < 4 else 8)
        edges = [each - 0.5 for each in range(len(labels) + 1)]
        axes.hlines(edges, -0.5, len(labels) - 0.5, colors=GRID, linewidth=0.8)
        axes.vlines(edges, -0.5, len(labels) - 0.5, colors=GRID, linewidth=0.8)
        columns = [shortened(label, width - 2.0) for label in labels]
        axes.set_xticks(range(len(labels)), columns)
        axes.set_yticks(range(len(labels)), short)
        axes.xaxis.set_ticks_position("top")
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("predicted", fontsize=10, labelpad=3)
        axes.set_ylabel("true", fontsize=10, labelpad=3)
        axes.tick_params(length=0, labelsize=10, labelcolor=INK)
        axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5))
    return drawn[0]


def rates_panel(traces: tuple[Trace, ...], *, name: str, alt: str) -> Markup:
    """True against false positive rates, both on logarithmic scales, with the diagonal of a guess."""
    floor = min((x for trace in traces for x in trace.x), default=1e-3)
    floor = min(10.0 ** math.floor(math.log10(floor)), 0.01)
    decades = [10.0**power for power in range(round(math.log10(floor)), 1)]
    with _drawing(name, 268.0, alt) as (figure, drawn):
        axes = figure.add_axes((0.2, 0.14, 0.73, 0.83))
        _frame(axes)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.05))
        axes.plot((floor, 1), (floor, 1), color=SOFT, linewidth=0.9, linestyle=(0, (3, 3)))
        for trace in traces:
            shown = tuple(max(y, floor) if y is not None else None for y in trace.y)
            _draw_trace(axes, Trace(trace.x, shown, trace.stroke))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(decades, [f"{100 * decade:g} %" for decade in decades])
            axis.set_ticks([], minor=True)
        axes.set_xlabel("outsiders accused", fontsize=10, labelpad=2)
        axes.set_ylabel("members named", fontsize=10, labelpad=2)
    return drawn[0]


def dot_panel(
    rows: tuple[str, ...],
    series: tuple[Dots, ...],
    *,
    name: str,
    alt: str,
    limits: tuple[float, float] | None = None,
) -> Markup:
    """A forest plot: a row per label, in it a dot per series one below the other, intervals as whiskers."""
    from matplotlib.ticker import MaxNLocator

    labels = [shortened(row) for row in rows]
    crowding = max(Counter(dot.row for one in series for dot in one.dots).values(), default=1)
    row_height = 9.0 + _ROW * max(1.0, 0.62 * crowding)
    tall = len(rows) > _TALL
    above, below = (20.0 if tall else 2.0), 20.0
    height = row_height * len(rows) + above + below
    left = (8.0 + max(map(_width, labels))) / _WIDTH
    with _drawing(name, height, alt) as (figure, drawn):
        axes = figure.add_axes((left, below / height, 0.955 - left, 1 - (above + below) / height))
        _frame(axes)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        for row in range(0, len(rows), 2):
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        for i, one in enumerate(series):
            _draw_dots(axes, one, (i - (len(series) - 1) / 2) * 0.72 / len(series) if crowding > 1 else 0.0)
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.xaxis.set_major_formatter(_tick_label)
        axes.tick_params(axis="x", labeltop=tall, top=tall)
        ends = [x for one in series for dot in one.dots for x in (dot.value, *(dot.interval or ()))]
        axes.set_xlim(*(limits or (_padded(ends) if ends else (0.0, 1.0))))
    return drawn[0]


def map_panel(cells: tuple[tuple[float, ...], ...], *, name: str, alt: str) -> Markup:
    """Cells of a map, each as dark as its value is to the largest, on a scale of the image's height and width."""
    rows, columns, most = len(cells), len(cells[0]), max(max(line) for line in cells) or 1.0
    with _drawing(name, 258.0, alt) as (figure, drawn):
        axes = figure.add_axes((0.18, 0.15, 0.78, 0.82))
        _frame(axes)
        for i, line in enumerate(cells):
            for j, value in enumerate(line):
                ends = {"xmin": j / columns, "xmax": (j + 1) / columns}
                opaque = 0.95 * value / most
                axes.axhspan(i / rows, (i + 1) / rows, **ends, facecolor=SERIES[1], alpha=opaque, linewidth=0)
        axes.spines[["top", "right"]].set_visible(True)
        ticks, names = (0, 0.25, 0.5, 0.75, 1), ("0", "0.25", "0.5", "0.75", "1")
        axes.set_xticks(ticks, names)
        axes.set_yticks(ticks, names)
        axes.set(xlim=(0, 1), ylim=(1, 0), xlabel="share of the width", ylabel="share of the height")
    return drawn[0]


def bar_panel(values: Mapping[str, float], *, name: str, alt: str) -> Markup:
    """A horizontal bar per label, of values of at least 0, the first on top."""
    from matplotlib.ticker import MaxNLocator

    labels, height = [shortened(label) for label in values], _ROW * 1.3 * len(values) + 22.0
    left = (8.0 + max(map(_width, labels))) / _WIDTH
    with _drawing(name, height, alt) as (figure, drawn):
        axes = figure.add_axes((left, 20.0 / height, 0.955 - left, 1 - 22.0 / height))
        _frame(axes)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.barh(range(len(labels)), list(values.values()), height=0.62, color=SERIES[0])
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.xaxis.set_major_formatter(_tick_label)
        axes.set_xlim(0, 1.05 * max(values.values()) or 1.0)
    return drawn[0]


def _draw_dots(axes: Axes, series: Dots, offset: float) -> None:
    look = series.stroke
    whiskers = [(dot.row + offset, *dot.interval) for dot in series.dots if dot.interval]
    if whiskers:
        rows, starts, ends = zip(*whiskers, strict=True)
        axes.hlines(rows, starts, ends, colors=look.colour, linewidth=1.3)
    x, y = [dot.value for dot in series.dots], [dot.row + offset for dot in series.dots]
    axes.plot(x, y, color=look.colour, linestyle="none", marker=look.marker, markersize=5.5)


def shortened(label: str, width: float = 104.0) -> str:
    """The label in about that many points at a size of 10, cut with an ellipsis, on one line."""
    label = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in label)
    if _width(label) <= width:
        return label
    while _width(label) > width - _width("…"):
        label = label[:-1]
    return label.rstrip() + "…"


def _width(text: str) -> float:
    """A generous estimate, for the page's typeface is not known here."""
    wide = sum(c in "mwMW@%—…" or unicodedata.east_asian_width(c) in "WF" for c in text)
    upper = sum(c.isupper() and c not in "MW" for c in text)
    return 10.5 * wide + 7.6 * upper + 6.3 * (len(text) - wide - upper)
