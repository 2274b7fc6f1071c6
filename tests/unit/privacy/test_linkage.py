"""The linkage unit against the truth of invented people, against all pairs by hand, and against invented filters."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from tests.unit.privacy.people import ENCODING, Person, mistyped, people, records

from medfed.core.codec import decode, encode
from medfed.core.errors import Refused, UserError
from medfed.privacy.bloom import Encoded, encoded
from medfed.privacy.linkage import HammingBlocks, Rules, dice, link
from medfed.privacy.linkage_messages import Filters, Links

KEY = bytes(range(32))
RULES = Rules(threshold=0.76, least=1, most=5000, least_links=1)


def sent(crowd: list[Person], party: str, **changes: Any) -> Encoded:
    return encoded(
        records(crowd), ENCODING, changes.get("key", KEY), session=changes.get("session", "one"), party=party
    )


def carried(message: Any) -> Any:
    return decode(encode(message), type(message))


def hospitals(seed: int, common: int = 600, others: int = 600) -> tuple[list[Person], list[Person]]:
    """Two hospitals whose first patients are the same people, with one typing error each at the second."""
    crowd = people(common + 2 * others, seed)
    draw = np.random.default_rng(seed + 1)
    wrong = [mistyped(person, draw) for person in crowd[:common]]
    return crowd[: common + others], wrong + crowd[common + others :]


@pytest.mark.parametrize("blocks", [None, HammingBlocks(tables=60, bits=12)])
@pytest.mark.parametrize("seed", [10, 20, 30])
def test_people_with_one_typing_error_are_linked(seed: int, blocks: HammingBlocks | None) -> None:
    ours, theirs = hospitals(seed)
    north, south = sent(ours, "north"), sent(theirs, "south")
    links = link(carried(north.filters), carried(south.filters), replace(RULES, blocks=blocks))
    at_north, at_south = north.linked(carried(links[0])), south.linked(carried(links[1]))
    assert len(set(at_north.tolist())) == len(at_north) == len(at_south) == len(set(at_south.tolist()))
    right = int(((at_north == at_south) & (at_north < 600)).sum())
    assert right / len(at_north) >= 0.99
    assert right / 600 >= 0.99


def by_hand(first: Filters, second: Filters, threshold: float) -> dict[int, int]:
    """Greedy one-to-one matching over all pairs of a bucket, with Python's integers."""
    ours, theirs = ([int.from_bytes(row.tobytes(), "big") for row in s.filters] for s in (first, second))
    pairs = [
        (2 * (a & b).bit_count() / (a.bit_count() + b.bit_count()), i, j)
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
        if first.buckets[i] == second.buckets[j]
    ]
    matched: dict[int, int] = {}
    for similarity, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if similarity >= threshold and i not in matched and j not in matched.values():
            matched[i] = j
    return matched


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_pairs_are_those_of_all_pairs_by_hand(threshold: float) -> None:
    ours, theirs = hospitals(40, common=40, others=50)
    first, second = sent(ours, "north").filters, sent(theirs, "south").filters
    of_first, of_second = link(first, second, replace(RULES, threshold=threshold))
    pairs = dict(zip(of_first.records.tolist(), of_second.records.tolist(), strict=True))
    assert pairs == by_hand(first, second, threshold)


def test_pairs_of_chunks_are_pairs_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = hospitals(50, common=60, others=60)
    first, second = sent(ours, "north").filters, sent(theirs, "south").filters
    whole = link(first, second, RULES)
    monkeypatch.setattr("medfed.privacy.linkage._PAIRS_AT_A_TIME", 7)
    chunked = link(first, second, RULES)
    assert {*zip(*(side.records.tolist() for side in whole), strict=True)} == {
        *zip(*(side.records.tolist() for side in chunked), strict=True)
    }


def test_blocks_compare_as_many_pairs_as_they_say() -> None:
    ours, theirs = hospitals(55, common=300, others=0)
    north, south = sent(ours, "north"), sent(theirs, "south")
    by_row = [side.filters.filters[np.argsort(side.rows)] for side in (north, south)]
    differing = np.bitwise_count(by_row[0] ^ by_row[1]).sum(axis=1) / 1024
    blocks = HammingBlocks(tables=3, bits=16)
    expected = (1 - (1 - (1 - differing) ** blocks.bits) ** blocks.tables).mean()
    rules = replace(RULES, blocks=blocks)
    found = np.mean([len(link(north.filters, south.filters, rules)[0].records) / 300 for _ in range(20)])
    assert 0.2 < expected < 0.8
    assert abs(found - expected) < 0.1


def test_dice_of_filters_by_hand() -> None:
    first = np.array([[0b1110, 0], [0, 0], [255, 255]], np.uint8)
    second = np.array([[0b0111, 1], [0, 0], [255, 255]], np.uint8)
    assert dice(first, second).tolist() == [2 * 2 / 7, 0.0, 1.0]


def test_numbers_of_pairs_say_nothing_of_similarity() -> None:
    """Spearman's ρ of number and similarity, over linkages of 300 pairs: within 5 standard deviations of 0."""
    ours, theirs = hospitals(60, common=300, others=0)
    north, south = sent(ours, "north").filters, sent(theirs, "south").filters
    of_first, of_second = link(north, south, RULES)
    similarity = dice(north.filters[of_first.records], south.filters[of_second.records])
    ranks = np.argsort(np.argsort(similarity))
    assert len(ranks) > 290 and np.ptp(similarity) > 0.05
    assert abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) < 5 / np.sqrt(len(ranks))


