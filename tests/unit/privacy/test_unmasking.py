"""Whole sums, driven by hand: right, or none at all, whoever drops out and whatever a site tells."""

from __future__ import annotations

import hashlib
import random
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_masking_session import (
    BOUND,
    Group,
    Part,
    confirm,
    contribute,
    group,
    named,
    open_sum,
    part,
    reveal,
    share_secrets,
)

from medfed.core.errors import CodecError, QuorumLost, Refused
from medfed.govern.keys import SigningKey
from medfed.privacy.graph import least_sites, neighbourhood
from medfed.privacy.ring import Layout
from medfed.privacy.secagg.messages import Advertised, Boxes, Masked, Revealed, Survivors, roster_of

STAGES = ["keys", "sharing", "contributing", "confirming", "revealing"]
"""What a site that drops out does not do any more; it did all before."""

IDENTITIES = {site: SigningKey.generate() for site in named(7)}


def known(number: int) -> dict[str, SigningKey]:
    return {site: IDENTITIES[site] for site in named(number)}


def present(number: int, leaves: Mapping[str, str], stage: str) -> list[str]:
    return [site for site in named(number) if site not in leaves or STAGES.index(leaves[site]) > STAGES.index(stage)]


def parts_of(sites: Iterable[str]) -> dict[str, Part]:
    """Unlike contributions, the last digits of which are below the resolution."""
    found = {}
    for site in sites:
        draw = np.random.default_rng(int(site[-2:]))
        found[site] = Part(
            draw.integers(-(2**20), 2**20, 5),
            draw.uniform(-BOUND, BOUND, (2, 3)).astype(np.float32),
            draw.uniform(-(2.0**80), 2.0**80, 2),
            int(draw.integers(2**20)),
        )
    return found


def right(told: Group, total: Part, parts: Mapping[str, Part]) -> bool:
    """Whether a total is the plain sum within the stated error, and the rounding of the type it is given in."""
    error = told.encoder.error(Layout.of(total))
    assert error["counts"] == error["rows"] == 0
    delta = np.sum([each.delta.astype(np.float64) for each in parts.values()], axis=0)
    squares = np.sum([each.squares for each in parts.values()], axis=0)
    return (
        total.counts.tolist() == np.sum([each.counts for each in parts.values()], axis=0).tolist()
        and total.rows == sum(each.rows for each in parts.values())
        and bool((np.abs(total.delta - delta) <= error["delta"] + np.spacing(np.abs(total.delta))).all())
        and bool((np.abs(total.squares - squares) <= error["squares"] + 2.0**-50 * 2.0**83).all())
    )


def driven(told: Group, number: int, leaves: Mapping[str, str]) -> Part:
    """A sum from which sites drop out. Raises QuorumLost where the coordinator does."""
    open_sum(told, present(number, leaves, "keys"))
    share_secrets(told, present(number, leaves, "sharing"))
    contribute(told, parts_of(present(number, leaves, "contributing")))
    confirm(told, present(number, leaves, "confirming"))
    reveal(told, present(number, leaves, "revealing"))
    total = told.coordinator.total(told.revealed, told.encoder)
    assert isinstance(total, Part)
    return total


@settings(max_examples=120)
@given(st.data(), st.integers(3, 7))
def test_a_sum_is_right_or_fails_closed_whoever_drops_out(data: st.DataObject, number: int) -> None:
    stays = st.sampled_from(["stays", "stays", "stays", "stays", "stays", *STAGES])
    drawn = {site: data.draw(stays, label=site) for site in named(number)}
    leaves = {site: stage for site, stage in drawn.items() if stage != "stays"}
    told = group(number, secrets.token_bytes(32), known(number))
    if number - len(leaves) < least_sites(number):
        with pytest.raises(QuorumLost, match=f"takes {least_sites(number)} of the {number}"):
            driven(told, number, leaves)
        return
    total = driven(told, number, leaves)
    contributed = present(number, leaves, "contributing")
    assert told.survivors == tuple(contributed)
    assert right(told, total, parts_of(contributed))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", range(3, 8))
def test_a_sum_stands_one_dropout_at_a_stage_and_fails_at_one_too_many(number: int, stage: str) -> None:
    spare = number - least_sites(number)
    told = group(number, secrets.token_bytes(32), known(number))
    total = driven(told, number, dict.fromkeys(named(number)[:spare], stage))
    assert right(told, total, parts_of(told.survivors))
    with pytest.raises(QuorumLost, match=r"sites .*, and a secure sum takes"):
        driven(
            group(number, secrets.token_bytes(32), known(number)),
            number,
            dict.fromkeys(named(number)[: spare + 1], stage),
        )


