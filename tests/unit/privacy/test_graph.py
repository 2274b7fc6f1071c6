"""The graph's shape, and its failure probabilities against SciPy's hypergeometric distribution."""

from __future__ import annotations

import hashlib
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medfed.privacy.graph import COMPLETE, _at_least, least_sites, neighbourhood, neighbours

MANY = [51, 52, 60, 75, 100, 300, 1000]


def names(sites: int) -> list[str]:
    return [f"site {number:04}" for number in range(sites)]


def reached(graph: dict[str, tuple[str, ...]], start: str) -> set[str]:
    found, border = {start}, {start}
    while border:
        border = {other for site in border for other in graph[site]} - found
        found |= border
    return found


@given(st.integers(1, 5000))
def test_a_sum_takes_more_than_two_thirds_of_the_sites_and_three(asked: int) -> None:
    least = least_sites(asked)
    assert least >= 3
    assert 3 * least > 2 * asked
    assert least == 3 or 3 * (least - 1) <= 2 * asked


@given(st.integers(3, 5000))
def test_two_sets_of_confirming_sites_share_an_honest_one_while_fewer_than_a_third_collude(asked: int) -> None:
    """Bonawitz et al. 2017, section 6.2: honest sites of two disjoint sets, and all colluders twice, are too few."""
    colluders = math.ceil(asked / 3) - 1
    assert 2 * least_sites(asked) - asked > colluders


@pytest.mark.parametrize("sites", range(3, COMPLETE + 1))
def test_up_to_fifty_sites_all_share_with_all(sites: int) -> None:
    size = neighbourhood(sites, sites)
    assert (size.degree, size.threshold, size.least) == (sites - 1, least_sites(sites), least_sites(sites))
    graph = neighbours(names(sites), size.degree, b"seed")
    assert graph == {site: tuple(other for other in names(sites) if other != site) for site in names(sites)}


def test_fewer_keys_than_were_asked_lower_no_threshold() -> None:
    for asked in (3, 7, 10, 50, 100, 300):
        for sites in range(least_sites(asked), asked + 1, max(1, asked // 10)):
            assert neighbourhood(sites, asked).least == least_sites(asked)
            if sites <= COMPLETE:
                assert neighbourhood(sites, asked).threshold == least_sites(asked)


@pytest.mark.parametrize("sites", MANY)
def test_a_sparse_graph_is_symmetric_connected_and_of_its_degree(sites: int) -> None:
    size = neighbourhood(sites, sites)
    assert size.degree < sites - 1
    graph = neighbours(names(sites), size.degree, b"seed")
    assert sorted(graph) == names(sites)
    for site, others in graph.items():
        assert len(set(others)) == len(others) == size.degree
        assert site not in others
        assert list(others) == sorted(others)
        assert all(site in graph[other] for other in others)
    assert reached(graph, names(sites)[0]) == set(names(sites))


@pytest.mark.parametrize("sites", [60, 300])
def test_a_sparse_graph_holds_together_when_half_a_neighbourhood_is_away(sites: int) -> None:
    """A Harary graph of degree k is k-connected (Harary 1962): fewer than k sites that are away part nobody."""
    size = neighbourhood(sites, sites)
    graph = neighbours(names(sites), size.degree, b"seed")
    for number in range(20):
        away = set(random.Random(number).sample(names(sites), size.degree - 1))
        here = {site: tuple(o for o in others if o not in away) for site, others in graph.items() if site not in away}
        assert reached(here, min(here)) == set(here)


@pytest.mark.parametrize("sites", [10, 60, 300])
def test_the_graph_does_not_depend_on_the_order_of_the_sites(sites: int) -> None:
    degree = neighbourhood(sites, sites).degree
    mixed = names(sites)
    random.Random(1).shuffle(mixed)
    assert neighbours(names(sites), degree, b"seed") == neighbours(mixed, degree, b"seed")


def test_another_seed_draws_another_graph_at_random() -> None:
    degree, sites = neighbourhood(100, 100).degree, names(100)
    seeds = [hashlib.sha256(bytes([number])).digest() for number in range(200)]
    graphs = [neighbours(sites, degree, seed) for seed in seeds]
    assert all(one != other for one, other in itertools.pairwise(graphs))
    times = [sum(other in graph[sites[0]] for graph in graphs) for other in sites[1:]]
    expected = len(seeds) * degree / 99
    assert sum(times) == len(seeds) * degree
    deviations = [(count - expected) / math.sqrt(expected * (1 - degree / 99)) for count in times]
    assert max(map(abs, deviations)) < 6


@given(st.data(), st.integers(1, 400))
def test_the_tail_is_that_of_scipy(data: st.DataObject, of: int) -> None:
    drawn, marked = data.draw(st.integers(0, of)), data.draw(st.integers(0, of))
    wanted = data.draw(st.integers(0, drawn + 1))
    exact = float(stats.hypergeom.sf(wanted - 1, of, marked, drawn))
    assert _at_least(wanted, drawn, marked, of) == pytest.approx(exact, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("sites", MANY)
def test_the_stated_chances_hold_where_a_fifth_collude_and_a_fifth_are_away(sites: int) -> None:
    size = neighbourhood(sites, sites)
    fifth = math.ceil(sites / 5)
    away = min(sites // 5, sites - size.least)
    caught = sites * stats.hypergeom.sf(size.threshold - 1, sites - 1, fifth, size.degree)
    lost = sites * stats.hypergeom.cdf(size.threshold - 1, sites - 1, sites - 1 - away, size.degree)
    assert caught <= 2.0**-40
    assert lost <= 2.0**-20


@pytest.mark.parametrize("sites", [51, 100, 300])
def test_no_smaller_even_degree_has_the_stated_chances(sites: int) -> None:
    size = neighbourhood(sites, sites)
    fifth, away = math.ceil(sites / 5), min(sites // 5, sites - size.least)
    for degree in range(8, size.degree, 2):
        for threshold in range(degree // 2, degree):
            caught = sites * stats.hypergeom.sf(threshold - 1, sites - 1, fifth, degree)
            lost = sites * stats.hypergeom.cdf(threshold - 1, sites - 1, sites - 1 - away, degree)
            assert caught > 2.0**-40 or lost > 2.0**-20


@given(st.integers(51, 400), st.data())
def test_a_threshold_is_never_below_half_of_the_neighbours(asked: int, data: st.DataObject) -> None:
    sites = data.draw(st.integers(least_sites(asked), asked))
    size = neighbourhood(sites, asked)
    assert size.degree <= sites - 1
    assert size.degree // 2 <= size.threshold <= size.degree + 1