def test_parties_learn_pairs_alone_and_the_unit_neither_key_nor_names() -> None:
    assert [field.name for field in fields(Links)] == ["project", "session", "party", "records"]
    ours, theirs = hospitals(70, common=20, others=5)
    north, south = sent(ours, "north"), sent(theirs, "south")
    for side, links in zip((north, south), link(north.filters, south.filters, RULES), strict=True):
        assert (links.party, links.session) == (side.filters.party, "one")
    seen = encode(north.filters) + encode(south.filters)
    assert KEY not in seen
    assert not any(person.surname.encode() in seen for person in ours if len(person.surname) > 5)


# Refusals


@pytest.fixture(scope="module")
def two() -> tuple[Filters, Filters]:
    ours, theirs = hospitals(80, common=30, others=10)
    return sent(ours, "north").filters, sent(theirs, "south").filters


@pytest.mark.parametrize(
    "changes", [{"project": "hearts"}, {"session": "two"}, {"check": bytes(32)}, {"party": "north"}]
)
def test_parties_of_different_sessions_are_not_compared(two: tuple[Filters, Filters], changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="not of two parties"):
        link(two[0], replace(two[1], **changes), RULES)


def test_different_keys_are_not_compared() -> None:
    ours, theirs = hospitals(80, common=30, others=10)
    with pytest.raises(Refused, match="one key"):
        link(sent(ours, "north").filters, sent(theirs, "south", key=b"\1" * 32).filters, RULES)


def test_a_repeated_filter_is_refused(two: tuple[Filters, Filters]) -> None:
    filters = two[1].filters.copy()
    filters[7] = filters[3]
    with pytest.raises(Refused, match="hold one twice"):
        link(two[0], replace(two[1], filters=filters), RULES)


@pytest.mark.parametrize("share", [0.0, 0.04, 0.61, 1.0])
def test_filters_that_are_like_all_or_none_are_refused(two: tuple[Filters, Filters], share: float) -> None:
    filters = two[1].filters.copy()
    filters[5] = np.packbits(np.arange(1024) < share * 1024)
    with pytest.raises(Refused, match="too few or too many bits"):
        link(two[0], replace(two[1], filters=filters), RULES)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"filters": s.filters[:, :-1]},
        lambda s: {"filters": s.filters.reshape(-1)},
        lambda s: {"filters": s.filters.astype(np.int8)},
        lambda s: {"filters": s.filters[:, :0]},
        lambda s: {"buckets": s.buckets[:-1]},
        lambda s: {"buckets": s.buckets.astype(np.int64)},
        lambda s: {"filters": s.filters[:, :64]},
    ],
)
def test_malformed_filters_are_refused(two: tuple[Filters, Filters], change: Any) -> None:
    with pytest.raises(Refused):
        link(two[0], replace(two[1], **change(two[1])), RULES)
    link(two[0], two[1], RULES)


@pytest.mark.parametrize("limits", [{"least": 41}, {"most": 39}])
def test_too_few_or_too_many_records_are_refused(two: tuple[Filters, Filters], limits: dict[str, int]) -> None:
    with pytest.raises(Refused, match="are 40, where"):
        link(*two, replace(RULES, **limits))
    link(*two, replace(RULES, least=40, most=40))


def test_too_few_links_are_withheld_with_their_number(two: tuple[Filters, Filters]) -> None:
    with pytest.raises(Refused, match="fewer than 35") as refusal:
        link(*two, replace(RULES, least_links=35))
    assert not any(str(number) in str(refusal.value) for number in range(25, 35))
    strangers = sent(people(40, seed=99), "south").filters
    with pytest.raises(Refused, match="fewer than 1 "):
        link(two[0], strangers, RULES)


def test_filters_made_to_resemble_many_are_refused() -> None:
    """Nearly one filter, over and over: every pair is above the threshold, which no crowd of people is."""
    draw = np.random.default_rng(7)
    model = draw.random(1024) < 0.33
    crowds = [np.packbits(model ^ (draw.random((200, 1024)) < 0.01), axis=1) for _ in range(2)]
    first, second = (
        Filters("lungs", "one", party, bytes(32), filters, np.zeros(200, np.int32))
        for party, filters in zip(("north", "south"), crowds, strict=True)
    )
    with pytest.raises(Refused, match="resemble each other"):
        link(first, second, RULES)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 0.4},
        {"threshold": 1.1},
        {"least": 0},
        {"least": 6000},
        {"least_links": 0},
        {"lightest": 0.0},
        {"heaviest": 1.0},
        {"lightest": 0.7},
    ],
)
def test_rules_that_link_anything_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        replace(RULES, **changes)


@pytest.mark.parametrize(("tables", "bits"), [(0, 8), (1001, 8), (8, 0), (8, 65)])
def test_blocks_out_of_range_are_refused(tables: int, bits: int) -> None:
    with pytest.raises(UserError):
        HammingBlocks(tables, bits)