def test_a_sum_in_which_nobody_contributes_fails_closed() -> None:
    told = share_secrets(open_sum(group(3)))
    with pytest.raises(QuorumLost, match="0 sites contributed"):
        told.coordinator.survivors()


def test_sixty_sites_with_a_sparse_graph_and_dropouts_at_every_stage() -> None:
    number = 60
    size = neighbourhood(number, number)
    assert size.degree < number // 2
    leaves = {site: STAGES[place % 5] for place, site in enumerate(named(number)[::6])}
    told = group(number)
    total = driven(told, number, leaves)
    contributed = present(number, leaves, "contributing")
    assert right(told, total, parts_of(contributed))
    assert all(len(boxes) == neighbourhood(58, number).degree for boxes in told.coordinator._boxes.values())
    kinds: Counter[str] = Counter()
    for by, answer in told.revealed.items():
        site = told.sites[by]
        for owner, found in zip(told.senders, answer.shares, strict=True):
            near = owner == by or owner in told.coordinator._neighbours[by]
            kind = "none" if not found else "seed" if found == site._seed_shares[owner] else "key"
            assert (kind == "none") != near
            if near:
                assert kind == ("seed" if owner in told.survivors else "key")
            kinds[kind] += 1
    assert all(kinds[kind] for kind in ("none", "seed", "key"))


def parted(told: Group, colluders: set[str]) -> tuple[set[str], set[str]] | None:
    """A few honest sites, and survivors among which they have no honest neighbour but each other, if there are such.

    In the circle of the sparse graph two runs of half a neighbourhood part those between them from all others: the
    coordinator says that the honest sites of both runs dropped out, and the masks of its colluders there it knows. What
    is left to it of each honest site's masks cancels in the sum of those few.
    """
    number = len(told.sites)
    size = neighbourhood(number, number)
    roster, half = roster_of(told.session, told.keys), size.degree // 2
    circle = sorted(told.keys.sites, key=lambda site: hashlib.sha256(roster + site.encode()).digest())
    for few in range(1, number - 2 * half):
        for start in range(number):
            turned = [*circle[start:], *circle[:start]]
            runs, between = {*turned[:half], *turned[half + few : 2 * half + few]}, set(turned[half : half + few])
            survivors = set(circle) - (runs - colluders)
            near = [len({site, *told.coordinator._neighbours[site]} & survivors) for site in survivors - colluders]
            if len(survivors) >= size.least and between - colluders and min(near) >= size.threshold:
                return between - colluders, survivors
    return None


def test_survivors_that_part_a_few_honest_sites_from_the_others_are_refused() -> None:
    """Else the coordinator of sixty sites, a fifth of which collude, reads the sum of five to eight of the honest."""
    told = share_secrets(open_sum(group(60)))
    for site in told.sites:
        told.sites[site].receive(told.senders, told.coordinator.boxes_for(site))
    for draw in range(20):
        colluders = set(random.Random(draw).sample(named(60), 12))
        if found := parted(told, colluders):
            few, survivors = found
            assert not any(set(told.coordinator._neighbours[site]) & (survivors - few - colluders) for site in few)
            for site in sorted(few):
                with pytest.raises(Refused):
                    told.sites[site].confirm(Survivors(told.nonce, tuple(sorted(survivors))))
            return


def test_in_a_sparse_graph_both_all_confirmations_and_those_of_neighbours_have_to_be_enough() -> None:
    told = group(60)
    size = neighbourhood(60, 60)
    share_secrets(open_sum(told))
    contribute(told, {site: part() for site in named(60)})
    confirm(told)
    one, other = named(60)[:2]
    near = {one, *told.coordinator._neighbours[one]}
    assert size.threshold <= len(near) < size.least
    with pytest.raises(Refused, match=f"{len(near)} sites confirmed the survivors, which are too few"):
        told.sites[one].reveal(told.confirmations(near))
    near = {other, *told.coordinator._neighbours[other]}
    far = {*sorted(set(named(60)) - near), *sorted(near)[: size.threshold - 1]}
    assert len(far) >= size.least
    with pytest.raises(Refused, match=f"{len(far)} sites confirmed the survivors, which are too few"):
        told.sites[other].reveal(told.confirmations(far))


def test_a_total_does_not_change_with_the_masks() -> None:
    totals = [driven(group(4), 4, {"site 02": "contributing"}) for _ in range(2)]
    assert np.array_equal(totals[0].delta, totals[1].delta)
    assert np.array_equal(totals[0].squares, totals[1].squares)


# ------------------------------------------------------------------------------------------------- false shares


