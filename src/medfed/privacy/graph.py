"""Who shares with whom, and how many must answer: the complete graph, or a sparse one above fifty sites.

Bonawitz et al. 2017 share among all. Bell et al. 2020 ("Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", ACM CCS, section 3) share with k neighbours of a Harary graph over a random order of the sites.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

COMPLETE = 50
"""Sites up to which each shares with all."""

FEWEST = 3
"""Sites that a total is of at least: a sum of two tells each the other's part."""

_CORRUPT = 1 / 5
_ABSENT = 1 / 5
"""The shares of sites that may collude with the coordinator, and that may drop out, above fifty sites."""

_SECRET, _CORRECT = 2.0**-40, 2.0**-20
"""The chances that some site's neighbours who collude reach the threshold, and that too few of some site's are left."""


@dataclass(frozen=True)
class Neighbourhood:
    """Each site's number of neighbours, and how many of them give a secret back. least: sites that a sum needs."""

    degree: int
    threshold: int
    least: int


def least_sites(asked: int) -> int:
    """The sites of which a total is formed at least, of so many asked: more than two thirds, and three.

    With this threshold two sets of confirming sites share an honest one as long as fewer than a third collude, so that
    a coordinator cannot have different survivors confirmed (Bonawitz et al. 2017, section 6.2).
    """
    return max(FEWEST, 2 * asked // 3 + 1)


@functools.lru_cache(maxsize=64)
def neighbourhood(sites: int, asked: int) -> Neighbourhood:
    """The neighbourhood where so many sites take part, of so many asked."""
    least = least_sites(asked)
    if sites <= COMPLETE:
        return Neighbourhood(sites - 1, least, least)
    corrupt, absent = math.ceil(_CORRUPT * sites), sites - max(least, math.ceil((1 - _ABSENT) * sites))
    for degree in range(8, sites - 1, 2):
        for threshold in range(degree // 2, degree):
            caught = sites * _at_least(threshold, degree, corrupt, sites - 1)
            if caught <= _SECRET:
                lost = sites * _at_least(degree - threshold + 1, degree, absent, sites - 1)
                if lost <= _CORRECT:
                    return Neighbourhood(degree, threshold, least)
                break
    return Neighbourhood(sites - 1, least, least)


def _at_least(wanted: int, drawn: int, marked: int, of: int) -> float:
    """P(X ≥ wanted) for X hypergeometric: ``marked`` among ``of``, so many drawn without putting back."""
    ways = sum(math.comb(marked, k) * math.comb(of - marked, drawn - k) for k in range(wanted, min(drawn, marked) + 1))
    return ways / math.comb(of, drawn)


def circle(sites: Sequence[str], seed: bytes) -> list[str]:
    """The sites in an order drawn from the seed, a hash of all sites' keys, so that no one party chooses it."""
    return sorted(sites, key=lambda site: hashlib.sha256(seed + site.encode()).digest())


def neighbours(sites: Sequence[str], degree: int, seed: bytes) -> dict[str, tuple[str, ...]]:
    """Each site's neighbours, sorted: all others, or those beside it in the circle, half of them on each side."""
    if degree >= len(sites) - 1:
        return {site: tuple(other for other in sorted(sites) if other != site) for site in sites}
    order = circle(sites, seed)
    reach = [step for step in range(-(degree // 2), degree // 2 + 1) if step]
    return {
        site: tuple(sorted(order[(place + step) % len(order)] for step in reach)) for place, site in enumerate(order)
    }


def parts(order: Sequence[str], degree: int, survivors: Collection[str], threshold: int) -> bool:
    """Whether fewer than the threshold of survivors would part the circle: be all that is left of two runs in it, each
    of half a neighbourhood.

    Sites between two such runs have no masks with those beyond, so that survivors in them who collude with the
    coordinator would give it the sum of a few. Bell et al. 2020 ask that the honest survivors stay connected.
    """
    number, half = len(order), degree // 2
    if degree >= number - 1:
        return False
    here = np.array([site in survivors for site in order], np.int64)
    ends = np.cumsum(np.concatenate([[0], here, here]))
    runs = ends[half : half + number] - ends[:number]
    disjoint = np.arange(half, number - half + 1)
    together = runs[:, None] + runs[(np.arange(number)[:, None] + disjoint) % number]
    return bool(together.min() < threshold)
