from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medfed.engine.repeated_patients import repeated_patients

ids = st.sets(st.text("aB1 ", min_size=1, max_size=3))


def test_patients_of_two_sites_are_counted_at_both_whatever_their_spelling():
    sites = {"North": {"Müller 1", "B2", "C3"}, "South": {" MÜLLER 1", "D4"}, "East": {"E5"}}
    assert repeated_patients(sites) == {"North": 1, "South": 1}


@given(st.dictionaries(st.sampled_from(["A", "B", "C"]), ids))
def test_counts_are_those_of_plain_sets(sites):
    spelt = {site: {patient.strip().lower() for patient in patients} for site, patients in sites.items()}
    expected = {}
    for site, mine in spelt.items():
        others = set().union(*(found for name, found in spelt.items() if name != site))
        if mine & others:
            expected[site] = len(mine & others)
    assert repeated_patients(sites) == expected
