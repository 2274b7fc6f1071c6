"""The templates of the report."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from medfed.report import words


@cache
def templates() -> Environment:
    """The templates of the report, escaping everything that they are given."""
    environment = Environment(
        loader=PackageLoader("medfed.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": words.count,
        "size": words.size,
        "plural": words.plural,
        "duration": words.duration,
        "listed": words.listed,
        "capitalize_first": words.capital,
        "strategy": words.strategy_name,
        "metric": lambda metric: words.metric_name(metric).label,
        "md": words.markdown,
    }
    return environment