def until_revealed(number: int, away: Iterable[str] = ()) -> Group:
    told = share_secrets(open_sum(group(number, secrets.token_bytes(32), known(number))))
    contribute(told, parts_of(site for site in named(number) if site not in away))
    return reveal(confirm(told))


def lie(how: str, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """What a site may give in the place of its shares."""
    size = len(shares[0])
    return {
        "random": tuple(secrets.token_bytes(size) for _ in shares),
        "one more": tuple((int.from_bytes(each, "big") + 1).to_bytes(size, "big") for each in shares),
        "zero": (bytes(size),) * len(shares),
        "beyond the field": (b"\xff" * size,) * len(shares),
        "of one site": (*shares[:1], bytes(size), *shares[2:]),
        "rotated": (*shares[1:], shares[0]),
        "short": tuple(each[:-1] for each in shares),
        "empty": (b"",) * len(shares),
        "fewer": shares[:-1],
        "more": (*shares, shares[0]),
        "none": (),
    }[how]


LIES = [
    "random",
    "one more",
    "zero",
    "beyond the field",
    "of one site",
    "rotated",
    "short",
    "empty",
    "fewer",
    "more",
    "none",
]


@pytest.mark.parametrize("how", LIES)
@pytest.mark.parametrize(("number", "away"), [(4, 0), (6, 0), (7, 1)])
def test_one_sites_false_shares_are_left_out_where_enough_others_are_true(number: int, away: int, how: str) -> None:
    told = until_revealed(number, named(number)[:away])
    assert len(told.revealed) > least_sites(number)
    for liar in list(told.revealed):
        with_lie = {**told.revealed, liar: Revealed(lie(how, told.revealed[liar].shares))}
        again = fresh(told)
        total = again.coordinator.total(with_lie, told.encoder)
        assert isinstance(total, Part)
        assert right(told, total, parts_of(told.survivors)), liar


def fresh(told: Group) -> Group:
    """The same sum at a coordinator that has not taken masks away yet."""
    coordinator = replace(told.coordinator, _boxes=dict(told.coordinator._boxes), _sums=[])
    coordinator._keys, coordinator._size = told.coordinator._keys, told.coordinator._size
    coordinator._neighbours = told.coordinator._neighbours
    for site, masked in told.masked.items():
        coordinator.add(site, masked, told.encoder)
    return replace_coordinator(told, coordinator)


def replace_coordinator(told: Group, coordinator: object) -> Group:
    copy = object.__new__(Group)
    copy.__dict__.update({**told.__dict__, "coordinator": coordinator})
    return copy


@pytest.mark.parametrize("how", LIES)
@pytest.mark.parametrize(("number", "away"), [(3, 0), (5, 1), (4, 1), (6, 1)])
def test_false_shares_of_a_site_that_is_needed_give_no_total(number: int, away: int, how: str) -> None:
    told = until_revealed(number, named(number)[:away])
    assert len(told.revealed) == least_sites(number)
    liar = named(number)[-1]
    told.revealed[liar] = Revealed(lie(how, told.revealed[liar].shares))
    with pytest.raises(QuorumLost, match="some are false"):
        told.coordinator.total(told.revealed, told.encoder)


@settings(max_examples=40)
@given(st.data(), st.integers(3, 7))
def test_no_lies_of_any_sites_give_a_wrong_total(data: st.DataObject, number: int) -> None:
    spare = number - least_sites(number)
    told = until_revealed(number, named(number)[: data.draw(st.integers(0, spare))])
    for site in told.revealed:
        how = data.draw(st.sampled_from(["true", "true", *LIES]), label=site)
        if how != "true":
            told.revealed[site] = Revealed(lie(how, told.revealed[site].shares))
    try:
        total = told.coordinator.total(told.revealed, told.encoder)
    except QuorumLost:
        return
    assert isinstance(total, Part)
    assert right(told, total, parts_of(told.survivors))


def test_fewer_shares_than_the_threshold_give_no_total() -> None:
    told = until_revealed(7)
    few = dict(list(told.revealed.items())[: least_sites(7) - 1])
    with pytest.raises(QuorumLost, match="4 sites gave their shares"):
        told.coordinator.total(few, told.encoder)


# --------------------------------------------------------------------------------------- odd answers of one site


def test_a_contribution_of_another_layout_is_left_out_and_the_sum_is_of_the_others() -> None:
    told = share_secrets(open_sum(group(4)))
    others = parts_of(named(4)[1:])
    contribute(told, {"site 00": part(size=9), **others})
    assert told.survivors == tuple(named(4)[1:])
    reveal(confirm(told))
    total = told.coordinator.total(told.revealed, told.encoder)
    assert isinstance(total, Part)
    assert right(told, total, others)


def test_layouts_of_which_no_one_has_enough_sites_give_no_total() -> None:
    told = share_secrets(open_sum(group(4)))
    with pytest.raises(QuorumLost, match="2 sites contributed"):
        contribute(told, {site: part(size=3 + place // 2) for place, site in enumerate(named(4))})


def test_a_contribution_beyond_its_bound_is_found_in_the_total() -> None:
    told = share_secrets(open_sum(group(3)))
    contribute(told, {site: part() for site in named(3)})
    told.coordinator._sums[0].rings[64][:1] += np.uint64(2**60)  # an array wraps, as the ring does; a scalar would warn
    reveal(confirm(told))
    with pytest.raises(QuorumLost, match=r"'delta'.*broke its bound"):
        told.coordinator.total(told.revealed, told.encoder)


def test_masked_elements_that_are_not_those_of_their_layout_are_refused_and_change_nothing() -> None:
    told = share_secrets(open_sum(group(3)))
    for site in named(3):
        told.sites[site].receive(told.senders, told.coordinator.boxes_for(site))
    masked = {site: told.sites[site].masked(each, told.encoder) for site, each in parts_of(named(3)).items()}
    told.coordinator.add("site 00", masked["site 00"], told.encoder)
    before = {bits: ring.copy() for bits, ring in told.coordinator._sums[0].rings.items()}
    good = masked["site 01"]
    for bad in (
        replace(good, narrow=good.narrow[:-1]),
        replace(good, middle=np.zeros(0, np.uint64)),
        replace(good, wide=good.wide.reshape(-1)),
        replace(good, narrow=good.narrow.astype(np.uint64)),
        replace(good, narrow=good.middle, middle=good.narrow),
        replace(good, layout=Layout(good.layout.shapes[:-1], good.layout.types[:-1])),
        Masked(Layout((), ()), *(np.zeros(0, np.uint32),) * 3),
    ):
        with pytest.raises(CodecError):
            told.coordinator.add("site 01", bad, told.encoder)
        assert all(np.array_equal(ring, before[bits]) for bits, ring in told.coordinator._sums[0].rings.items())
        assert told.coordinator._sums[0].sites == ["site 00"]


def test_a_first_contribution_is_copied() -> None:
    told = share_secrets(open_sum(group(3)))
    contribute(told, parts_of(named(3)))
    assert not any(np.shares_memory(told.coordinator._sums[0].rings[32], each.narrow) for each in told.masked.values())


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_boxes_for_other_than_all_neighbours_are_refused(count: int) -> None:
    told = open_sum(group(4))
    with pytest.raises(CodecError, match="one box to each neighbour"):
        told.coordinator.take_boxes("site 00", Boxes((b"box",) * count))


def test_boxes_go_to_whom_they_are_for() -> None:
    told = open_sum(group(4))
    for site in named(3):
        receivers = [other for other in named(4) if other != site]
        told.coordinator.take_boxes(site, Boxes(tuple(f"{site} to {other}".encode() for other in receivers)))
    assert told.coordinator.senders == tuple(named(3))
    assert told.coordinator.boxes_for("site 01") == (b"site 00 to site 01", b"site 02 to site 01")
    assert told.coordinator.boxes_for("site 03") == tuple(f"{site} to site 03".encode() for site in named(3))


def test_keys_are_listed_by_the_names_of_their_sites() -> None:
    told = group(4)
    keys = {site: told.sites[site].advertise(()) for site in reversed(named(4))}
    listed = told.coordinator.key_list(keys)
    assert listed.sites == tuple(named(4))
    assert listed.keys == tuple(keys[site] for site in named(4))
    with pytest.raises(QuorumLost, match="2 sites made keys"):
        group(4).coordinator.key_list({site: keys[site] for site in named(2)})


def test_a_hash_that_is_not_of_the_seed_gives_no_total() -> None:
    """A site whose seed cannot be checked cannot be unmasked: its shares may be anybody's."""
    told = group(3)
    keys = {site: told.sites[site].advertise(()) for site in named(3)}
    own = keys["site 02"]
    false = Advertised(own.box_key, own.mask_key, hashlib.sha256(b"another").digest(), b"")
    signed = told.identities["site 02"].sign(false.signed(told.session, "site 02"))
    keys["site 02"] = replace(false, signature=signed)
    told.keys = told.coordinator.key_list(keys)
    share_secrets(told)
    contribute(told, parts_of(named(3)))
    reveal(confirm(told))
    with pytest.raises(QuorumLost, match="seed of 'site 02'"):
        told.coordinator.total(told.revealed, told.encoder)
